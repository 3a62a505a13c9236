"""Time of a run on a device: arithmetic, launches, the optimizer's walk through memory, start, evaluation, saving."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from treetune.plan.architecture import Architecture
from treetune.plan.devices import Device, reached
from treetune.plan.flops import Flops, answer_flops
from treetune.plan.memory import FLOAT, OPTIMIZER_VALUES
from treetune.plan.quantity import Range
from treetune.plan.workload import Workload

START_SECONDS = 2.5
"""Importing torch and transformers, loading the model: 1.4 to 2.4 s measured on two Zen 4 cores, files in memory."""
HALF_SPEED_WIDTH = 260.0
"""Width at which a CPU reaches half of what it reaches on wide matrices; set by hand, see docs/plan.md."""
LAUNCH_SECONDS = 1.0e-3
"""A layer's fixed cost of one forward and backward pass on a CPU: some forty small kernels from Python; set by
hand."""
GPU_LAUNCH_SECONDS = 4.0e-4
SAVE_BYTES_A_SECOND = 250e6
"""Writing, flushing and digesting a checkpoint, and the loop's look at the older ones; set by hand."""
BETWEEN_DEVICES = 0.9
"""Share of the speed left where devices exchange gradients."""
CPU_SPREAD = (0.6, 1.8)


@dataclass(frozen=True, slots=True)
class Duration:
    """Seconds by part, and all of them with bounds. ``known``: share that was measured, not extrapolated."""

    parts: Mapping[str, float]
    total: Range
    known: float = 0.0
    how: str = "prior"

    def as_dict(self) -> dict[str, Any]:
        return {"parts": dict(self.parts), "total": self.total.as_dict(), "known_share": self.known, "how": self.how}


def speed_of(device: Device, model: Architecture) -> Range:
    """Operations a second that a training reaches on one device."""
    share = reached(device, model.parameters)
    if device.gpu:
        return share * device.peak
    return share * (device.peak * model.width / (model.width + HALF_SPEED_WIDTH))


def duration_of(
    model: Architecture, work: Workload, flops: Flops, device: Device, *, devices: int = 1, trained: int = 0,
    optim: str = "adamw",
) -> Duration:
    """A run's time from start to saved model, from priors alone. ``trained``: weights that change; 0: all."""
    speed = speed_of(device, model)
    rate = speed.expected * devices * (BETWEEN_DEVICES if devices > 1 else 1.0)
    launch = (GPU_LAUNCH_SECONDS if device.gpu else LAUNCH_SECONDS) * model.layers
    kept = FLOAT * (trained or model.parameters) * (1 + OPTIMIZER_VALUES[optim])
    proof = 2.5 * flops.run / work.tokens * work.proof.tokens if work.proof and work.tokens else 0.0
    parts = {
        "start": START_SECONDS,
        "proof": proof / rate + (4 * launch if work.proof else 0.0),
        "training": flops.run / rate + work.passes * launch / devices,
        "optimizer": work.steps * 3.0 * kept / device.bandwidth / devices,
        "evaluation": flops.evaluation / rate + work.evaluations * work.evaluation_passes * launch / (3 * devices),
        "saving": work.saves * kept / SAVE_BYTES_A_SECOND,
    }
    total = sum(parts.values())
    if device.gpu:
        below, above = speed.expected / speed.high, speed.expected / speed.low
    else:
        below, above = CPU_SPREAD
    return Duration(parts, Range(total * below, total, total * above))


def answer_seconds(
    model: Architecture, prompt: float, new: float, device: Device, *, rows: int = 8, samples: int = 1
) -> Range:
    """One answer among ``rows`` at a time: arithmetic, or reading the weights once a written token, whichever lasts
    longer.
    """
    speed = speed_of(device, model)
    arithmetic = answer_flops(model, prompt, new, samples)
    reading = samples * new * FLOAT * model.parameters / device.bandwidth / rows
    return Range(*(max(arithmetic / rate, reading) for rate in (speed.high, speed.expected, speed.low)))
