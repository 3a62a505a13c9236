"""One vector a row: the stated layer and position, whatever rows stand beside it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from treetune.core.records import Example, Row
from treetune.models.load import LoadedModel, load_model
from treetune.models.tokens import tokenize, tokenize_candidates
from treetune.predict.engines.contract import Decoding
from treetune.predict.states import hidden_states, position_of
from treetune.tasks.contract import TaskOptions, load_task

WINDOW = 96
TEXTS = ["The film was good.", "x", "A long film, and then it went on.", "The film was good."]
HOW = Decoding(60, 5, "padded", "anything", 0)


def examples_of(task: str, columns: list[str]) -> list[Example]:
    options = TaskOptions(("negative", "positive") if task == "sentiment" else ())
    return [load_task(task).example_from_row(Row(dict.fromkeys(columns, text), "f", n + 1, n, "test"), options,
                                             with_answer=False) for n, text in enumerate(TEXTS)]


@pytest.mark.parametrize(("task", "last"), [("summarization", False), ("sentiment", True)])
def test_a_decoder_s_last_layer_over_the_prompt(loaded: LoadedModel, task: str, last: bool) -> None:
    examples = examples_of(task, ["document", "text"])
    found = hidden_states(loaded, load_task(task), examples, HOW)
    rows = (tokenize_candidates(examples, loaded.tokenizer, 60)[::2] if last
            else tokenize(examples, loaded.tokenizer, 55, with_completion=False))
    for own, row in zip(found, rows, strict=True):
        with torch.no_grad():
            states = loaded.model(input_ids=torch.tensor([row.prompt_ids.tolist()]), use_cache=False,
                                  output_hidden_states=True).hidden_states[-1][0].numpy()
        assert own == pytest.approx(states[-1] if last else states.mean(0), abs=1e-8)
    assert position_of("causal", load_task(task)) == ("last prompt token" if last else "mean of prompt tokens")
    assert found.dtype == np.float64


@pytest.mark.parametrize("kind", ["t5", "bart", "marian"])
def test_an_encoder_decoder_s_encoder(kind: str, family_folder: Callable[[str], Path]) -> None:
    own = load_model(str(family_folder(kind)), head="seq2seq")
    task = load_task("summarization")
    examples = examples_of("summarization", ["document"])
    found = hidden_states(own, task, examples, HOW)
    assert found[0] == pytest.approx(found[3], abs=1e-6)
    assert np.abs(found[0] - found[2]).max() > 0.01
    assert hidden_states(own, task, examples[1:2], HOW)[0] == pytest.approx(found[1], abs=1e-5)


@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert"])
def test_an_encoder_s_tokens_over_all_windows(kind: str, family_folder: Callable[[str], Path]) -> None:
    own = load_model(str(family_folder(kind)), head="classes", labels=["negative", "positive"])
    task = load_task("sentiment")
    examples = examples_of("sentiment", ["text"])
    found = hidden_states(own, task, examples, HOW)
    ids = own.tokenizer(TEXTS[2], return_tensors="pt")
    with torch.no_grad():
        states = own.model.base_model(**ids)[0][0].double().mean(0).numpy()
    assert found[2] == pytest.approx(states, abs=1e-5)
    spans = load_model(str(family_folder(kind)), head="spans")
    asked = examples_of("question_answering", ["context", "question"])
    assert hidden_states(spans, load_task("question_answering"), asked, HOW).shape == (4, 32)
