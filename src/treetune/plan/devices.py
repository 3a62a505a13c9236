"""Devices one may rent or own, by what their makers say of them, and how much of that a training reaches."""

from __future__ import annotations

from dataclasses import dataclass

from treetune.core.errors import UsageError
from treetune.plan.quantity import Range

PRICES_OF = "2025"
"""Year of the prices: rough bands of public on-demand price lists, in US dollars. Give your own."""


@dataclass(frozen=True, slots=True)
class Device:
    """One processor.

    Attributes:
        peak: operations a second in the number format of training (dense; makers' sparse figures halved).
        memory, bandwidth: bytes, bytes a second. watts: thermal design power. price: dollars an hour; None: unknown.
        reached: share of ``peak`` that a training reaches. drawn: share of ``watts`` that it draws.
    """

    name: str
    peak: float
    memory: float
    bandwidth: float
    watts: float
    price: Range | None
    reached: Range
    drawn: Range
    gpu: bool = True


LARGE = Range(0.25, 0.38, 0.5)
"""Shares of the peak that dense models of a billion parameters and more reach; see docs/plan.md for their sources."""
SMALL = Range(0.05, 0.15, 0.30)
"""The same below that: launches of small kernels, not arithmetic, take the time."""
SMALL_BELOW = 1e9
DRAWN = Range(0.43, 0.6, 0.8)
GB = 1e9

DEVICES = {
    device.name: device for device in (
        Device("v100", 125e12, 32 * GB, 900e9, 300, Range(0.5, 1.5, 3.1), LARGE, DRAWN),
        Device("t4", 65e12, 16 * GB, 320e9, 70, Range(0.2, 0.4, 0.6), LARGE, DRAWN),
        Device("l4", 121e12, 24 * GB, 300e9, 72, Range(0.4, 0.7, 1.0), LARGE, DRAWN),
        Device("rtx3090", 71e12, 24 * GB, 936e9, 350, Range(0.2, 0.35, 0.6), LARGE, DRAWN),
        Device("rtx4090", 165e12, 24 * GB, 1008e9, 450, Range(0.3, 0.5, 0.8), LARGE, DRAWN),
        Device("l40s", 362e12, 48 * GB, 864e9, 350, Range(0.8, 1.2, 1.9), LARGE, DRAWN),
        Device("a100", 312e12, 80 * GB, 2039e9, 400, Range(1.2, 2.0, 4.1), LARGE, DRAWN),
        Device("h100", 989e12, 80 * GB, 3350e9, 700, Range(2.0, 3.0, 7.0), LARGE, DRAWN),
        Device("h200", 989e12, 141 * GB, 4800e9, 700, Range(2.3, 3.8, 8.0), LARGE, DRAWN),
        Device("b200", 2250e12, 180 * GB, 8000e9, 1000, Range(3.5, 5.5, 10.0), LARGE, DRAWN),
        Device("mi300x", 1307e12, 192 * GB, 5300e9, 750, Range(1.8, 2.5, 6.0), LARGE, DRAWN),
    )
}


def device_named(name: str) -> Device:
    """A device of the table.

    Raises:
        UsageError: E2052 there is none of that name.
    """
    if name not in DEVICES:
        raise UsageError("E2052", "there is no device {name!r} in the table", name=name, found=name,
                         allowed=", ".join(["here", *DEVICES]), do="take one of these; 'here' is this machine")
    return DEVICES[name]


def processor(peak: float, memory: float, bandwidth: float, threads: int) -> Device:
    """This machine's processor, by what was measured of it; its power is a guess by its threads."""
    return Device("here", peak, memory, bandwidth, WATTS_A_THREAD.expected * threads, None, CPU_REACHED,
                  Range(WATTS_A_THREAD.low / WATTS_A_THREAD.expected, 1.0,
                        WATTS_A_THREAD.high / WATTS_A_THREAD.expected), gpu=False)


WATTS_A_THREAD = Range(2.0, 4.0, 10.0)
"""Servers draw 2 to 5 W a thread under load, desktop processors up to 10; memory included."""
CPU_REACHED = Range(0.5, 0.8, 1.0)
"""Share of its own matrix-product peak; what small layers lose beyond is in `treetune.plan.duration`."""


def reached(device: Device, parameters: float) -> Range:
    """Share of the peak to expect for a model of that size."""
    return SMALL if device.gpu and parameters < SMALL_BELOW else device.reached
