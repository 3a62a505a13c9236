"""Several processes train one model: each computes its share of a step's passes, gradients and counts are added up.

Data parallelism over torch.distributed, started by torchrun. Every process holds all weights and takes the same step,
because every process has the same sums. It is not torch's DistributedDataParallel: that averages over processes and
needs as many passes in each, whereas here a step's loss is a sum over labels, divided once by the labels of all, and
passes are dealt out by predicted cost. The rows of a step do not depend on the number of processes.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from treetune.core import processes
from treetune.core.errors import TrainingError
from treetune.train.memory import with_passes

BUCKET_NUMBERS = 1 << 23
PASSES_A_PROCESS = 2
TIMEOUT_SECONDS = 600.0


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
        """All-reduce.

        Raises:
            TrainingError: E4006 another process is gone or does not answer.
        """
        self.sums[0] += 1
        self.store.set(f"at{self.rank}", str(self.sums[0]))  # for whoever may have to say which process stands still
        try:
            distributed.all_reduce(tensor)
        except RuntimeError as error:
            raise self.lost(error) from error

    def lost(self, error: RuntimeError) -> TrainingError:
        """The error for a process that is gone or stands still: the one that came to fewer sums than this one."""
        at = [int(self.store.get(f"at{rank}")) if self.store.check([f"at{rank}"]) else 0 for rank in range(self.size)]
        behind = [rank for rank in range(self.size) if at[rank] < self.sums[0]]
        return TrainingError(
            "E4006", "a process of the run is gone or does not answer",
            where=f"process {', '.join(map(str, behind)) or '?'} of {self.size}, seen from process {self.rank} "
                  f"on {socket.gethostname()}",
            found=" ".join(str(error).split())[:300],
            do="run the same command again to go on from the last checkpoint",
        )

    def add_gradients(self, model: torch.nn.Module) -> None:
        """Gradients summed over the processes; a weight that has one nowhere keeps none."""
        if self.size == 1:
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
        """Everybody takes the lead's weights."""
        if self.size > 1:
            for weight in model.state_dict().values():
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

    def share(self, batches: Iterator[Any], width: int) -> Iterator[Any]:
        """This process's passes of a step: dealt out by predicted cost, the dearest first to the least loaded."""
        if self.size == 1:
            yield from batches
            return
        listed = list(batches)
        yield from (listed[place] for place in deal([cost(each, width) for each in listed], self.size)[self.rank])

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
    """
    global _current
    if processes.count() == 1:
        yield ALONE
        return
    timeout = timedelta(seconds=float(os.environ.get("TREETUNE_TIMEOUT", TIMEOUT_SECONDS)))
    device, backend = "cpu", "gloo"
    if torch.cuda.is_available():
        device, backend = f"cuda:{os.environ.get('LOCAL_RANK', '0')}", "nccl"
        torch.cuda.set_device(device)
    store, rank, size = next(rendezvous("env://", timeout=timeout))
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    _current = Team(rank, size, device, PrefixStore("treetune", store))
    try:
        yield _current
    finally:
        _current = ALONE
        distributed.destroy_process_group()


def cost(batch: Any, width: int) -> float:
    """Predicted cost of a pass: its tokens through the layers' matrices (24 width² a token and layer) and its
    attention (4 width a token and a token seen); in tokens.
    """
    tokens = batch.num_tokens
    rows = batch.input_ids.shape[0] if hasattr(batch, "input_ids") else 1
    return float(tokens * (1 + tokens / rows / (6 * width)))


def deal(costs: Sequence[float], size: int) -> list[list[int]]:
    """Places of ``costs`` for each of ``size`` processes, in their order; the dearest first to the least loaded
    (Graham 1969: at most 4/3 of the best possible), a pure function so that all processes deal alike.
    """
    loads = [0.0] * size
    hands: list[list[int]] = [[] for _ in range(size)]
    for place in sorted(range(len(costs)), key=lambda place: (-costs[place], place)):
        least = min(range(size), key=lambda rank: (loads[rank], rank))
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
