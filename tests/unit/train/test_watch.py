"""Losses that cannot be right, steps that stall, disks that are too small, memory that runs out."""

import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from treetune.core.errors import RunError, TrainingError
from treetune.core.records import TokenizedExample
from treetune.core.settings import LoopSettings
from treetune.models.batches import batches_of
from treetune.models.decoder import LossSum, loss_sum
from treetune.models.gpt3 import GPT3LMHeadModel
from treetune.train import loop, memory, watch
from treetune.train.checkpoint import TrainState, save_checkpoint
from treetune.train.memory import is_out_of_memory, memory_ceiling, memory_facts, with_passes
from treetune.train.optimizers import build_optimizers
from treetune.train.watch import StallWatch, bytes_of_checkpoint, note_loss, reason_against, refuse_small_disk

Make = Callable[..., GPT3LMHeadModel]
Fit = Callable[..., Any]
Event = dict[str, Any]


def spoil(monkeypatch: pytest.MonkeyPatch, factor: float, steps: set[int]) -> list[int]:
    """Multiply the loss of some steps (counted as they are taken) by ``factor``; gives the steps taken."""
    taken: list[int] = []
    plain = loop.add_passes

    def passes(model: Any, examples: Any, make: Any, settings: Any, step: int, loss_of: Any) -> list[float]:
        taken.append(step + 1)
        total, *rest = plain(model, examples, make, settings, step, loss_of)
        return [total * factor if step + 1 in steps else total, *rest]

    monkeypatch.setattr(loop, "add_passes", passes)
    return taken


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_stop_names_step_rows_and_reason(
    make_model: Make, run_fit: Fit, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    spoil(monkeypatch, factor, {5})
    with pytest.raises(TrainingError) as caught:
        run_fit(make_model(), save_steps=2)
    assert caught.value.code == "E4001"
    assert caught.value.values == {"step": 5}
    assert caught.value.found == f"loss {factor}"
    assert caught.value.where.startswith("rows ")


def test_skip_leaves_one_step_out_and_changes_no_weight_in_it(
    make_model: Make, run_fit: Fit, digest: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, math.nan, {5})
    model = make_model()
    events: list[Event] = []
    digests: dict[int, str] = {}

    def note(event: Event) -> None:
        events.append(event)
        if event["event"] in ("step", "bad_loss"):
            digests[event["step"]] = digest(model)

    state = run_fit(model, on_event=note, on_bad_loss="skip")
    assert (state.step, state.skipped_steps, state.bad_in_row) == (12, 1, 0)
    [bad] = [event for event in events if event["event"] == "bad_loss"]
    assert (bad["step"], bad["done"], bad["left_out_steps"]) == (5, "skip", 1)
    assert bad["rows"].startswith("rows ")
    assert digests[4] == digests[5] != digests[6]


def test_ten_bad_steps_in_a_row_stop_a_run_that_skips(
    make_model: Make, run_fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, math.nan, set(range(2, 100)))
    with pytest.raises(TrainingError) as caught:
        run_fit(make_model(), on_bad_loss="skip")
    assert caught.value.values == {"step": 11}


def test_rollback_goes_on_from_the_checkpoint_without_the_steps_since(
    make_model: Make, run_fit: Fit, digest: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = spoil(monkeypatch, math.nan, {8})
    model = make_model()
    events: list[Event] = []
    digests: dict[str, str] = {}

    def note(event: Event) -> None:
        events.append(event)
        if event["event"] in ("checkpoint", "bad_loss"):
            digests[f"{event['event']} {event['step']}"] = digest(model)

    state = run_fit(model, on_event=note, on_bad_loss="rollback", save_steps=5, eval_steps=50)
    assert taken == list(range(1, 13))
    assert (state.step, state.skipped_steps) == (12, 3)
    assert digests["bad_loss 8"] == digests["checkpoint 5"]
    assert [event["left_out_steps"] for event in events if event["event"] == "bad_loss"] == [3]


def test_rollback_before_the_first_checkpoint_goes_back_to_the_start(
    make_model: Make, run_fit: Fit, digest: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, math.nan, {2})
    model = make_model()
    start = digest(model)
    seen: list[str] = []
    run_fit(model, on_event=lambda event: seen.append(digest(model)) if event["event"] == "bad_loss" else None,
            on_bad_loss="rollback")
    assert seen == [start]


def test_a_run_that_skipped_and_was_cut_off_ends_byte_equal(
    make_model: Make, run_fit: Fit, digest: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"save_steps": 3, "on_bad_loss": "rollback"}
    spoil(monkeypatch, math.nan, {5, 9})
    whole, resumed = make_model(), make_model()
    state = run_fit(whole, "whole", **options)

    def stop(event: Event) -> None:
        if event["event"] == "step" and event["step"] == 8:
            raise KeyError

    with pytest.raises(KeyError):
        run_fit(make_model(), "cut", stop, **options)
    again = run_fit(resumed, "cut", **options)
    assert digest(resumed) == digest(whole)
    assert again.skipped_steps == state.skipped_steps == 2 + 3


def test_a_spike_counts_once_the_usual_loss_is_known_and_only_where_asked() -> None:
    state = TrainState()
    assert reason_against(100.0, 1.0, state, 3.0) == ""
    for _ in range(watch.USUAL_AFTER):
        note_loss(state, 2.0)
    assert state.usual_loss == pytest.approx(2.0)
    assert reason_against(5.9, 1.0, state, 3.0) == ""
    assert "usually 2" in reason_against(6.1, 1.0, state, 3.0)
    assert reason_against(6.1, 1.0, state, 0.0) == ""
    assert reason_against(2.0, math.inf, state, 0.0) == "gradient norm inf"


def test_a_gradient_that_is_no_number_changes_no_weight(make_model: Make, rows: list[TokenizedExample]) -> None:
    def poisoned(model: Any, batch: Any) -> LossSum:
        part = loss_sum(model, batch)
        return LossSum(part.total + 0 * torch.sqrt(0 * part.total), part.count)  # finite; its slope is not

    model = make_model()
    before = [weight.detach().clone() for weight in model.parameters()]
    settings = LoopSettings(output_dir="x")
    make = partial(batches_of, layout="padded", rows_per_pass=4, max_tokens=0)
    with pytest.raises(watch.BadLoss, match="gradient norm"):
        loop.train_step(model, build_optimizers(model, "sgd", 0.5, None), rows, make, settings, 0, poisoned)
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_a_step_that_does_not_end_is_told_once() -> None:
    told: list[Event] = []
    stall = StallWatch(told.append)
    assert stall.limit() == math.inf
    stall.times.append(1.0)
    assert stall.limit() == watch.STALL_AT_LEAST
    stall.times.append(9.0)
    assert stall.limit() == watch.STALL_FACTOR * 5
    stall.begin(7)
    stall.look()
    assert told == []
    stall.began -= 101
    stall.look()
    stall.look()
    assert [(event["step"], event["usual_seconds"]) for event in told] == [(7, 5.0)]
    stall.begin(8)
    stall.look()
    assert len(told) == 1


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.parametrize("optim", ["adamw", "sgd"])
def test_the_forecast_of_the_disk_is_what_a_checkpoint_takes(tmp_path: Path, make_model: Make, optim: str) -> None:
    model = make_model()
    optimizers = build_optimizers(model, optim, 1e-2, None)
    model(torch.tensor([[1, 2, 3]])).loss.backward()
    for optimizer in optimizers:
        optimizer.step()
    path = save_checkpoint(tmp_path, model, optimizers, TrainState(step=1), {}, 2)
    taken = sum(file.stat().st_size for file in path.iterdir())
    assert taken <= bytes_of_checkpoint(model, optim) <= taken + watch.ROOM_FOR_TEXT


def test_a_disk_too_small_is_refused_before_the_first_step(
    make_model: Make, run_fit: Fit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    events: list[Event] = []
    needed = refuse_small_disk(tmp_path / "none", make_model(), "adamw", 2)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, needed - 1))
    with pytest.raises(RunError) as caught:
        run_fit(make_model(), on_event=events.append)
    assert caught.value.code == "E5013"
    assert "GB free" in caught.value.found
    assert events == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, needed))
    run_fit(make_model(), max_steps=2)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, needed - 100_000))
    run_fit(make_model(), max_steps=2)  # what the run already has on disk counts for it


