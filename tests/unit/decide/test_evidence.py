"""Evidence is a candidate like the others, paid for only where it wins, and a model's bad number is no verdict."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from treetune.core.records import Prediction
from treetune.decide.decision import decide
from treetune.decide.evidence import ENTAILMENT, QUALITY, limits_of, notes_of
from treetune.decide.gate import Gate, fit_gate, sealed
from treetune.decide.judged import Judged, split_judged
from treetune.decide.scores import COMBINED, PLAIN, WIDE, choose_score
from treetune.decide.sequence import Promise


def with_score(judged: Judged, name: str, values: np.ndarray) -> Judged:
    return replace(judged, predictions=tuple(
        replace(each, scores={**each.scores, name: float(value)})
        for each, value in zip(judged.predictions, values, strict=True)))


def gate_of(judged: Judged) -> Gate:
    tune, calibration = split_judged(judged)
    fitted = fit_gate(tune, calibration, Promise(0.2, 0.9))
    limits = limits_of(tune.predictions)
    return Gate.from_record(sealed({
        "wrong": "label differs", **fitted, "scope": {}, "drift": {}, "files": "",
        "evidence": {name: {"limit": limit, "used": False} for name, limit in limits.items()}}))


@pytest.fixture(scope="module")
def judged(make_judged: Callable[..., Judged]) -> Judged:
    return make_judged(900, seed=5)


def test_evidence_that_tells_wrong_from_right_is_chosen_and_noise_is_not(judged: Judged) -> None:
    random = np.random.default_rng(0)
    telling = with_score(judged, ENTAILMENT, np.where(judged.wrong, 0.2, 0.8) + 0.1 * random.normal(size=900))
    choice, found = choose_score(telling.predictions, telling.wrong, telling.groups)
    assert choice.evidence == (ENTAILMENT,)
    assert {COMBINED, WIDE, ENTAILMENT} <= {each.name for each in found}
    noise = with_score(judged, ENTAILMENT, random.uniform(size=900))
    assert choose_score(noise.predictions, noise.wrong, noise.groups)[0].evidence == ()


def test_free_scores_are_combined_without_the_evidence_too(judged: Judged) -> None:
    both = with_score(judged, QUALITY, np.zeros(900))
    plain = {each.name: each for each in choose_score(judged.predictions, judged.wrong, judged.groups)[1]}
    wide = {each.name: each for each in choose_score(both.predictions, both.wrong, both.groups)[1]}
    assert wide[COMBINED] == plain[COMBINED]
    assert WIDE not in plain


@pytest.mark.parametrize(("name", "bad"), [(ENTAILMENT, 0.0), (QUALITY, -1e6)])
def test_a_bad_number_alone_does_not_turn_accept_into_review(judged: Judged, name: str, bad: float) -> None:
    noise = np.random.default_rng(1).uniform(0.6, 1, size=900)
    gate = gate_of(with_score(judged, name, noise))
    assert gate.threshold is not None
    assert gate.score.evidence == ()
    surest = max(judged.predictions, key=lambda each: each.scores[PLAIN])
    answer = replace(surest, answer="It rained. It shone.", scores={
        **surest.scores, name: bad, f"{name}:start": 0.0, f"{name}:end": 10.0})
    fine = replace(answer, scores={**answer.scores, name: 0.99})
    notes = [notes_of(each, gate.record["evidence"]) for each in (answer, fine)]
    decisions = decide(gate, [answer, fine], findings=notes)
    assert [each.verdict for each in decisions] == ["accept", "accept"]
    assert decisions[1].flags == ()
    (flag,) = decisions[0].flags
    assert (flag.code, flag.value, flag.evidence, flag.span) == (name, bad, "It rained.", (0, 10))
    assert flag.limit == gate.record["evidence"][name]["limit"]
    assert decisions[0].score == decisions[1].score


def test_inside_the_gate_a_bad_number_does_count(judged: Judged) -> None:
    random = np.random.default_rng(0)
    gate = gate_of(with_score(judged, QUALITY, np.where(judged.wrong, 0.0, 5.0) + 0.1 * random.normal(size=900)))
    assert gate.score.evidence == (QUALITY,)
    surest: Prediction = max(judged.predictions, key=lambda each: each.scores[PLAIN])
    low, high = (replace(surest, scores={**surest.scores, QUALITY: value}) for value in (-5.0, 5.0))
    assert [each.verdict for each in decide(gate, [low, high], findings=[(), ()])] == ["review", "accept"]


def test_limits_come_from_the_tune_rows(judged: Judged) -> None:
    many = with_score(with_score(judged, QUALITY, np.arange(900.0)), ENTAILMENT, np.ones(900))
    assert limits_of(many.predictions) == pytest.approx({ENTAILMENT: 0.5, QUALITY: 44.95})
    assert limits_of(judged.predictions) == {}
