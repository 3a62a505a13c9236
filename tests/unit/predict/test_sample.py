"""Drawn answers: the model's own distribution, fixed by seed and row, the same however the rows are laid out."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from treetune.core.records import Example, Row
from treetune.core.seeds import generator
from treetune.models.engine import fullest_engine, set_up
from treetune.models.load import LoadedModel, load_model
from treetune.models.seq2seq import encode_sources
from treetune.models.tokens import tokenize
from treetune.predict.engines.contract import Decoding
from treetune.predict.sample import Sampling, sampled_answers
from treetune.tasks.contract import TaskOptions, load_task

WINDOW = 96
TASK = load_task("summarization")
TEXTS = ["The film was good.", "x", "这部电影很好看。"]
NEW = 6
SAMPLING = Sampling(4, 1.0, 7)


def examples_of(texts: list[str]) -> list[Example]:
    return [TASK.example_from_row(Row({"document": text}, "f", n + 1, n, "test"), TaskOptions(), with_answer=False)
            for n, text in enumerate(texts)]


def decoding(layout: str, **others: object) -> Decoding:
    return Decoding(WINDOW, NEW, layout, "anything", 0, **others)  # type: ignore[arg-type]


def by_hand(loaded: LoadedModel, example: Example, number: int) -> str:
    """Each token by the inverse of the distribution function, the whole row computed anew."""
    (row,) = tokenize([example], loaded.tokenizer, WINDOW - NEW, with_completion=False)
    ids, written = row.prompt_ids.tolist(), []
    for chance in generator(SAMPLING.seed, "agreement", example.source, example.question, number).random(NEW):
        with torch.no_grad():
            logits = loaded.model(input_ids=torch.tensor([ids + written]), use_cache=False).logits[0, -1]
        below = np.cumsum(logits.double().softmax(-1).numpy())
        written.append(int(np.searchsorted(below, chance * below[-1], side="right")))
        if written[-1] == loaded.tokenizer.eos_token_id:
            written.pop()
            break
    return TASK.answer_from_text(loaded.tokenizer.decode(written, skip_special_tokens=False), example)


@pytest.mark.parametrize("layout", ["tree", "padded"])
def test_a_decoder_s_draws_are_those_by_hand_shared_or_not(loaded: LoadedModel, layout: str) -> None:
    own = LoadedModel(copy.deepcopy(loaded.model), loaded.tokenizer, WINDOW, "own")
    set_up(own.model, fullest_engine(own.model))
    examples = examples_of(TEXTS)
    expected = [[by_hand(loaded, each, number) for number in range(4)] for each in examples]
    assert len({text for row in expected for text in row}) > 6, "these draws tell nothing apart"
    assert sampled_answers(own, TASK, examples, decoding(layout), SAMPLING) == expected
    assert sampled_answers(own, TASK, examples[2:], decoding(layout), SAMPLING) == expected[2:]


def test_samples_of_one_prompt_read_it_once(loaded: LoadedModel) -> None:
    own = LoadedModel(copy.deepcopy(loaded.model), loaded.tokenizer, WINDOW, "own")
    set_up(own.model, fullest_engine(own.model))
    seen: list[int] = []
    own.model.register_forward_pre_hook(
        lambda module, args, given: seen.append(given["input_ids"].numel()), with_kwargs=True)
    examples = examples_of(TEXTS[:1])
    sampled_answers(own, TASK, examples, decoding("tree"), SAMPLING)
    (row,) = tokenize(examples, loaded.tokenizer, WINDOW - NEW, with_completion=False)
    assert len(row.prompt_ids) <= seen[0] <= len(row.prompt_ids) + 1  # the marked end of the prompt may be a token


@pytest.mark.parametrize("kind", ["t5", "bart", "marian"])
def test_an_encoder_decoder_reads_each_source_once_and_draws_by_row(
    kind: str, family_folder: Callable[[str], Path]
) -> None:
    own = load_model(str(family_folder(kind)), head="seq2seq")
    own.model.double()
    examples = examples_of([*TEXTS[:2], TEXTS[0]])
    rows: list[int] = []
    own.model.get_encoder().register_forward_pre_hook(
        lambda module, args, given: rows.append(len(given["input_ids"])), with_kwargs=True)
    how = Decoding(64, NEW, "padded", "anything", 0)
    found = sampled_answers(own, TASK, examples, how, SAMPLING)
    assert rows == [2]
    assert found[0] == found[2]
    assert len({text for row in found for text in row}) > 2
    assert sampled_answers(own, TASK, examples[1:2], how, SAMPLING) == found[1:2]
    # token by token by hand, of one draw
    numbers = generator(SAMPLING.seed, "agreement", examples[1].source, "", 0).random(NEW)
    source = torch.from_numpy(encode_sources(examples[1:2], own.tokenizer, 64)[0][0])[None]
    barred = [words[0] for words in own.model.generation_config.bad_words_ids or []]
    ids = [own.model.config.decoder_start_token_id]
    for chance in numbers:
        with torch.no_grad():
            logits = own.model(input_ids=source, decoder_input_ids=torch.tensor([ids])).logits[0, -1]
        logits[barred] = -torch.inf
        below = np.cumsum(logits.softmax(-1).numpy())
        ids.append(int(np.searchsorted(below, chance * below[-1], side="right")))
        if ids[-1] == own.tokenizer.eos_token_id:
            break
    text = own.tokenizer.decode(ids[1:], skip_special_tokens=True)
    assert found[1][0] == TASK.answer_from_text(text, examples[1])


def test_a_lower_temperature_draws_the_likeliest_more_often(loaded: LoadedModel) -> None:
    examples = examples_of(TEXTS)
    distinct = [len({text for row in sampled_answers(loaded, TASK, examples, decoding("padded"),
                                                     Sampling(6, temperature, 0)) for text in row})
                for temperature in (1e-6, 1.0)]
    assert distinct[0] <= len(TEXTS) < distinct[1]
