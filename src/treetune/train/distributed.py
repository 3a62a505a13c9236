"""Several processes train one model: each computes its share of a step's passes, gradients and counts are added up.

Data parallelism over torch.distributed, started by torchrun. Every process holds all weights and takes the same step,
because every process has the same sums. It is not torch's DistributedDataParallel: that averages over processes and
needs as many passes in each, whereas here a step's loss is a sum over labels, divided once by the labels of all, and
passes are dealt out by predicted cost. The rows of a step do not depend on the number of processes.
With weights in parts (`treetune.models.shard`) the same passes are dealt out, as many to each process.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import torch
from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor

from treetune.core import processes
from treetune.core.errors import TrainingError, TreetuneError
from treetune.models.engine import core_model
from treetune.models.freeze import layers_of
from treetune.models.shard import gather, is_sharded, shard
from treetune.train.memory import with_passes

T = TypeVar("T")
BUCKET_NUMBERS = 1 << 23
PASSES_A_PROCESS = 2
TIMEOUT_SECONDS = 600.0
LAST_WORDS_SECONDS = 5.0
STORE_SECONDS = 10.0
MEETING_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Team:
    """The processes of a run. Every method is called by all of them, in the same order."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"
    store: Any = None
    sums: list[int] = field(default_factory=lambda: [0])

    @property
    def is_lead(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def add_up(self, values: Sequence[float]) -> list[float]:
        """Sums over the processes of one number each."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        self.sum_in_place(tensor)
        return [float(value) for value in tensor]

    def sum_in_place(self, tensor: torch.Tensor) -> None:
        """All-reduce. An error of it, as of every other exchange, becomes E4006 in `join_team`."""
        self.note()
        distributed.all_reduce(tensor)

    def note(self, wanted: bool = True) -> None:
        """Count this process's sums and passes in step, for whoever may have to say which one stands still."""
        if wanted:
            self.sums[0] += 1
            self.store.set(f"at{self.rank}", str(self.sums[0]))

    def lost(self, error: RuntimeError) -> TrainingError:
        """The error for a process that is gone, stands still or cannot be reached. The store, too, may lie behind a
        link that is cut: it is given `STORE_SECONDS` to answer.
        """
        behind = within(STORE_SECONDS, self.behind)
        found = in_short(error)
        if behind is None:
            found += f"; nor does {os.environ.get('MASTER_ADDR', '?')} answer, where the processes of the run meet"
        return gone(among(behind or [], self.size), self.rank, found)

    def behind(self) -> list[int]:
        """Processes that came less far than this one, else those that have not found out within
        `LAST_WORDS_SECONDS` that something is wrong.
        """
        self.store.set(f"lost{self.rank}", "1")
        at = [int(self.store.get(f"at{rank}")) if self.store.check([f"at{rank}"]) else 0 for rank in range(self.size)]
        return [rank for rank in range(self.size) if at[rank] < self.sums[0]] or self.silent()

    def silent(self) -> list[int]:
        """Processes that have not noted that they lost one, when all but one have or some seconds are over."""
        until = time.monotonic() + LAST_WORDS_SECONDS
        while True:
            found = [rank for rank in range(self.size) if not self.store.check([f"lost{rank}"])]
            if len(found) <= 1 or time.monotonic() > until:
                return found
            time.sleep(0.1)

    def add_gradients(self, model: torch.nn.Module) -> None:
        """Gradients summed over the processes; a weight that has one nowhere keeps none.

        Those of weights in parts were summed in the backward pass.
        """
        if self.size == 1 or is_sharded(model):
            return
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        there = self.add_up([float(weight.grad is not None) for weight in weights])
        used = [weight for weight, count in zip(weights, there, strict=True) if count]
        for weight in used:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        for bucket in buckets(used):
            flat = torch.cat([weight.grad.flatten() for weight in bucket if weight.grad is not None])
            self.sum_in_place(flat)
            place = 0
            for weight in bucket:
                assert weight.grad is not None
                weight.grad.copy_(flat[place : place + weight.numel()].view_as(weight))
                place += weight.numel()

    def same_weights(self, model: torch.nn.Module) -> None:
        """Everybody takes the lead's weights; of those in parts there is only one copy."""
        if self.size > 1:
            for weight in model.state_dict().values():
                if not isinstance(weight, DTensor):
                    distributed.broadcast(weight, 0)

    def from_lead(self, ask: Callable[[], str]) -> str:
        """What the lead's ``ask()`` gives, to everybody; as bytes, since objects would travel as pickles."""
        if self.size == 1:
            return ask()
        data = ask().encode() if self.is_lead else b""
        [size] = self.add_up([float(len(data))])
        if not size:
            return ""
        tensor = torch.zeros(int(size), dtype=torch.uint8, device=self.device)
        if self.is_lead:
            tensor += torch.frombuffer(bytearray(data), dtype=torch.uint8).to(self.device)
        distributed.broadcast(tensor, 0)
        return bytes(tensor.tolist()).decode()

    def share(self, batches: Iterator[Any], width: int, *, in_step: bool = False) -> Iterator[tuple[Any, float]]:
        """This process's passes of a step, each with its weight in the sums, 1: dealt out by predicted cost, the
        dearest first to the least loaded.

        Args:
            in_step: all processes run as many passes, since each needs the others' parts of the weights; who has
                fewer runs the cheapest of all again, with weight 0.
        """
        if self.size == 1:
            yield from ((batch, 1.0) for batch in batches)
            return
        listed = list(batches)
        costs = [cost(each, width) for each in listed]
        most = -(-len(listed) // self.size) if in_step else len(listed)
        hands = deal(costs, self.size, most)
        for place in hands[self.rank]:
            self.note(in_step)
            yield listed[place], 1.0
        idle = max(map(len, hands)) - len(hands[self.rank]) if in_step else 0
        for _ in range(idle):
            self.note(in_step)
            yield listed[costs.index(min(costs))], 0.0

    def agree(self, wish: bool, in_step: bool) -> bool:
        """Whether to break off: where all run in step, as soon as one of them wishes it."""
        return bool(self.add_up([wish])[0]) if in_step else wish

    def smaller(self, make_batches: Callable[..., Any], num_rows: int) -> Callable[..., Any]:
        """Passes small enough for every process to get some."""
        if self.size == 1:
            return make_batches
        rows = max(1, -(-num_rows // (PASSES_A_PROCESS * self.size)))
        return with_passes(make_batches, 1.0, rows)


ALONE = Team()
_current = ALONE


def team() -> Team:
    """The team this process is in."""
    return _current


@contextmanager
def join_team() -> Iterator[Team]:
    """Inside, this process belongs to the team that torchrun started it for.

    gloo on processors, NCCL on GPUs. A collective that is not answered within TREETUNE_TIMEOUT seconds (600) fails.

    Raises:
        TrainingError: E4006 another process is gone, does not answer or cannot be reached.
    """
    global _current
    if processes.count() == 1:
        yield ALONE
        return
    device, backend = "cpu", "gloo"
    if torch.cuda.is_available():
        device, backend = f"cuda:{os.environ.get('LOCAL_RANK', '0')}", "nccl"
        torch.cuda.set_device(device)
    try:
        store, rank, size = next(rendezvous("env://", timeout=timeout()))
        store = meet(store, rank, size)
        distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout())
    except RuntimeError as error:
        if not is_of_exchange(error):
            raise
        raise gone(os.environ.get("MASTER_ADDR", "?"), processes.rank(), in_short(error)) from error
    _current = Team(rank, size, device, PrefixStore("treetune", store))
    try:
        yield _current
    except RuntimeError as error:
        if not is_of_exchange(error):
            raise
        raise _current.lost(error) from error
    finally:
        _current = ALONE
        distributed.destroy_process_group()


@contextmanager
def in_turn(wanted: bool) -> Iterator[None]:
    """Inside, one process of a machine at a time: each holds a whole model until it keeps its part of it."""
    place = int(os.environ.get("LOCAL_RANK", "0")) if wanted and _current.size > 1 else 0
    try:
        if place:
            _current.store.wait([f"turn{_current.rank - 1}"], timeout() * place)
        yield
    finally:
        if wanted and _current.size > 1:
            within(STORE_SECONDS, partial(_current.store.set, f"turn{_current.rank}", "over"))


def meet(store: Any, rank: int, size: int) -> Any:
    """The part of the store that only the processes of this attempt know.

    torchrun's store outlives an attempt, and its count of restarts may differ between machines: without this, a process
    would read the addresses of those that are long gone and call there in vain. Each leaves a word that nobody has
    left before; the lead answers each with the name of the part until all have come in.

    Raises:
        TrainingError: E4006 not all came within `timeout`. DistError: the store does not answer.
    """
    word = secrets.token_hex(8)
    store.set(f"here{rank}", word)
    if rank:
        store.wait([f"to{word}"], timeout())
        name = store.get(f"to{word}").decode()
        store.set(f"{name}in{rank}", "1")
        return PrefixStore(name, store)
    missing = list(range(1, size))
    until = time.monotonic() + timeout().total_seconds()
    while missing:
        for other in missing:
            if store.check([f"here{other}"]):
                store.set(f"to{store.get(f'here{other}').decode()}", word)
        missing = [other for other in missing if not store.check([f"{word}in{other}"])]
        if missing and time.monotonic() > until:
            raise gone(among(missing, size), rank, f"nothing came within {timeout().total_seconds():g} s of the start")
        time.sleep(MEETING_SECONDS if missing else 0)
    return PrefixStore(word, store)


def gone(who: str, rank: int, found: str) -> TrainingError:
    """The error for a process, or a machine, that process ``rank`` waits for in vain."""
    return TrainingError("E4006", "a process of the run is gone or does not answer",
                         where=f"{who}, seen from process {rank} on {socket.gethostname()}", found=found,
                         do="run the same command again to go on from the last checkpoint")


def among(ranks: Sequence[int], size: int) -> str:
    """Which processes of how many."""
    return f"process {', '.join(map(str, ranks)) or '?'} of {size}"


def in_short(error: RuntimeError) -> str:
    """What torch says, on one line."""
    return " ".join(str(error).split())[:300]


def within(seconds: float, ask: Callable[[], T]) -> T | None:
    """What ``ask()`` gives; None where it fails or takes longer: what is asked over a link that is cut may be
    answered when the link is back, or never.
    """
    answers: list[T] = []

    def call() -> None:
        with suppress(RuntimeError):
            answers.append(ask())

    thread = threading.Thread(target=call, name="last words", daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else None


def timeout() -> timedelta:
    """How long a process waits for another."""
    return timedelta(seconds=float(os.environ.get("TREETUNE_TIMEOUT", TIMEOUT_SECONDS)))


def shard_model(model: torch.nn.Module) -> None:
    """Keep a part of the weights in each process of the team; alone, all."""
    if _current.size > 1:
        shard(model, layers_of(core_model(model)), torch.device(_current.device).type)


def gather_model(model: torch.nn.Module) -> None:
    """An ordinary model in the lead process again, to be saved."""
    if is_sharded(model):
        gather(model, _current.is_lead)


def cost(batch: Any, width: int) -> float:
    """Predicted cost of a pass: its tokens through the layers' matrices (24 width² a token and layer) and its
    attention (4 width a token and a token seen); in tokens.
    """
    tokens = batch.num_tokens
    rows = batch.input_ids.shape[0] if hasattr(batch, "input_ids") else 1
    return float(tokens * (1 + tokens / rows / (6 * width)))


def is_of_exchange(error: RuntimeError) -> bool:
    """Whether an error of torch says that another process did not answer."""
    return not isinstance(error, TreetuneError) and (isinstance(error, distributed.DistError) or "gloo" in str(error))


def deal(costs: Sequence[float], size: int, most: int | None = None) -> list[list[int]]:
    """Places of ``costs`` for each of ``size`` processes, in their order; the dearest first to the least loaded
    (Graham 1969: at most 4/3 of the best possible), a pure function so that all processes deal alike.

    Args:
        most: places a process may have; None: any number.
    """
    loads = [0.0] * size
    hands: list[list[int]] = [[] for _ in range(size)]
    for place in sorted(range(len(costs)), key=lambda place: (-costs[place], place)):
        open_hands = [rank for rank in range(size) if most is None or len(hands[rank]) < most]
        least = min(open_hands, key=lambda rank: (loads[rank], rank))
        loads[least] += costs[place]
        hands[least].append(place)
    return [sorted(hand) for hand in hands]


def buckets(weights: Sequence[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    """Weights whose gradients travel together: few messages, and never a second copy of all gradients."""
    bucket: list[torch.nn.Parameter] = []
    size = 0
    for weight in weights:
        if bucket and size + weight.numel() > BUCKET_NUMBERS:
            yield bucket
            bucket, size = [], 0
        bucket.append(weight)
        size += weight.numel()
    if bucket:
        yield bucket
