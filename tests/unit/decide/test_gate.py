"""The gate: set on rows kept apart, by source, valid on rows to come, and sealed."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from treetune.core.errors import DataError
from treetune.core.records import Reason
from treetune.decide import scores
from treetune.decide.decision import decide
from treetune.decide.gate import Gate, fit_gate, refuse_shared, sealed, useless_checks
from treetune.decide.judged import Judged, one_per_group, split_judged
from treetune.decide.sequence import Promise

Make = Callable[..., Judged]
PROMISE = Promise(0.05, 0.95)
SCOPE = {"scope": {}, "wrong": "label differs"}


def test_a_source_is_on_one_side_only_and_the_split_is_always_the_same(make_judged: Make) -> None:
    judged = make_judged(500, group_size=5)
    tune, calibration = split_judged(judged)
    assert not set(tune.groups) & set(calibration.groups)
    assert len(tune) == 200
    assert len(tune) + len(calibration) == 500
    turned = judged.take(range(499, -1, -1))
    assert set(split_judged(turned)[0].groups) == set(tune.groups)
    with pytest.raises(DataError, match="E1504"):
        split_judged(make_judged(5, group_size=5))


def test_rows_that_share_a_source_count_once(make_judged: Make) -> None:
    judged = make_judged(500, group_size=5)
    drawn = one_per_group(judged)
    assert len(drawn) == 100
    assert len(set(drawn.groups)) == 100
    assert len({int(each.row_id[1:]) % 5 for each in drawn.predictions}) == 5  # not always the first
    record = fit_gate(*split_judged(judged), PROMISE)
    assert record["rows"] == {"tune": 200, "calibration": 300, "tested": 60, "every_row": False}
    assert fit_gate(*split_judged(judged), PROMISE, every_row=True)["rows"]["tested"] == 300


def test_a_row_may_not_tune_and_calibrate(make_judged: Make) -> None:
    judged = make_judged(100)
    with pytest.raises(DataError, match="E1502") as caught:
        fit_gate(judged, judged.take(range(90, 100)), PROMISE)
    assert "10 sources" in str(caught.value)
    refuse_shared(judged, make_judged(100, seed=1))


def test_gates_hold_on_rows_to_come(make_judged: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole gates, score choice and all: 25 settings, each measured on 8,000 other rows."""
    monkeypatch.setattr(scores, "NUM_RESAMPLES", 20)
    fresh = make_judged(8000, seed=99, sharpness=4.0)
    broken, shares, promise = 0, [], Promise(0.1, 0.9)
    for seed in range(25):
        record = sealed({**fit_gate(*split_judged(make_judged(350, seed, 4.0)), promise), **SCOPE})
        gate = Gate.from_record(record)
        accepted = gate.score.values(fresh.predictions) >= (np.inf if gate.threshold is None else gate.threshold)
        shares.append(accepted.mean())
        broken += bool(accepted.any() and fresh.wrong[accepted].mean() > 0.1)
    assert broken <= 25 * 0.1 + 3 * np.sqrt(25 * 0.1 * 0.9)
    assert np.mean(shares) > 0.3


def test_permuted_verdicts_accept_nothing(make_judged: Make) -> None:
    judged = make_judged(2000, sharpness=2.0)
    wrong = np.random.default_rng(0).permutation(judged.wrong)
    record = fit_gate(*split_judged(replace(judged, wrong=wrong)), PROMISE)
    assert record["threshold"] is None
    assert record["accepted"]["rows"] == 0
    assert record["needed"]["total"] is None


def test_few_rows_are_told_how_many_it_takes(make_judged: Make) -> None:
    record = fit_gate(*split_judged(make_judged(60)), PROMISE)
    assert record["threshold"] is None
    assert record["needed"]["accepted_if_flawless"] == 59
    assert record["needed"]["total"] > 98
    assert record["needed"]["have"] == 60


