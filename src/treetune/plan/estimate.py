"""The whole plan of a run from its parts: operations, memory, time, energy, carbon, money."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from treetune.plan.architecture import Architecture
from treetune.plan.devices import DEVICES, Device
from treetune.plan.duration import Duration, duration_of
from treetune.plan.energy import Rates, cost_of, energy_kwh
from treetune.plan.flops import Flops, training_flops
from treetune.plan.history import Lesson
from treetune.plan.memory import Memory, MemorySettings, memory_of
from treetune.plan.quantity import Range
from treetune.plan.workload import Workload


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run is expected to take. ``energy``: kWh. ``carbon``: grams CO2 equivalent. ``cost``: None: no price."""

    flops: Flops
    memory: Memory
    duration: Duration
    energy: Range
    carbon: Range
    cost: dict[str, Any] | None

    def as_dict(self) -> dict[str, Any]:
        return {
            "flops": self.flops.as_dict(), "memory": self.memory.as_dict(), "time": self.duration.as_dict(),
            "energy_kwh": self.energy.as_dict(), "co2_g": self.carbon.as_dict(), "cost": self.cost,
        }


def estimate(
    model: Architecture, work: Workload, settings: MemorySettings, device: Device, rates: Rates, *, devices: int = 1,
    lesson: Lesson | None = None, duration: Duration | None = None,
) -> Estimate:
    """All of a plan.

    Args:
        lesson: what past runs taught. duration: a better one than that from priors, as of a probe.
    """
    flops = training_flops(model, work, lora_r=settings.lora_r, checkpointing=settings.checkpointing,
                           kept_share=settings.kept_share(model))
    memory = memory_of(model, work, settings)
    if duration is None:
        duration = duration_of(model, work, flops, device, devices=devices,
                               trained=settings.trained(model), optim=settings.optim)
        if lesson is not None:
            duration = Duration(duration.parts, lesson.time * duration.total.expected, 0.0, "past runs")
    if lesson is not None:
        memory = Memory(memory.parts, memory.phases, lesson.memory * memory.peak.expected)
    energy = energy_kwh(duration.total, device, devices)
    return Estimate(flops, memory, duration, energy, energy.times(rates.grams_per_kwh),
                    cost_of(duration.total, energy, rates, device, devices))


def over_devices(
    model: Architecture, work: Workload, settings: MemorySettings, rates: Rates,
    counts: tuple[int, ...] = (1, 8, 64, 512), *, sharded: bool = False,
) -> list[dict[str, Any]]:
    """Time, energy and money on common devices, and whether the run fits into the memory of each.

    Args:
        sharded: weights, gradients and optimizer lie in parts over the devices; else each holds all of them.
    """
    lines = []
    for device in DEVICES.values():
        for count in counts:
            split = replace(settings, bf16=True, gpu=True, shards=count if sharded else 1)
            found = estimate(model, work, split, device, rates, devices=count)
            lines.append({
                "device": device.name, "count": count, "seconds": found.duration.total.as_dict(),
                "memory_bytes": found.memory.peak.as_dict(), "device_bytes": device.memory,
                "fits": found.memory.peak.expected <= device.memory, "energy_kwh": found.energy.as_dict(),
                "co2_g": found.carbon.as_dict(), "cost": found.cost,
            })
    return lines
