"""Generated answers are the likeliest token each time, as found without a cache and without padding."""

import copy
import math
from itertools import pairwise

import pytest
import torch

from treetune.core.errors import DataError
from treetune.core.records import Example, Prediction, Row
from treetune.models.engine import fullest_engine, set_up
from treetune.models.gpt3 import train_tokenizer
from treetune.models.load import LoadedModel
from treetune.models.tokens import tokenize
from treetune.predict.answers import predict_answers
from treetune.predict.generate import generate_answers, greedy
from treetune.predict.shared import greedy_shared
from treetune.tasks import summarization
from treetune.tasks.contract import TaskOptions, load_task

WINDOW = 96
LEARNT = ["The film was good.", "Ein Film, der gut war.", "这部电影很好看。"] * 20
TEXTS = ["The film was good.", "x", "这部电影很好看。", "A long film, and then it went on for an hour.",
         "The film", "很好"]
NEW = 9


@pytest.fixture(scope="module")
def stopping(loaded: LoadedModel) -> LoadedModel:
    """The same model with an end-of-text that it writes as its fourth new token for the first text."""
    tokenizer = train_tokenizer(LEARNT, 300, WINDOW)
    (row,) = tokenize(examples_of(TEXTS[:1]), tokenizer, WINDOW, with_completion=False)
    token = next(token for token in stepwise(loaded, row.prompt_ids.tolist(), NEW, end=-1)[0][3:] if token)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(token)
    assert tokenizer.eos_token_id == token
    return LoadedModel(loaded.model, tokenizer, WINDOW, "stopping")


def examples_of(texts: list[str]) -> list[Example]:
    rows = [Row({"document": text}, "f.csv", n + 2, n, "test") for n, text in enumerate(texts)]
    return [summarization.example_from_row(row, TaskOptions(), with_answer=False) for row in rows]


def stepwise(loaded: LoadedModel, prompt: list[int], count: int, end: int) -> tuple[list[int], list[float]]:
    """The likeliest token each time, the whole row computed anew: no cache, no padding."""
    ids, logs = list(prompt), []
    while len(logs) < count and (not logs or ids[-1] != end):
        with torch.no_grad():
            step = loaded.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].log_softmax(-1)
        ids.append(int(step.argmax()))
        logs.append(float(step.max()))
    return ids[len(prompt) :], logs


def generate(
    loaded: LoadedModel, texts: list[str], rows_per_pass: int = 32, new: int = NEW
) -> list[Prediction]:
    return generate_answers(loaded, load_task("summarization"), examples_of(texts), max_length=WINDOW,
                            max_new_tokens=new, rows_per_pass=rows_per_pass)


@pytest.mark.parametrize("which", ["loaded", "stopping"])
def test_greedy_is_argmax_step_by_step(which: str, request: pytest.FixtureRequest) -> None:
    model: LoadedModel = request.getfixturevalue(which)
    rows = tokenize(examples_of(TEXTS), model.tokenizer, WINDOW, with_completion=False)
    assert len({len(row.prompt_ids) for row in rows}) > 3
    for row, (ids, logs) in zip(rows, greedy(model, rows, NEW), strict=True):
        wanted_ids, wanted_logs = stepwise(model, row.prompt_ids.tolist(), NEW, model.tokenizer.eos_token_id)
        assert ids == wanted_ids
        assert logs == pytest.approx(wanted_logs, abs=1e-5)


@pytest.mark.parametrize("rows_per_pass", [1, 4, 32])
def test_predictions_keep_the_order_of_the_examples(loaded: LoadedModel, rows_per_pass: int) -> None:
    task, examples = load_task("summarization"), examples_of(TEXTS)
    rows = tokenize(examples, loaded.tokenizer, WINDOW, with_completion=False)
    for place, prediction in enumerate(generate(loaded, TEXTS, rows_per_pass)):
        ids, logs = stepwise(loaded, rows[place].prompt_ids.tolist(), NEW, loaded.tokenizer.eos_token_id)
        finished = ids[-1] == loaded.tokenizer.eos_token_id
        assert (prediction.row, prediction.row_id, prediction.split) == (place, f"test:{place}", "test")
        assert prediction.text == loaded.tokenizer.decode(ids[:-1] if finished else ids)
        assert prediction.answer == task.answer_from_text(prediction.text, examples[place])
        assert prediction.token_log_probs == pytest.approx(logs, abs=1e-5)
        assert prediction.finished == finished