def out_of_memory_at(monkeypatch: pytest.MonkeyPatch, steps: list[int]) -> None:
    """The second pass of these steps fails, each time it is tried while its number is in the list."""
    plain, passes = loop.loss_sum, {"step": -1, "pass": 0}
    begin = loop.seed_of

    def seeds(seed: int, *stream: Any) -> int:
        if stream[0] == "dropout":
            passes.update(step=stream[1] + 1, **{"pass": 0})
        return begin(seed, *stream)

    def fails(model: Any, batch: Any) -> LossSum:
        passes["pass"] += 1
        if passes["pass"] == 2 and passes["step"] in steps:
            steps.remove(passes["step"])
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you "
                               "tried to allocate 4096 bytes. Error code 12 (Cannot allocate memory)")
        return plain(model, batch)

    monkeypatch.setattr(loop, "seed_of", seeds)
    monkeypatch.setattr(loop.fit, "__defaults__", (None, fails, None))


def test_when_memory_runs_out_passes_halve_once_and_the_numbers_stay(
    make_model: Make, run_fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: dict[str, list[float]] = {"whole": [], "halved": []}

    def listen(name: str) -> Callable[[Event], None]:
        return lambda event: losses[name].append(event["loss"]) if event["event"] == "step" else None

    options = {"gradient_accumulation_steps": 2, "max_steps": 8}
    run_fit(make_model(), "whole", listen("whole"), **options)
    out_of_memory_at(monkeypatch, [3])
    events: list[Event] = []

    def both(event: Event) -> None:
        events.append(event)
        listen("halved")(event)

    state = run_fit(make_model(), "halved", both, **options)
    assert state.halved
    assert [event["step"] for event in events if event["event"] == "halved"] == [2]
    assert losses["halved"][:2] == losses["whole"][:2]
    assert losses["halved"] == pytest.approx(losses["whole"], rel=1e-5)


def test_memory_that_runs_out_again_is_an_error_with_advice(
    make_model: Make, run_fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    out_of_memory_at(monkeypatch, [3, 5])
    with pytest.raises(TrainingError) as caught:
        run_fit(make_model(), gradient_accumulation_steps=2)
    assert caught.value.code == "E4003"
    assert "--per-device-train-batch-size" in str(caught.value)


def test_only_errors_about_memory_are_taken_for_such() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_passes_of_half_the_rows_and_tokens() -> None:
    plain = partial(print, rows_per_pass=5, max_tokens=101)
    assert with_passes(plain, 0.5).keywords == {"rows_per_pass": 2, "max_tokens": 50}  # type: ignore[attr-defined]
    assert with_passes(plain, 0.01).keywords == {"rows_per_pass": 1, "max_tokens": 1}  # type: ignore[attr-defined]
    assert with_passes(plain, 1.0, 3).keywords == {"rows_per_pass": 3, "max_tokens": 101}  # type: ignore[attr-defined]


def test_a_ceiling_makes_large_allocations_fail_and_goes_with_the_run() -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("the ceiling on memory needs Linux")
    gigabytes = (memory_facts()["VmRSS"] + 200_000_000) / 1e9
    with memory_ceiling(gigabytes):
        torch.ones(10_000_000)
        with pytest.raises(RuntimeError) as caught:
            torch.ones(200_000_000)
    assert is_out_of_memory(caught.value)
    torch.ones(100_000_000)
    with memory_ceiling(0):
        pass
    assert memory.resource.getrlimit(memory.resource.RLIMIT_DATA)[0] in (-1, memory.resource.RLIM_INFINITY)
