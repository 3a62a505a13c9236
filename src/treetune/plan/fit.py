"""Does the run fit into memory, and if not, which change makes it fit at the least cost in time and in what it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from treetune.plan.architecture import Architecture
from treetune.plan.flops import training_flops
from treetune.plan.memory import Memory, MemorySettings, memory_of
from treetune.plan.workload import Workload, smaller_passes

LORA_RANK = 8
SHARDS = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True, slots=True)
class Change:
    """Settings to change. ``slower``: factor on the operations. ``same_model``: whether the result is the same."""

    settings: dict[str, Any]
    memory: Memory
    slower: float
    same_model: bool

    def as_dict(self) -> dict[str, Any]:
        return {"settings": self.settings, "peak": self.memory.peak.as_dict(), "slower": self.slower,
                "same_model": self.same_model}


def changes_that_fit(
    model: Architecture, work: Workload, settings: MemorySettings, room: float, *, may_shard: bool = True
) -> list[Change]:
    """Changes after which the expected peak is at most ``room`` bytes, the cheapest first; [] where none is enough.

    First what leaves the result as it is (smaller passes, then recomputed activations), then adapters, then weights
    in parts over more devices.
    """
    before = training_flops(model, work, lora_r=settings.lora_r, checkpointing=settings.checkpointing).run
    found = []
    for change, trial, passes in _candidates(model, work, settings, may_shard):
        memory = memory_of(model, passes, trial)
        if memory.peak.expected <= room:
            after = training_flops(model, passes, lora_r=trial.lora_r, checkpointing=trial.checkpointing).run
            found.append(Change(change, memory, after / before if before else 1.0, trial.lora_r == settings.lora_r))
    return _cheapest(found)


def _cheapest(found: list[Change]) -> list[Change]:
    """One change of each kind, in the order they were tried."""
    kinds: dict[tuple[str, ...], Change] = {}
    for change in found:
        kinds.setdefault(tuple(change.settings), change)
    return list(kinds.values())[:4]


def _candidates(
    model: Architecture, work: Workload, settings: MemorySettings, may_shard: bool
) -> Iterator[tuple[dict[str, Any], MemorySettings, Workload]]:
    adapters = () if settings.lora_r else (LORA_RANK,)
    for rank in (0, *adapters):
        with_lora = replace(settings, lora_r=rank or settings.lora_r)
        named: dict[str, Any] = {"lora_r": rank} if rank else {}
        for checkpointing in (False, True) if not settings.checkpointing else (True,):
            trial = replace(with_lora, checkpointing=checkpointing)
            told = {**named, **({"gradient_checkpointing": True} if checkpointing > settings.checkpointing else {})}
            if told:
                yield told, trial, work
            for rows in _halves(work.largest.rows):
                yield {**told, "per_device_train_batch_size": rows}, trial, smaller_passes(work, rows)
    for shards in SHARDS if may_shard else ():
        yield {"fsdp": "full_shard", "devices": shards}, replace(settings, shards=shards), work


def _halves(rows: int) -> Iterator[int]:
    while rows > 1:
        rows = (rows + 1) // 2
        yield rows
