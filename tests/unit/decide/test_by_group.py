"""The bound in every group: small groups accept nothing, a bad group does not hide in a good whole."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from treetune.core.language import choose_language
from treetune.decide.by_group import fit_groups
from treetune.decide.decision import decide
from treetune.decide.gate import Gate, fit_gate, sealed
from treetune.decide.judged import Judged, split_judged
from treetune.decide.sequence import Promise

Make = Callable[..., Judged]


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice of the score is not what is tested here."""
    monkeypatch.setattr("treetune.decide.scores.NUM_RESAMPLES", 10)
    choose_language("en")


def grouped(judged: Judged, bad_share: float = 0.0) -> Judged:
    """Two large groups and a tiny one; of ``b`` a share is wrong however sure the model is."""
    random = np.random.default_rng(0)
    parts = tuple("tiny" if place % 100 == 0 else "ab"[place % 2] for place in range(len(judged)))
    spoilt = np.array([part == "b" for part in parts]) & (random.uniform(size=len(parts)) < bad_share)
    return replace(judged, parts=parts, wrong=judged.wrong | spoilt)


def gate_of(judged: Judged) -> Gate:
    fitted = fit_gate(*split_judged(judged), Promise(0.05, 0.95), by="region")
    return Gate.from_record(sealed({**fitted, "scope": {}, "wrong": "label differs"}))


def test_good_groups_pass_and_a_tiny_one_is_not_tested(make_judged: Make) -> None:
    gate = gate_of(grouped(make_judged(1600)))
    assert gate.groups is not None
    assert gate.groups["a"]["threshold"] is not None
    assert gate.groups["b"]["threshold"] is not None
    assert (gate.groups["tiny"]["threshold"], gate.groups["tiny"]["tested"]) == (None, False)
    assert gate.record["by"]["confidence_each"] == 0.975  # two groups are tested
    assert gate.threshold == min(gate.groups["a"]["threshold"], gate.groups["b"]["threshold"])


def test_a_bad_group_accepts_nothing_though_the_whole_would(make_judged: Make) -> None:
    judged = grouped(make_judged(1600), bad_share=0.2)
    gate, fresh = gate_of(judged), make_judged(3, seed=9, sharpness=100.0).predictions
    assert gate.groups is not None
    assert gate.groups["a"]["threshold"] is not None
    assert gate.groups["b"]["threshold"] is None
    first, second, third = decide(gate, fresh, parts=("a", "b", "never seen"))
    assert first.verdict == "accept"
    assert [second.reasons[0].code, third.reasons[0].code] == ["group_not_proved"] * 2
    assert "within each group of region" in first.guarantee


def test_all_groups_keep_the_bound_together() -> None:
    """Scores of known risk, (1 - score)³ / 2, in a large and a small group: how often is the true error of either
    above the bound?
    """
    broken, passed, promise = 0, 0, Promise(0.05, 0.9)
    for seed in range(80):
        random = np.random.default_rng(seed)
        scores = random.uniform(size=900)
        rows = SimpleNamespace(parts=tuple("ab"[place % 3 == 0] for place in range(900)),
                               wrong=random.uniform(size=900) < (1 - scores) ** 3 / 2)
        sides = [(scores[part], SimpleNamespace(parts=rows.parts[part], wrong=rows.wrong[part]))
                 for part in (slice(0, 360), slice(360, 900))]
        groups = fit_groups("region", *sides, promise)["groups"]  # type: ignore[arg-type]
        thresholds = [each["threshold"] for each in groups.values() if each["threshold"] is not None]
        passed += bool(thresholds)
        broken += any((1 - threshold) ** 3 / 8 > promise.max_error for threshold in thresholds)
    assert passed > 30
    assert broken <= 80 * 0.1 + 3 * np.sqrt(80 * 0.1 * 0.9)