def test_answers_with_a_fault_are_never_accepted_and_are_counted(make_judged: Make) -> None:
    judged = make_judged(800)
    half = tuple(replace(each, finished=place % 2 == 0) for place, each in enumerate(judged.predictions))
    record = fit_gate(*split_judged(replace(judged, predictions=half)), PROMISE)
    assert record["measured"]["faults"] > 200
    assert record["test"]["accepted"][-1] <= record["rows"]["tested"] - record["measured"]["faults"]
    none = tuple(replace(each, finished=False) for each in judged.predictions)
    record = fit_gate(*split_judged(replace(judged, predictions=none)), PROMISE)
    assert record["threshold"] is None
    json.dumps(record, allow_nan=False)


def test_prediction_sets_are_for_labels_only(make_judged: Make) -> None:
    judged = make_judged(900)
    sets = fit_gate(*split_judged(judged), PROMISE)["sets"]
    assert set(sets["limits"]) == {"negative", "neutral", "positive"}
    assert sum(sets["rows"].values()) == 540
    assert all(0 < limit < 0.5 for limit in sets["limits"].values())
    bare = replace(judged, truths=("",) * 900)
    assert fit_gate(*split_judged(bare), PROMISE)["sets"] is None


def test_a_sealed_gate_is_read_back_and_a_touched_one_is_not(make_judged: Make) -> None:
    record = sealed({**fit_gate(*split_judged(make_judged(800)), PROMISE), **SCOPE})
    again = json.loads(json.dumps(record, allow_nan=False))
    gate = Gate.from_record(again)
    assert gate.threshold == record["threshold"]
    assert gate.promise == PROMISE
    for touched in ({"threshold": 0.0}, {"max_error": 0.5}, {"format": 1}, {"scope": {"weights": "other"}}):
        with pytest.raises(ValueError, match="not the gate"):
            Gate.from_record({**again, **touched})


def found(*codes: str) -> tuple[Reason, ...]:
    return tuple(Reason(code, code) for code in codes)


def test_what_a_check_stops_is_stopped_in_calibration_and_later(make_judged: Make) -> None:
    """Answers with a finding are always wrong: with the check the gate accepts, without it it may not."""
    random = np.random.default_rng(0)
    judged = make_judged(1200)
    hit = random.uniform(size=len(judged)) < 0.2
    findings = tuple(found("numbers") if own else () for own in hit)
    judged = replace(judged, wrong=judged.wrong | hit, findings=findings)
    with_check = fit_gate(*split_judged(judged), Promise(0.05, 0.95), checks=["numbers"])
    without = fit_gate(*split_judged(judged), Promise(0.05, 0.95))
    assert with_check["checks"]["stop"] == ["numbers"]
    assert with_check["accepted"]["rows"] > without["accepted"]["rows"]
    gate = Gate.from_record(sealed({**with_check, "scope": {}, "wrong": "label differs"}))
    sure = make_judged(2, seed=3, sharpness=100.0).predictions
    clean, stopped = decide(gate, sure, findings=((), found("numbers", "personal")))
    assert clean.verdict == "accept"
    assert (stopped.verdict, [each.code for each in stopped.reasons][:1], [each.code for each in stopped.flags]) == (
        "review", ["numbers"], ["personal"])
    with pytest.raises(ValueError, match="needs what the checks found"):
        decide(gate, sure)


def test_a_check_that_says_nothing_of_errors_becomes_a_flag(make_judged: Make) -> None:
    judged = make_judged(600)
    fires = np.arange(600) % 3 == 0
    useless = replace(judged, wrong=judged.wrong & ~fires,
                      findings=tuple(found("names") if own else () for own in fires))
    assert useless_checks(useless) == ("names",)
    assert useless_checks(useless, ["names"]) == ()
    few = replace(useless, findings=tuple(found("names") if place < 9 else () for place in range(600)))
    assert useless_checks(few) == ()
