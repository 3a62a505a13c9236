"""Several systems at once."""

import json

import pytest

from treetune.core.errors import RunError, UsageError
from treetune.evaluate.evaluation import Evaluation, evaluate_systems
from treetune.evaluate.score import compare, evaluate

LABELS = ("negative", "positive")


@pytest.fixture
def evaluation(make_examples) -> Evaluation:
    examples = make_examples([["positive"], ["negative"], ["negative"], ["positive"]] * 5, candidates=LABELS)
    systems = {
        "tuned": ["positive", "negative", "positive", "positive"] * 5,
        "base": ["negative", "negative", "negative", "maybe"] * 5,
        "majority": ["positive"] * 20,
    }
    return evaluate_systems(systems, examples, ["accuracy", "macro_f1"], seed=3, reference_system="base",
                            cluster=[row // 4 for row in range(20)], num_resamples=200)


def test_scores_and_comparisons_are_those_of_score(make_examples) -> None:
    examples = make_examples([["a b"], ["c d"], ["e f"]])
    one, two = ["a b", "c", "f"], ["a", "c d", ""]
    systems = {"one": one, "two": two}
    found = evaluate_systems(systems, examples, ["f1", "chrf"], seed=0, reference_system="two")
    assert found.scores["one"] == evaluate(one, examples, ["f1", "chrf"], seed=0)
    assert found.comparisons == {
        "one": tuple(compare(one, two, examples, metric, seed=0) for metric in ("f1", "chrf"))
    }
    assert found.labels == ()
    assert found.confusion == {}
    assert found.counts == {"rows": 3, "units": 3, "language:en": 3}


def test_every_system_is_compared_with_the_reference(evaluation: Evaluation) -> None:
    assert list(evaluation.comparisons) == ["tuned", "majority"]
    accuracy = evaluation.comparisons["tuned"][0]
    assert (accuracy.metric, accuracy.interval.value, accuracy.count) == ("accuracy", 0.25, 20)
    assert evaluation.comparisons["majority"][0].interval.value == pytest.approx(0)
    assert evaluation.scores["tuned"][0].interval.value == 0.75


def test_confusion_and_counts(evaluation: Evaluation) -> None:
    assert evaluation.labels == LABELS  # from the examples' candidates
    assert evaluation.confusion["tuned"] == ((5, 5, 0), (0, 10, 0))
    assert evaluation.confusion["base"] == ((10, 0, 0), (5, 0, 5))
    assert evaluation.counts == {"rows": 20, "units": 5, "language:en": 20}


def test_there_and_back_through_json(evaluation: Evaluation) -> None:
    plain = evaluation.as_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert Evaluation.from_dict(plain) == evaluation


def test_no_reference_system_no_comparisons(make_examples) -> None:
    found = evaluate_systems({"one": ["a"]}, make_examples([["a"]]), ["exact_match"], seed=0)
    assert found.comparisons == {}
    assert Evaluation.from_dict(found.as_dict()) == found


def test_refusals(make_examples, evaluation: Evaluation) -> None:
    with pytest.raises(UsageError, match="E2403"):
        evaluate_systems({"tuned": ["a"]}, make_examples([["a"]]), ["f1"], seed=0, reference_system="tunde")
    whole = evaluation.as_dict()
    without = {name: value for name, value in whole.items() if name != "seed"}
    for value in (without, whole | {"scores": 3}, whole | {"counts": {"rows": "x"}}):
        with pytest.raises(RunError, match="E5401"):
            Evaluation.from_dict(value)
