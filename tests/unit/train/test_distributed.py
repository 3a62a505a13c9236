"""Two processes train what one does: dealt fairly, summed exactly, stopped together, taken up by any number."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.distributed import DistNetworkError, HashStore, TCPStore

from treetune.core.errors import TrainingError
from treetune.core.files import RunFolder
from treetune.core.records import TokenizedExample
from treetune.core.settings import LoopSettings
from treetune.models.batches import batches_of
from treetune.models.gpt3 import GPT3LMHeadModel
from treetune.models.shard import is_sharded
from treetune.train import distributed, loop
from treetune.train.checkpoint import OPTIMIZER, WEIGHTS
from treetune.train.distributed import (
    Team,
    buckets,
    deal,
    gather_model,
    is_of_exchange,
    join_team,
    meet,
    shard_model,
)
from treetune.train.loop import fit

Make = Callable[..., GPT3LMHeadModel]
Rows = list[TokenizedExample]
TOLERANCE = 1e-5  # relative: sums of float32 in another order
NORM_TOLERANCE = 1e-4
WEIGHT_TOLERANCE = 1e-3  # of a sum: AdamW divides a key bias's gradient, which is noise around zero, by its own size


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0.1, 1e6), max_size=40), st.integers(1, 8))
def test_dealing_gives_everything_once_and_nobody_much_more_than_a_fair_share(costs: list[float], size: int) -> None:
    hands = deal(costs, size)
    assert sorted(place for hand in hands for place in hand) == list(range(len(costs)))
    assert all(hand == sorted(hand) for hand in hands)
    loads = [sum(costs[place] for place in hand) for hand in hands]
    fair = sum(costs) / size + (1 - 1 / size) * max(costs, default=0.0)  # Graham 1966, of any greedy dealing
    assert max(loads, default=0.0) <= fair * (1 + 1e-9)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=6), st.integers(1, 3))
@example([16178.0, 16178.0, 7416.0, 7416.0, 7416.0], 3)
def test_dealing_is_within_four_thirds_of_the_best_of_all_dealings(costs: list[float], size: int) -> None:
    """Graham 1969, against every way there is: a bound on the best from below would be too strict a judge."""
    def largest(ranks: tuple[int, ...]) -> float:
        return max(sum(cost for cost, own in zip(costs, ranks, strict=True) if own == rank) for rank in range(size))

    best = min(map(largest, product(range(size), repeat=len(costs))))
    ours = max(sum(costs[place] for place in hand) for hand in deal(costs, size))
    assert ours <= (4 / 3 - 1 / (3 * size)) * best * (1 + 1e-9)


def test_costs_decide_not_counts() -> None:
    assert deal([8.0, 1, 1, 1, 1, 1, 1, 1], 2) == [[0], [1, 2, 3, 4, 5, 6, 7]]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 30), max_size=20))
def test_buckets_keep_order_and_size(sizes: list[int]) -> None:
    weights = [torch.nn.Parameter(torch.zeros(size)) for size in sizes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "BUCKET_NUMBERS", 40)
        found = list(buckets(weights))
    assert [id(weight) for bucket in found for weight in bucket] == [id(weight) for weight in weights]
    assert all(len(bucket) == 1 or sum(weight.numel() for weight in bucket) <= 40 for bucket in found)


def test_alone_nothing_is_sent() -> None:
    team = Team()
    assert team.add_up([1.5, True]) == [1.5, True]
    assert team.from_lead(lambda: "step-3") == "step-3"
    assert list(team.share(iter([1, 2]), 8)) == [(1, 1.0), (2, 1.0)]
    with join_team() as joined:
        assert joined.size == 1


@pytest.fixture
def crew(tmp_path: Path, make_model: Make, rows: Rows, benchmark_module: Callable[[str], Any]) -> Callable[..., Any]:
    """(number of processes, run folder, settings) -> what each process found: exit, state, losses, rows, weights."""
    killing = benchmark_module("killing")

    def one(rank: int, size: int, port: int, name: str, act: Any, changes: dict[str, Any]) -> int:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1",
                          MASTER_PORT=str(port), TREETUNE_TIMEOUT=str(changes.pop("timeout", 60)))
        events: list[dict[str, Any]] = []
        model, sharded = make_model(**changes.pop("shape", {})), changes.pop("sharded", False)
        if changes.get("gradient_checkpointing"):
            model.activation_checkpointing_enable()
        options = LoopSettings(**{"output_dir": name, "num_train_epochs": 4, "per_device_train_batch_size": 4,
                                  "learning_rate": 1e-2, "logging_steps": 1, "save_steps": 2, **changes})
        make = partial(batches_of, layout="tree", rows_per_pass=4, max_tokens=200)

        def on_event(event: dict[str, Any]) -> None:
            events.append(event)
            if act:
                act(rank, event)

        found: dict[str, Any] = {"error": ""}
        try:
            with join_team():
                if sharded:
                    shard_model(model)
                state = fit(model, rows, rows[:5], options, make, RunFolder(tmp_path / name), {}, on_event)
                found |= {"step": state.step, "tokens": state.tokens, "best": state.best_loss}
                gather_model(model)
        except Exception as error:  # noqa: BLE001 - what it was is looked at by the test
            found |= {"error": f"{getattr(error, 'code', type(error).__name__)}: {error}"}
        steps = [event for event in events if event["event"] == "step"]
        found |= {"losses": {event["step"]: event["loss"] for event in steps},
                  "norms": {event["step"]: event["grad_norm"] for event in steps},
                  "labels": {event["step"]: event["num_labels"] for event in steps}}
        if not is_sharded(model):
            found["weights"] = [float(weight.double().sum()) for weight in model.state_dict().values()]
        (tmp_path / f"{name}-{rank}.json").write_text(json.dumps(found))
        return 0 if not found["error"] else 75 if "E4010" in found["error"] else 1

    def run(size: int, name: str = "run", act: Any = None, **changes: Any) -> list[dict[str, Any]]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        children = []
        for rank in range(size):
            (tmp_path / f"{name}-{rank}.json").unlink(missing_ok=True)
            child = os.fork()
            if child == 0:
                killing.forked_body(lambda rank=rank: one(rank, size, port, name, act, dict(changes)),
                                    tmp_path / "output")
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        paths = [tmp_path / f"{name}-{rank}.json" for rank in range(size)]
        return [{"code": code, **(json.loads(path.read_text()) if path.exists() else {})}
                for code, path in zip(codes, paths, strict=True)]

    return run


def close(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert other["losses"] == pytest.approx(one["losses"], rel=TOLERANCE)
    assert other["norms"] == pytest.approx(one["norms"], rel=NORM_TOLERANCE)
    assert other["weights"] == pytest.approx(one["weights"], rel=1e-4, abs=WEIGHT_TOLERANCE)
    assert (one["step"], one["tokens"], one["labels"]) == (other["step"], other["tokens"], other["labels"])


@pytest.mark.parametrize("layout_rows", [4, 1])
def test_two_processes_take_the_steps_of_one(crew: Callable[..., Any], layout_rows: int) -> None:
    options = {"per_device_train_batch_size": layout_rows, "gradient_accumulation_steps": 4 // layout_rows}
    [alone] = crew(1, "alone", **options)
    lead, other = crew(2, "both", **options)
    assert [each["error"] for each in (alone, lead, other)] == ["", "", ""]
    close(alone, lead)
    assert lead["best"] == pytest.approx(alone["best"], rel=TOLERANCE)
    assert other["weights"] == lead["weights"]  # the same sums, to the bit


@pytest.mark.parametrize("options", [
    {}, {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4, "gradient_checkpointing": True},
    {"optim": "muon", "max_grad_norm": 0.5},
], ids=str)
def test_two_processes_with_a_part_of_the_weights_each_take_the_steps_of_one(
    crew: Callable[..., Any], options: dict[str, Any], tmp_path: Path
) -> None:
    [alone] = crew(1, "alone", **options)
    lead, other = crew(2, "parts", sharded=True, **options)
    assert [each["error"] for each in (alone, lead, other)] == ["", "", ""]
    close(alone, lead)
    assert lead["best"] == pytest.approx(alone["best"], rel=TOLERANCE)
    assert "weights" not in other  # it never held them all
    layouts = []
    for name in ("alone", "parts"):  # one layout, whatever held the weights
        [*_, last] = sorted((tmp_path / name / "checkpoints").glob("step-*"), key=lambda path: int(path.name[5:]))
        layouts.append({file: {key: (tensor.shape, tensor.dtype) for key, tensor in load_file(last / file).items()}
                        for file in (WEIGHTS, OPTIMIZER)})
    assert layouts[0] == layouts[1]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.1, 1e6), max_size=20), st.integers(1, 6))
def test_passes_in_step_are_dealt_as_evenly_by_count_as_can_be(costs: list[float], size: int) -> None:
    most = -(-len(costs) // size)
    hands = deal(costs, size, most)
    assert sorted(place for hand in hands for place in hand) == list(range(len(costs)))
    assert max(map(len, hands)) <= most


def test_a_process_with_fewer_passes_in_step_runs_one_that_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Team, "note", lambda team, wanted=True: None)
    monkeypatch.setattr(distributed, "cost", lambda batch, width: float(batch))
    hands = [list(Team(rank, 2).share(iter([5, 2, 3]), 8, in_step=True)) for rank in range(2)]
    assert hands == [[(5, 1.0), (2, 0.0)], [(2, 1.0), (3, 1.0)]]


@pytest.mark.parametrize(("sharded", "optim"), [
    ((False,) * 3, "adamw"), ((True,) * 3, "adamw"),
    pytest.param((True, False, False), "adamw", marks=pytest.mark.slow),
    pytest.param((True,) * 3, "muon", marks=pytest.mark.slow),
])
def test_two_then_one_then_two_processes_go_on_with_the_same_rows(
    crew: Callable[..., Any], sharded: tuple[bool, ...], optim: str
) -> None:
    [whole] = crew(1, "whole", optim=optim)

    def stop_at(step: int) -> Callable[[int, dict[str, Any]], None]:
        def act(rank: int, event: dict[str, Any]) -> None:
            if rank == 0 and event["event"] == "step" and event["step"] == step:
                os.kill(os.getpid(), signal.SIGTERM)

        return act

    losses: dict[str, float] = {}
    for size, step, in_parts in zip((2, 1, 2), (3, 7, 99), sharded, strict=True):
        found = crew(size, "elastic", stop_at(step), sharded=in_parts, optim=optim)
        assert {each["code"] for each in found} == {0 if step == 99 else 75}, found
        losses |= found[0]["losses"]
    assert losses == pytest.approx(whole["losses"], rel=TOLERANCE)
    assert found[0]["weights"] == pytest.approx(whole["weights"], rel=1e-4, abs=WEIGHT_TOLERANCE)


def test_a_signal_to_one_process_stops_all_at_the_same_step(crew: Callable[..., Any], tmp_path: Path) -> None:
    def act(rank: int, event: dict[str, Any]) -> None:
        if rank == 1 and event["event"] == "step" and event["step"] == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    found = crew(2, "run", act)
    assert [each["code"] for each in found] == [75, 75]
    for each in found:
        assert "after step 5" in each["error"]
    assert (tmp_path / "run" / "checkpoints" / "step-5" / "manifest.json").exists()


@pytest.mark.parametrize(("end", "sharded"), [
    (signal.SIGKILL, False), (signal.SIGSTOP, False), (signal.SIGKILL, True),
    pytest.param(signal.SIGSTOP, True, marks=pytest.mark.slow),
])
def test_a_process_that_is_gone_or_stands_still_is_named_and_the_run_taken_up(
    crew: Callable[..., Any], end: signal.Signals, sharded: bool, tmp_path: Path
) -> None:
    [whole] = crew(1, "whole")
    pids = tmp_path / "pids"

    def act(rank: int, event: dict[str, Any]) -> None:
        if event["event"] != "step" or event["step"] != 5:
            return
        if rank == 1:
            pids.write_text(str(os.getpid()))
            os.kill(os.getpid(), end)

    if end == signal.SIGSTOP:  # somebody has to end it, as torchrun would
        waker = os.fork()
        if waker == 0:
            while not pids.exists() or not (tmp_path / "run-0.json").exists():
                time.sleep(0.05)
            os.kill(int(pids.read_text()), signal.SIGKILL)
            os._exit(0)
    found = crew(2, "run", act, timeout=3, sharded=sharded)
    if end == signal.SIGSTOP:
        os.waitpid(waker, 0)
    assert found[1]["code"] == -signal.SIGKILL
    assert found[0]["error"].startswith("E4006"), found[0]
    assert "process 1 of 2" in found[0]["error"]
    again = crew(2, "run", sharded=sharded)
    assert [each["error"] for each in again] == ["", ""]
    assert (again[0]["step"], again[0]["tokens"]) == (whole["step"], whole["tokens"])
    assert again[0]["weights"] == pytest.approx(whole["weights"], rel=1e-4, abs=WEIGHT_TOLERANCE)


def test_what_an_attempt_that_is_over_left_in_the_store_is_not_taken_for_this_ones(
    tmp_path: Path, benchmark_module: Callable[[str], Any]
) -> None:
    killing = benchmark_module("killing")
    store = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)  # torchrun's: it outlives its processes

    def one(rank: int, delay: float) -> int:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                          MASTER_PORT=str(store.port), TORCHELASTIC_USE_AGENT_STORE="True", TREETUNE_TIMEOUT="20",
                          TORCHELASTIC_RESTART_COUNT=str(rank))  # each machine counts its own
        time.sleep(delay)
        with join_team() as team:
            assert not team.store.check([f"lost{other}" for other in range(2)])
            assert team.add_up([1.0]) == [2.0]
            team.store.set(f"lost{rank}", "1")
        return 0

    for delays in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)):  # who comes first finds what the other left the time before
        children = []
        for rank, delay in enumerate(delays):
            child = os.fork()
            if child == 0:
                killing.forked_body(lambda rank=rank, delay=delay: one(rank, delay), tmp_path / "output")
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert codes == [0, 0], (tmp_path / "output").read_text()


def test_who_waits_in_vain_at_the_start_is_told_for_whom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TREETUNE_TIMEOUT", "0.2")
    store = HashStore()
    with pytest.raises(TrainingError, match="E4006") as lead:
        meet(store, 0, 3)
    assert "process 1, 2 of 3, seen from process 0 on " in str(lead.value)
    store.set_timeout(timedelta(seconds=0.2))
    with pytest.raises(RuntimeError) as other:
        meet(store, 1, 3)
    assert is_of_exchange(other.value)
    assert not is_of_exchange(lead.value)  # it is said already


@pytest.mark.parametrize("answer", ["late", "refused"])
def test_a_store_behind_a_link_that_is_cut_does_not_hold_the_message_up(
    answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    class CutOff:
        def set(self, name: str, value: str) -> None:
            if answer == "late":
                over.wait()
            raise DistNetworkError("Broken pipe")

    monkeypatch.setattr(distributed, "STORE_SECONDS", 0.2)
    monkeypatch.setenv("MASTER_ADDR", "node7")
    try:
        said = str(Team(1, 2, store=CutOff()).lost(RuntimeError("[gloo/pair.cc] timed out")))
    finally:
        over.set()
    assert said.startswith("E4006: a process of the run is gone or does not answer")
    assert "process ? of 2, seen from process 1 on " in said
    assert "timed out; nor does node7 answer" in said


def test_memory_that_runs_out_in_one_process_halves_the_passes_of_all(
    crew: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    [whole] = crew(1, "whole")
    plain = loop.loss_sum

    def fails(model: Any, batch: Any) -> Any:
        if os.environ.get("RANK") == "1" and not hasattr(fails, "done"):
            fails.done = True  # type: ignore[attr-defined]
            raise MemoryError
        return plain(model, batch)

    monkeypatch.setattr(loop.fit, "__defaults__", (None, fails, None))
    found = crew(2, "run")
    assert [each["error"] for each in found] == ["", ""]
    close(whole, found[0])
