"""Spans: the best pair of first and last token over all windows, as text of the context."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from treetune.core.records import Example, PromptPart
from treetune.models.encoder import EncoderRow
from treetune.models.load import LoadedModel, load_model
from treetune.models.spans import encode, log_probs, reference_log_probs
from treetune.predict.spans import predict_spans, spans_in

START = 2  # id of the tokenizer's start token


class Tokens:
    cls_token_id = START


def window(first: int, last: int, length: int = 12) -> EncoderRow:
    """Start token, a question token, then one-character tokens of the context from ``first`` to ``last``."""
    offsets = np.full((length, 2), -1)
    for place, character in enumerate(range(first, last)):
        offsets[2 + place] = character, character + 1
    ids = np.full(length, 9)
    ids[0] = START
    return EncoderRow(0, 0, ids, None, np.array([0, 0]), 0, offsets)


def test_every_allowed_span_stands_once_with_its_better_score() -> None:
    random = np.random.default_rng(0)
    rows = [window(0, 6), window(3, 9)]
    logits = [random.normal(size=(2, 12)) for _ in rows]
    found = spans_in(rows, logits, Tokens(), 3)
    expected: dict[tuple[int, int], float] = {}
    for row, own in zip(rows, logits, strict=True):
        for i in range(12):
            for j in range(i, min(i + 3, 12)):
                if row.offsets[i, 0] >= 0 and row.offsets[j, 0] >= 0:
                    key = (int(row.offsets[i, 0]), int(row.offsets[j, 1]))
                    expected[key] = max(expected.get(key, -np.inf), own[0, i] + own[1, j])
    assert len(found.characters) == len(expected)
    for characters, pair in zip(found.characters.tolist(), found.scores, strict=True):
        assert pair.sum() == pytest.approx(expected[tuple(characters)])
    assert found.no_answer.sum() == pytest.approx(min(own[:, 0].sum() for own in logits))


def asked(context: str, answer: str = "", question: str = "What?", row: int = 0) -> Example:
    start = context.find(answer) if answer else -1
    return Example(row, f"q{row}", "test", (PromptPart(context, True),), "", (answer,), {}, context, "en",
                   question=question, spans=((start, start + len(answer)),) if answer else ())


EXAMPLES = [asked("The film was long. " * 6 + "Berlin is far.", "Berlin", row=7),
            asked("Paris is good.", "Paris", row=3), asked("Ein Film.", row=5)]


@pytest.fixture(scope="module")
def loaded(family_folder: Callable[[str], Path]) -> LoadedModel:
    found = load_model(str(family_folder("bert")), head="spans")
    found.model.double()
    return found


def answers(loaded: LoadedModel, rows_per_pass: int = 4, max_length: int = 40, **how: Any) -> Any:
    return predict_spans(loaded, EXAMPLES, max_length=max_length, max_new_tokens=how.get("max_new_tokens", 5),
                         rows_per_pass=rows_per_pass, layout=how.get("layout", "padded"))


def test_answers_are_text_of_their_context_at_the_offsets_given(loaded: LoadedModel) -> None:
    found = answers(loaded)
    assert [each.row for each in found] == [7, 3, 5]
    for prediction, example in zip(found, EXAMPLES, strict=True):
        start, end = int(prediction.scores["start"]), int(prediction.scores["end"])
        assert example.source[start:end] == prediction.text != ""
        assert prediction.answer == " ".join(prediction.text.split())
        assert 0 < prediction.scores["probability"] <= 1
        assert prediction.scores["probability:no_answer"] == 0
        assert len(loaded.tokenizer(prediction.text, add_special_tokens=False)["input_ids"]) <= 6


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_passes_and_layouts_change_nothing(loaded: LoadedModel, layout: str) -> None:
    for one, other in zip(answers(loaded, 1), answers(loaded, 9, layout=layout), strict=True):
        assert one.text == other.text
        assert one.scores == pytest.approx(other.scores)


def test_the_answer_of_one_window_is_the_best_pair_by_brute_force(loaded: LoadedModel) -> None:
    example = EXAMPLES[1]
    row = encode([example], loaded.tokenizer, 40)[0]
    with torch.no_grad():
        output = loaded.model(input_ids=torch.from_numpy(row.input_ids)[None],
                              token_type_ids=torch.from_numpy(row.segment_ids)[None])
    first, last = output.start_logits[0].tolist(), output.end_logits[0].tolist()
    inside = [place for place in range(row.num_tokens) if row.offsets[place, 0] >= 0]
    pairs = {(i, j): first[i] + last[j] for i in inside for j in inside if i <= j < i + 5}
    i, j = max(pairs, key=pairs.__getitem__)
    found = answers(loaded)[1]
    assert found.text == example.source[row.offsets[i, 0] : row.offsets[j, 1]]
    share = np.exp(pairs[i, j]) / sum(np.exp(value) for value in pairs.values())
    assert found.scores["probability"] == pytest.approx(share)


def test_no_answer_competes_where_training_showed_it(loaded: LoadedModel) -> None:
    loaded.model.config.no_answer = True
    bias = loaded.model.qa_outputs.bias
    try:
        assert all(each.scores["probability:no_answer"] > 0 for each in answers(loaded))
        hook = loaded.model.qa_outputs.register_forward_hook(lambda m, a, out: out.index_fill(
            1, torch.tensor([0]), 50.0))
        found = answers(loaded)
        hook.remove()
        assert [each.answer for each in found] == ["", "", ""]
        assert all(each.scores["start"] == -1 and each.scores["probability"] > 0.99 for each in found)
    finally:
        loaded.model.config.no_answer = False
        assert bias is loaded.model.qa_outputs.bias


def test_reference_probabilities_are_of_the_window_that_holds_the_answer(loaded: LoadedModel) -> None:
    found = reference_log_probs(loaded, EXAMPLES, 40, "padded")
    rows = [row for row in encode(EXAMPLES, loaded.tokenizer, 40) if row.place == 0 and row.target[0] > 0]
    assert rows
    from treetune.models.encoder import padded

    with torch.no_grad():
        own = [log_probs(loaded.model, padded([row], [0]))[0].gather(-1, torch.from_numpy(row.target)[:, None])[:, 0]
               for row in rows]
    best = max(own, key=lambda pair: float(pair.sum()))
    assert found[0] == pytest.approx(best.tolist())
    assert all(len(each) == 2 for each in found)
