"""Label probabilities are those of each candidate scored alone, whatever the layout."""


import numpy as np
import pytest
import torch

from treetune.core.records import Example, Prediction, Row
from treetune.models.load import LoadedModel
from treetune.predict.answers import predict_answers
from treetune.predict.labels import score_labels
from treetune.tasks import sentiment
from treetune.tasks.contract import TaskOptions, load_task

WINDOW = 128
TEXTS = ["The film was good.", "x", "这部电影很好看。", "A long film, and then it went on for an hour.",
         "The film was good.", "The film was", "很好"]


@pytest.fixture(params=[("positive", "negative", "neutral"), ("positive", "negative")], ids=["three", "two"])
def examples(request: pytest.FixtureRequest) -> list[Example]:
    options = TaskOptions(request.param)
    rows = [Row({"text": text}, "f.csv", n + 2, n, "test") for n, text in enumerate(TEXTS)]
    return [sentiment.example_from_row(row, options, with_answer=False) for row in rows]


def by_hand(loaded: LoadedModel, example: Example, word: str) -> list[float]:
    """Log-probabilities of one candidate and end-of-text as a row of its own."""
    def encode(text: str) -> list[int]:
        return list(loaded.tokenizer(text, add_special_tokens=False)["input_ids"])

    prompt = [loaded.tokenizer.bos_token_id]
    prompt += [token for part in example.prompt for token in encode(part.text)]
    answer = [*encode(word), loaded.tokenizer.eos_token_id]
    with torch.no_grad():
        logs = loaded.model(input_ids=torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    return [float(logs[len(prompt) - 1 + place, token]) for place, token in enumerate(answer)]


def score(
    loaded: LoadedModel, examples: list[Example], layout: str, rows_per_pass: int = 32
) -> list[Prediction]:
    return score_labels(loaded, examples, max_length=WINDOW, layout=layout, rows_per_pass=rows_per_pass)


@pytest.mark.parametrize("layout", ["tree", "packed", "padded"])
@pytest.mark.parametrize("rows_per_pass", [1, 3, 32])
def test_probabilities_are_those_of_separate_rows(
    loaded: LoadedModel, examples: list[Example], layout: str, rows_per_pass: int
) -> None:
    for example, prediction in zip(examples, score(loaded, examples, layout, rows_per_pass), strict=True):
        logs = {label: by_hand(loaded, example, word) for label, word in example.candidates.items()}
        total = np.array([sum(values) for values in logs.values()])
        wanted = dict(zip(logs, np.exp(total - np.logaddexp.reduce(total)), strict=True))
        got = {label: prediction.scores[f"probability:{label}"] for label in example.candidates}
        assert got == pytest.approx(wanted, abs=1e-9)
        assert sum(got.values()) == pytest.approx(1, abs=1e-12)
        best = max(wanted, key=wanted.__getitem__)
        assert (prediction.answer, prediction.text) == (best, example.candidates[best])
        assert prediction.token_log_probs == pytest.approx(logs[best], abs=1e-8)
        first, second = sorted(got.values(), reverse=True)[:2]
        assert prediction.scores["probability"] == first
        assert prediction.scores["margin"] == pytest.approx(first - second, abs=1e-12)


def test_rows_keep_their_order_and_names(loaded: LoadedModel, examples: list[Example]) -> None:
    there = score(loaded, examples, "tree", 2)
    assert [(p.row, p.row_id, p.split) for p in there] == [(e.row, e.row_id, e.split) for e in examples]
    back = score(loaded, examples[::-1], "tree", 3)[::-1]
    for one, other in zip(there, back, strict=True):
        assert one.row_id == other.row_id
        assert one.scores == pytest.approx(other.scores, abs=1e-9)
    assert all(p.finished and p.num_cut == 0 and p.seconds > 0 for p in there)
    assert there[0].scores == pytest.approx(there[4].scores, abs=1e-9)


def test_labels_are_not_all_alike(loaded: LoadedModel, examples: list[Example]) -> None:
    assert len({round(p.scores["probability"], 6) for p in score(loaded, examples, "tree")}) == len(TEXTS) - 1


def test_too_long_texts_are_cut_and_counted(loaded: LoadedModel, examples: list[Example]) -> None:
    def run(max_length: int, layout: str) -> list[Prediction]:
        return score_labels(loaded, examples, max_length=max_length, layout=layout, rows_per_pass=4)

    tree, padded = run(44, "tree"), run(44, "padded")
    cut = [p.num_cut for p in tree]
    assert cut == [p.num_cut for p in padded]
    assert cut[3] > 0
    assert cut[1] == 0
    assert [p.num_cut - q.num_cut for p, q in zip(run(43, "tree"), tree, strict=True)][3] == 1
    for one, other in zip(tree, padded, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-9)


def test_a_task_with_labels_is_answered_by_scoring(loaded: LoadedModel, examples: list[Example]) -> None:
    task = load_task("sentiment")
    given = predict_answers(loaded, task, examples, max_length=WINDOW, max_new_tokens=8)
    assert [p.answer for p in given] == [p.answer for p in score(loaded, examples, "tree")]
    assert predict_answers(loaded, task, [], max_length=WINDOW, max_new_tokens=8) == []
