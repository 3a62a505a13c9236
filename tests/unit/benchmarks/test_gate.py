"""The gate's benchmark: its other methods are what they are said to be, and its controls can fail."""

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from treetune.core.records import Prediction
from treetune.decide.judged import Judged
from treetune.decide.sequence import Promise
from treetune.metrics.risk import risk_p_values


@pytest.fixture(scope="module")
def gate(benchmark_module: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_module("gate")


def test_hoeffding_bentkus_is_never_below_the_exact_p_value(gate: ModuleType) -> None:
    counts = np.arange(1, 300)
    for share in (0.0, 0.01, 0.04, 0.2, 1.0):
        wrong = np.floor(share * counts)
        assert np.all(gate.hoeffding_bentkus(wrong, counts, 0.05) >= risk_p_values(wrong, counts, 0.05) - 1e-12)
    assert gate.hoeffding_bentkus(np.array([0]), np.array([0]), 0.05).tolist() == [1.0]
    assert gate.hoeffding_bentkus(np.array([0]), np.array([59]), 0.05)[0] == pytest.approx(0.95**59)


def test_bonferroni_pays_for_its_thresholds(gate: ModuleType) -> None:
    scores, promise = np.linspace(0, 1, 100), Promise(0.05, 0.95)
    wrong = np.zeros(100, dtype=bool)
    assert gate.bonferroni(scores, scores, wrong, promise) is None  # 117 flawless rows are needed, not 59
    assert gate.methods((scores, wrong), (scores, wrong), promise)["treetune"] is not None


def test_a_simulation_names_violations_acceptance_and_the_oracle(gate: ModuleType) -> None:
    rows = gate.simulate(3, num_rows=200)
    assert len(rows) == 4 * (4 * 4 + 1)
    good = [row for row in rows if row["quality"] == "sharp" and row["max_error"] == 0.1]
    assert all(0 <= row["accepted"] <= row["oracle"] == 1.0 and row["violations"] == 0 for row in good)


def test_resplits_show_the_gate_holding_and_the_best_look_failing(gate: ModuleType) -> None:
    random = np.random.default_rng(0)
    chance = random.uniform(0.4, 1, size=1500)
    predictions = tuple(
        Prediction(place, str(place), "calibration", "a", "a", {"probability": float(p)}, (), True, 0, 0.0)
        for place, p in enumerate(chance)
    )
    judged = Judged(predictions, random.uniform(size=1500) > chance, tuple(map(str, range(1500))), ("",) * 1500)
    found = {(row["what"], row["max_error"]): row for row in gate.resplit(judged, 12)}
    assert found["plain score", 0.1]["accepted"] > 0
    assert found["permuted verdicts", 0.1]["accepted"] < 0.02
    assert found["best look, no test", 0.1]["violations"] > found["plain score", 0.1]["violations"]
