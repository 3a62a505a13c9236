"""Decisions: accept above the threshold, review below, refuse what is no answer, nothing under a void gate."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from treetune.core.language import choose_language
from treetune.decide.decision import decide, void_decisions
from treetune.decide.gate import Gate, fit_gate, sealed
from treetune.decide.judged import Judged, split_judged
from treetune.decide.sequence import Promise
from treetune.decide.wording import limits, outcome

Make = Callable[..., Judged]


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    choose_language("en")
    yield
    choose_language("")


def gate_of(judged: Judged, promise: Promise = Promise(0.05, 0.95)) -> Gate:  # noqa: B008 - frozen
    fitted = fit_gate(*split_judged(judged), promise)
    return Gate.from_record(sealed({**fitted, "scope": {}, "wrong": "label differs"}))


def test_the_threshold_decides_and_every_review_says_why(make_judged: Make) -> None:
    gate, fresh = gate_of(make_judged(1000)), make_judged(400, seed=5)
    decisions = decide(gate, fresh.predictions)
    assert {each.verdict for each in decisions} == {"accept", "review"}
    for decision in decisions:
        assert decision.score is not None
        assert gate.threshold is not None
        assert (decision.verdict == "accept") == (decision.score >= gate.threshold)
        assert [reason.code for reason in decision.reasons][:1] == ([] if decision.verdict == "accept" else
                                                                      ["below_threshold"])
        assert decision.confidence is not None
        assert 0 < decision.confidence <= 1
        assert decision.valid
        assert "at most 5 % are wrong" in decision.guarantee
        assert "at most 5 times in 100" in decision.guarantee
    unsure = min(decisions, key=lambda each: each.confidence or 0)
    assert len(unsure.labels) > 1
    assert unsure.reasons[-1].code == "several_labels"


def test_what_is_no_answer_is_refused_and_what_did_not_end_is_reviewed(make_judged: Make) -> None:
    gate, sure = gate_of(make_judged(1000)), make_judged(1, seed=2, sharpness=100.0).predictions[0]
    assert decide(gate, [sure])[0].verdict == "accept"
    cut, broken = replace(sure, finished=False), replace(sure, scores={**sure.scores, "probability": float("nan")})
    [first, second] = decide(gate, [cut, broken])
    assert (first.verdict, first.reasons[0].code, first.confidence) == ("review", "unfinished", None)
    assert (second.verdict, second.reasons[0].code) == ("refuse", "not_finite")
    assert decide(gate, []) == []


def test_a_void_gate_accepts_nothing_and_says_what_changed(make_judged: Make) -> None:
    gate, sure = gate_of(make_judged(1000)), make_judged(1, seed=2, sharpness=100.0).predictions
    for decision in (*decide(gate, sure, ["the tokenizer"]), *void_decisions(sure, ["the tokenizer"])):
        assert decision.verdict == "review"
        assert decision.reasons[0].code == "void"
        assert "the tokenizer" in decision.reasons[0].text
        assert decision.guarantee.startswith("No guarantee")
        assert not decision.valid
        assert decision.confidence is None


def test_a_gate_that_accepts_nothing_explains_itself(make_judged: Make) -> None:
    gate = gate_of(make_judged(60))
    [decision] = decide(gate, make_judged(1, seed=2, sharpness=100.0).predictions)
    assert (decision.verdict, decision.reasons[0].code) == ("review", "nothing_accepted")
    assert decision.guarantee.startswith("No guarantee")
    said = " ".join(outcome(gate.record))
    assert "Nothing can be accepted: 36 calibration rows" in said
    assert "59 accepted calibration rows" in said
    assert "there are 60" in said


def test_promise_and_limits_are_there_in_chinese(make_judged: Make) -> None:
    gate = gate_of(make_judged(1000))
    choose_language("zh")
    [decision] = decide(gate, make_judged(1, seed=2).predictions)
    assert "最多有 5 % 是错的" in decision.guarantee
    assert "标签与正确的不同" in decision.guarantee
    assert len(limits(gate.record)) == 5
    assert "放行" in outcome(gate.record)[0]
