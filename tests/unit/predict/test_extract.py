"""Answers kept to the source: every piece of it can be written, nothing else can, and greedy stays greedy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from treetune.core.records import Example, Row
from treetune.models.engine import fullest_engine, set_up
from treetune.models.gpt3 import train_tokenizer
from treetune.models.load import LoadedModel
from treetune.models.tokens import tokenize
from treetune.predict.answers import predict_answers
from treetune.predict.extract import Paths, paths_for, paths_of, read_part
from treetune.predict.generate import generate_answers
from treetune.tasks import question_answering
from treetune.tasks.contract import TaskOptions, is_extractive, load_task

WINDOW = 96
NEW = 12
LEARNT = ["The film was good in 1888.", "Ein Film, der gut war.", "这部电影很好看。"] * 20
TOKENIZER = train_tokenizer(LEARNT, 300, WINDOW)
CONTEXTS = ["Anna saw “The  film”\nin 1888, and it was good.", "这部电影很好看，1888年拍的。", "A film"]


def lead(piece: str) -> str:
    return question_answering.completion_of(piece, "en")


def make(text: str, num_tokens: int = 40) -> Paths:
    return paths_of(text, lead, [lead("")], TOKENIZER, num_tokens)


def examples_of(contexts: list[str]) -> list[Example]:
    rows = [Row({"context": text, "question": f"What was it {n}?"}, "f.csv", n + 2, n, "test")
            for n, text in enumerate(contexts)]
    return [question_answering.example_from_row(row, TaskOptions(), with_answer=False) for row in rows]


WORD = st.text(alphabet="abGoé1", min_size=1, max_size=4) | st.sampled_from(["film", "good,", "(was)", "A.B", "(x)."])
WORDS = st.lists(WORD, min_size=1, max_size=8)


@settings(deadline=None, max_examples=60)
@given(WORDS, st.data())
def test_every_run_of_words_can_be_written_and_may_end(words: list[str], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, len(words) - 1))
    paths = make(" \n".join(words))
    tokens = TOKENIZER(" " + " ".join(words[first : last + 1]), add_special_tokens=False)["input_ids"]
    for place in range(len(tokens[:40])):
        assert tokens[place] in paths.after(tokens[:place])
    if len(tokens) <= 40:
        assert TOKENIZER.eos_token_id in paths.after(tokens)


@settings(deadline=None, max_examples=60)
@given(st.text(alphabet="ab .,é1好看🙂\n", min_size=1, max_size=20), st.integers(0, 2**32 - 1))
def test_whatever_is_written_stands_in_the_text_and_ends_between_words(text: str, seed: int) -> None:
    draw = np.random.default_rng(seed)
    paths, written = make(text, 12), []
    while len(written) < 12:
        token = int(draw.choice(paths.after(written)))
        if token == paths.end:
            break
        written.append(token)
    answer = TOKENIZER.decode(written)
    squeezed = " ".join(text.split())
    if len(written) < 12:
        assert answer == lead("") or (answer.startswith(" ") and answer[1:] in squeezed), answer
        if answer != lead("") and squeezed.count(answer[1:]) == 1 and "好" not in text and "看" not in text:
            around = squeezed.partition(answer[1:])[2][:1]
            assert not (around.isalnum() and answer[-1].isalnum())


def test_an_answer_may_end_within_a_run_of_signs() -> None:
    tokenizer = train_tokenizer(["(was). (is). (as)."] * 20, 300, WINDOW)
    paths = paths_of("It (was). So", lead, [lead("")], tokenizer, 20)
    whole, part = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (" (was).", " (was)"))
    assert whole[: len(part)] != part  # the full stop is one token with the bracket
    for tokens in (whole, part):
        assert all(token in paths.after(tokens[:place]) for place, token in enumerate(tokens))
        assert paths.end in paths.after(tokens)


def test_a_text_without_words_leaves_that_there_is_no_answer() -> None:
    paths, written = make("  \n"), []
    while (found := paths.after(written).tolist()) != [paths.end]:
        written += found
    assert TOKENIZER.decode(written) == question_answering.NO_ANSWER["en"]
    assert paths.after([5, 5, 5]).tolist() == [paths.end]  # what is no beginning of an answer can only end


def stepwise(
    loaded: LoadedModel, prompt: list[int], allowed: Callable[[list[int]], Any]
) -> tuple[list[int], list[float]]:
    """The likeliest allowed token each time, the whole row computed anew."""
    ids: list[int] = []
    logs: list[float] = []
    while len(ids) < NEW and ids[-1:] != [loaded.tokenizer.eos_token_id]:
        with torch.no_grad():
            step = loaded.model(input_ids=torch.tensor([prompt + ids]), use_cache=False).logits[0, -1].log_softmax(-1)
        may = allowed(ids).tolist()
        ids.append(max(may, key=lambda token: float(step[token])))
        logs.append(float(step[ids[-1]]))
    return ids, logs


@pytest.mark.parametrize("layout", ["padded", "tree"])
def test_it_is_the_likeliest_allowed_token_step_by_step(loaded: LoadedModel, layout: str) -> None:
    task, examples = load_task("qa"), examples_of([*CONTEXTS, CONTEXTS[0]])
    rows = tokenize(examples, loaded.tokenizer, WINDOW - NEW, with_completion=False)
    paths = paths_for(loaded, task, examples, [row.num_cut for row in rows], NEW)
    assert paths[0] is paths[3]  # made once a source
    wanted = [stepwise(loaded, row.prompt_ids.tolist(), own.after) for row, own in zip(rows, paths, strict=True)]
    if layout == "tree":
        set_up(loaded.model, fullest_engine(loaded.model))
    found = generate_answers(loaded, task, examples, max_length=WINDOW, max_new_tokens=NEW, rows_per_pass=3,
                             layout=layout, answers_from="source")
    for example, prediction, (ids, logs) in zip(examples, found, wanted, strict=True):
        assert prediction.token_log_probs == pytest.approx(logs, abs=1e-5)
        assert prediction.finished == (ids[-1] == loaded.tokenizer.eos_token_id)
        assert prediction.answer in " ".join(example.source.split())


def test_it_is_off_unless_asked_for_and_only_for_tasks_of_pieces(loaded: LoadedModel) -> None:
    qa, examples = load_task("qa"), examples_of(CONTEXTS)
    free, kept = (predict_answers(loaded, qa, examples, max_length=WINDOW, max_new_tokens=NEW, answers_from=each)
                  for each in ("anything", "source"))
    assert [each.text for each in free] != [each.text for each in kept]
    assert [is_extractive(load_task(name)) for name in ("qa", "summarization", "translation", "sentiment")] == [
        True, False, False, False]


def test_only_the_part_of_the_source_that_was_read_counts(loaded: LoadedModel) -> None:
    (example,) = examples_of(["The film was good. " * 20 + "Finis"])
    (row,) = tokenize([example], loaded.tokenizer, WINDOW - NEW, with_completion=False)
    assert row.num_cut > 0
    part = read_part(loaded, example.source, row.num_cut)
    assert example.source.startswith(part)
    assert "Finis" not in part
    assert len(loaded.tokenizer(part)["input_ids"]) < len(row.prompt_ids)
    assert read_part(loaded, "好看", 1) in ("", "好")
