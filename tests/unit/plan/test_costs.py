"""Energy, carbon, money, time, budgets, and what first steps and past runs teach."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treetune.core.errors import UsageError
from treetune.plan.architecture import read
from treetune.plan.budget import Budget, budget_of, refuse_over, seconds_of
from treetune.plan.devices import DEVICES, device_named, processor
from treetune.plan.duration import answer_seconds, duration_of
from treetune.plan.energy import GRIDS, Rates, cost_of, energy_kwh, grid_of
from treetune.plan.estimate import estimate, over_devices
from treetune.plan.fit import changes_that_fit
from treetune.plan.flops import training_flops
from treetune.plan.history import learn
from treetune.plan.memory import MemorySettings, memory_of
from treetune.plan.presets import PRESETS
from treetune.plan.probe import Seen, Step, measured_duration, seconds_a_token
from treetune.plan.quantity import Range, exactly
from treetune.plan.workload import Pass, Workload, by_hand

GPT2 = read({"model_type": "gpt2", "n_embd": 256, "n_layer": 4, "n_head": 4})
WORK = by_hand(1000, 128, 8, epochs=2, rows_per_step=16, rows_per_pass=16, max_tokens=10**9)
CPU = processor(2e10, 8e9, 1e10, 2)
RATES = Rates("de", grid_of("de")[1])


def workload_from(found: dict[str, Any]) -> Workload:
    """The opposite of `Workload.as_dict`."""
    passes = {name: Pass(**found[name]) if found[name] else None for name in ("largest", "proof")}
    return Workload(**{name: value for name, value in found.items() if name != "shared"} | passes)


def test_work_by_hand_adds_up_and_survives_json() -> None:
    assert (WORK.steps, WORK.row_tokens, WORK.labels) == (126, 126 * 16 * 128, 126 * 16 * 8)
    assert workload_from(WORK.as_dict()) == WORK
    packed = by_hand(1000, 128, 8, epochs=2, rows_per_step=16, rows_per_pass=16, max_tokens=512, packed=True)
    assert packed.largest.tokens <= 512
    assert packed.proof is not None


def test_adapters_and_checkpoints_change_the_operations_as_they_should() -> None:
    full, lora, again = (training_flops(GPT2, WORK, **kind).run for kind in (
        {}, {"lora_r": 8}, {"checkpointing": True}))
    assert again / full == pytest.approx(4 / 3, rel=1e-6)
    assert 2 / 3 < lora / full < 0.75  # no gradients of the frozen weights, a little for the adapters
    assert training_flops(GPT2, WORK, kept_share=0.0).run == pytest.approx(full / 3)


def test_energy_carbon_and_cost_by_hand() -> None:
    hours = exactly(3600.0)
    v100 = DEVICES["v100"]
    assert energy_kwh(hours, v100).expected == pytest.approx(0.3 * 0.6 * 1.2)
    assert energy_kwh(hours, v100, 8).low == pytest.approx(8 * 0.3 * 0.43)
    rates = Rates("de", grid_of("de")[1], price_per_hour=2.0, price_per_kwh=0.4)
    found = cost_of(hours, exactly(1.0), rates, CPU, 3)
    assert found is not None
    assert found["expected"] == pytest.approx(6.4)
    assert cost_of(hours, exactly(1.0), Rates("de", exactly(1.0)), CPU) is None
    assert cost_of(hours, exactly(1.0), Rates("de", exactly(1.0)), v100)["given"] is False  # type: ignore[index]


@pytest.mark.parametrize(("given", "name", "grams"), [("", "world", 475), ("FR", "fr", 56), ("120", "own", 120)])
def test_grids(given: str, name: str, grams: float) -> None:
    found, intensity = grid_of(given)
    assert (found, intensity.expected) == (name, grams)
    assert intensity.low <= grams <= intensity.high


@pytest.mark.parametrize("given", ["atlantis", "-3", "1e9", "nan"])
def test_grids_that_are_none(given: str) -> None:
    with pytest.raises(UsageError, match="E2053"):
        grid_of(given)


def test_the_grids_are_plausible_and_devices_are_found() -> None:
    assert all(20 <= grams <= 900 for grams in GRIDS.values())
    assert device_named("h100").memory == 80e9
    with pytest.raises(UsageError, match="E2052"):
        device_named("h1000")


def test_time_has_all_its_parts_and_more_devices_take_less() -> None:
    flops = training_flops(GPT2, WORK)
    found = duration_of(GPT2, WORK, flops, CPU)
    assert found.total.expected == pytest.approx(sum(found.parts.values()))
    assert found.total.low < found.total.expected < found.total.high
    one, eight = (duration_of(GPT2, WORK, flops, DEVICES["a100"], devices=count).total.expected for count in (1, 8))
    assert eight < one
    assert answer_seconds(GPT2, 100, 10, CPU, samples=5).expected > answer_seconds(GPT2, 100, 10, CPU).expected


def test_a_v100_takes_centuries_for_the_largest_gpt3() -> None:
    """The much quoted 355 years are those of 28 TFLOP/s."""
    assert PRESETS["gpt3-175b"].flops / 28e12 / (365.25 * 86400) == pytest.approx(355, abs=1)


def test_every_device_has_a_line_and_sharding_makes_it_fit() -> None:
    big = read(PRESETS["gpt3-6.7b"].config())
    work = by_hand(1000, 512, 8, epochs=1, rows_per_step=8, rows_per_pass=1, max_tokens=10**9)
    fits = {}
    for sharded in (False, True):
        lines = over_devices(big, work, MemorySettings(), RATES, sharded=sharded)
        assert {line["device"] for line in lines} == set(DEVICES)
        fits[sharded] = {(line["device"], line["count"]): line["fits"] for line in lines}
    assert not fits[True]["a100", 1]
    assert fits[True]["a100", 8]
    assert not fits[False]["a100", 512]  # each device holds all


def test_the_cheapest_changes_that_fit_come_first_and_do_fit() -> None:
    work = by_hand(1000, 512, 8, epochs=1, rows_per_step=64, rows_per_pass=64, max_tokens=10**9)
    before = memory_of(GPT2, work, MemorySettings())
    room = before.peak.expected * 0.6
    found = changes_that_fit(GPT2, work, MemorySettings(), room)
    assert found
    assert found[0].same_model
    assert found[0].slower == 1.0
    assert "per_device_train_batch_size" in found[0].settings
    assert all(change.memory.peak.expected <= room for change in found)
    kept = [change.same_model for change in found if "devices" not in change.settings]
    assert kept == sorted(kept, reverse=True)
    assert changes_that_fit(GPT2, work, MemorySettings(), 1e6, may_shard=False) == []


@pytest.mark.parametrize(("text", "seconds"), [("", 0), ("45s", 45), ("90m", 5400), ("1h30m", 5400), ("2 d", 172800),
                                               ("1.5h", 5400), ("10min", 600)])
def test_lengths_of_time(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["5", "soon", "m", "1h2x", "-3m", "0m"])
def test_lengths_of_time_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="E2055"):
        seconds_of(text)


def test_budgets_refuse_what_cannot_be_done_and_doubt_what_may_not() -> None:
    budget = budget_of("10m", 0.5, 0.0, 0.0)
    assert dict(budget.limits) == {"max_time": 600, "max_energy": 0.5}
    assert refuse_over(budget, {"max_time": Range(100, 200, 900), "max_energy": exactly(0.1)}, {}) == []
    assert refuse_over(budget, {"max_time": Range(100, 700, 900)}, {}) == ["max_time"]
    with pytest.raises(UsageError, match="E2056"):
        refuse_over(budget, {"max_time": Range(601, 700, 900)}, {})
    with pytest.raises(UsageError, match="E2058"):
        refuse_over(budget, {}, {"max_time": 600.0})
    with pytest.raises(UsageError, match="E2057"):
        refuse_over(budget_of("", 0.0, 3.0, 0.0), {"max_cost": None}, {})
    assert budget.used_up({"max_time": 599.9}) == ""
    assert budget.used_up({"max_time": 600.0}) == "max_time"
    assert Budget().used_up({"max_time": 1e9}) == ""


def planned_work(steps: int = 100) -> Workload:
    return Workload(1600, 1600, steps, steps, steps * 1000, steps * 1000, steps, 50.0, Pass(1000, 16, 64, 16),
                    evaluation_rows=10, evaluation_tokens=3000, evaluation_passes=3, evaluations=2, saves=2)


def test_the_probe_extends_what_it_saw() -> None:
    before = duration_of(GPT2, planned_work(), training_flops(GPT2, planned_work()), CPU)
    seen = Seen(30.0, [Step(5.0, 1000), *[Step(1.0, 1000)] * 19], [3.0], [0.5])
    found = measured_duration(before, seen, planned_work())
    assert found.parts["training"] == pytest.approx(80.0)  # the slow first step is no measure of the others
    assert found.total.expected == pytest.approx(30 + 80 + 3 + 0.5)
    assert found.known == pytest.approx(30 / 113.5)
    assert found.how == "probe"


@settings(deadline=None)
@given(st.lists(st.floats(0.1, 10), min_size=3, max_size=20), st.floats(0.1, 5))
def test_the_measured_rate_scales_with_the_clock(seconds: list[float], factor: float) -> None:
    rate, error = seconds_a_token([Step(each, 100) for each in seconds])
    again, same = seconds_a_token([Step(each * factor, 100) for each in seconds])
    assert again == pytest.approx(rate * factor)
    assert same == pytest.approx(error, abs=1e-9)
    assert math.isfinite(error)


def account(factor: float, kind: str = "gpt2", processor_name: str = "cpu", lora: int = 0, width: int = 256) -> dict[
        str, object]:
    return {"machine": {"processor": processor_name}, "model": {"kind": kind, "width": width, "lora_r": lora},
            "actual": {"seconds": 100 * factor, "peak_bytes": 2e9},
            "planned": {"seconds": {"expected": 100.0}, "peak_bytes": {"expected": 1e9}}}


def test_past_runs_correct_the_plan_the_most_alike_ones_first() -> None:
    runs = [account(2.0), account(3.0), account(4.0), account(9.0, kind="bert"), account(7.0, lora=8)]
    found = learn(runs, "gpt2", 256, False, "cpu")
    assert found is not None
    assert (found.runs, found.time, found.memory.expected) == (3, Range(2.0, 3.0, 4.0), 2.0)
    other = learn(runs, "gpt2", 256, True, "cpu")
    assert other is not None
    assert other.time.expected == 7.0
    assert learn(runs, "gpt2", 256, False, "another") is None
    assert learn([{"machine": {"processor": "cpu"}}], "gpt2", 256, False, "cpu") is None
    corrected = estimate(GPT2, WORK, MemorySettings(), CPU, RATES, lesson=found)
    plain = estimate(GPT2, WORK, MemorySettings(), CPU, RATES)
    assert corrected.duration.total.expected == pytest.approx(3 * plain.duration.total.expected)
    assert corrected.duration.how == "past runs"