def test_scores_sum_up_the_token_log_probs(loaded: LoadedModel) -> None:
    for prediction in generate(loaded, TEXTS):
        logs = prediction.token_log_probs
        assert prediction.scores == pytest.approx({
            "probability": math.exp(sum(logs)), "mean_log_prob": sum(logs) / len(logs),
            "min_log_prob": min(logs)})
        assert all(value <= 0 for value in logs)


def test_an_answer_that_ends_by_itself_is_finished_and_others_are_not(stopping: LoadedModel) -> None:
    predictions = generate(stopping, TEXTS)
    end = stopping.tokenizer.eos_token
    assert predictions[0].finished
    assert 1 <= len(predictions[0].token_log_probs) < NEW
    assert end not in predictions[0].text
    assert {p.finished for p in predictions} == {True, False}
    assert all(len(p.token_log_probs) == NEW for p in predictions if not p.finished)
    short = len(predictions[0].token_log_probs) - 1
    assert short > 0
    cut = generate(stopping, TEXTS, new=short)[0]
    assert not cut.finished
    assert cut.token_log_probs == pytest.approx(predictions[0].token_log_probs[:-1], abs=1e-5)


def test_an_answer_of_nothing_but_end_of_text_is_empty_and_finished(loaded: LoadedModel) -> None:
    (row,) = tokenize(examples_of(TEXTS[1:2]), loaded.tokenizer, WINDOW, with_completion=False)
    (token,), _ = stepwise(loaded, row.prompt_ids.tolist(), 1, end=-1)
    tokenizer = train_tokenizer(LEARNT, 300, WINDOW)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(token)
    (prediction,) = generate(LoadedModel(loaded.model, tokenizer, WINDOW, "mute"), TEXTS[1:2])
    assert (prediction.text, prediction.answer, prediction.finished) == ("", "", True)
    assert len(prediction.token_log_probs) == 1


@pytest.mark.parametrize("new", [1, 2, 20])
def test_no_answer_is_longer_than_allowed(loaded: LoadedModel, new: int) -> None:
    predictions = generate(loaded, TEXTS, new=new)
    assert all(len(p.token_log_probs) <= new for p in predictions)
    assert max(len(p.token_log_probs) for p in predictions) == new


def test_prompt_and_answer_fill_the_window_and_no_more(loaded: LoadedModel) -> None:
    (prediction,) = generate(loaded, ["The film was good. " * 20], new=40)
    assert prediction.num_cut > 0
    assert len(prediction.token_log_probs) <= 40
    with pytest.raises(DataError, match="E1301"):
        generate(loaded, TEXTS, new=WINDOW - 2)


def test_a_task_of_text_is_answered_by_generation(loaded: LoadedModel) -> None:
    task = load_task("summarization")
    given = predict_answers(loaded, task, examples_of(TEXTS), max_length=WINDOW, max_new_tokens=NEW)
    assert [p.text for p in given] == [p.text for p in generate(loaded, TEXTS)]
    assert predict_answers(loaded, task, [], max_length=WINDOW, max_new_tokens=NEW) == []


def test_both_ways_of_generating_bar_the_same_repeats(loaded: LoadedModel) -> None:
    rows = tokenize(examples_of(TEXTS), loaded.tokenizer, WINDOW, with_completion=False)
    free = greedy(loaded, rows, 24)
    kept = greedy(loaded, rows, 24, no_repeat_ngram_size=2)
    assert [ids for ids, _ in free] != [ids for ids, _ in kept]
    for ids, _ in kept:
        pairs = list(pairwise(ids))
        assert len(set(pairs)) == len(pairs)
    model = copy.deepcopy(loaded.model)
    set_up(model, fullest_engine(model))
    shared = greedy_shared(model, rows, 24, int(loaded.tokenizer.eos_token_id), no_repeat_ngram_size=2)
    for (ids, logs), (other_ids, other_logs) in zip(kept, shared, strict=True):
        assert ids == other_ids
        assert logs == pytest.approx(other_logs, abs=1e-5)
    again = predict_answers(loaded, load_task("summarization"), examples_of(TEXTS), max_length=WINDOW,
                            max_new_tokens=24, no_repeat_ngram_size=2)
    assert [len(each.token_log_probs) for each in again] == [len(ids) for ids, _ in kept]
