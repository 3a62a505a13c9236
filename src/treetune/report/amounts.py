"""Amounts of time, memory, energy and carbon in the unit a person would take, with their bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from treetune.core.language import say

Record = Mapping[str, Any]
DAY = 86400


def bytes_text(value: float) -> str:
    """``1.24 GB`` (10^9 bytes) or ``34 MB``."""
    return f"{value / 1e9:,.2f} GB" if value >= 1e8 else f"{value / 1e6:,.1f} MB"


def seconds_text(value: float) -> str:
    """Seconds in the unit a person would take."""
    if value < 90:
        return say("{value} s", value=short(value))
    if value < 90 * 60:
        return say("{value} min", value=short(value / 60))
    if value < 48 * 3600:
        return say("{value} h", value=short(value / 3600))
    if value < 365 * DAY:
        return say("{value} days", value=short(value / DAY))
    return say("{value} years", value=short(value / (365 * DAY)))


def energy_text(value: float) -> str:
    """Kilowatt-hours, or smaller."""
    if value >= 1e6:
        return f"{short(value / 1e6)} GWh"
    return f"{short(value * 1000)} Wh" if value < 1 else f"{short(value)} kWh"


def mass_text(grams: float) -> str:
    """Grams of CO2 equivalent, or larger."""
    if grams >= 1e6:
        return f"{short(grams / 1e6)} t"
    return f"{short(grams / 1000)} kg" if grams >= 1000 else f"{short(grams)} g"


def short(value: float) -> str:
    """Three digits that count."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def with_bounds(quantity: Record, text: Callable[[float], str]) -> str:
    """``expected (low - high)``."""
    return f"{text(quantity['expected'])} ({text(quantity['low'])} – {text(quantity['high'])})"


def part_name(name: str) -> str:
    """A part of model or memory in the reader's language."""
    names = {
        "embedding": say("embedding"), "positions": say("positions"), "segments": say("segments"),
        "attention": say("attention"), "feed-forward": say("feed-forward"), "norms": say("norms"),
        "head": say("head"), "output": say("output matrix"), "process": say("process"), "data": say("data"),
        "weights": say("weights"), "gradients": say("gradients"), "optimizer": say("optimizer"),
        "activations": say("activations"), "logits": say("logits"), "start": say("start"), "proof": say("proof"),
        "training": say("training"), "evaluation": say("evaluation"), "saving": say("saving"), "seen": say("seen"),
        "loading": say("loading"),
    }
    return names.get(name, name)


def energy_source(energy: Record) -> str:
    """How an account's energy is known."""
    names = {
        "rapl": say("measured by the processor's counters, of the whole machine"),
        "nvml": say("measured by the counters of the GPUs"),
        "rapl+nvml": say("measured by the counters of processor and GPUs, of the whole machine"),
        "codecarbon": say("as codecarbon gives it for this process"),
    }
    return names.get(str(energy["source"]), say("not measured: {watts} W by a guess from the kind of device, with its "
                                                "bounds", watts=short(energy.get("watts") or 0.0)))
