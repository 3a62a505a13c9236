"""Energy, carbon and money of device hours; every figure with its bounds and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from treetune.core.errors import UsageError
from treetune.plan.devices import Device
from treetune.plan.quantity import Range, about

GRIDS_OF = "2023"
"""Year of the grids' intensities: yearly means by country, Ember by way of codecarbon 3.3.2; world: codecarbon's."""
GRIDS = {
    "world": 475, "at": 111, "au": 549, "be": 138, "br": 98, "ca": 170, "ch": 35, "cn": 582, "de": 381, "dk": 152,
    "es": 174, "fi": 79, "fr": 56, "gb": 238, "ie": 291, "in": 713, "it": 331, "jp": 485, "kr": 431, "nl": 268,
    "no": 30, "pl": 662, "se": 41, "sg": 471, "tw": 642, "us": 369, "za": 708,
}
"""Grams of CO2 equivalent a kilowatt-hour."""
GRID_SPREAD = (0.5, 1.5)
"""Hour and region change a country's mean by about as much."""
OVERHEAD = Range(1.0, 1.2, 1.6)
"""Cooling and conversion on top of the machine: none at a desk, 1.1 to 1.6 in data centres."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What energy and time cost. ``grid``: name of it, or ``own``. Prices: None where nobody said."""

    grid: str
    grams_per_kwh: Range
    price_per_hour: float | None = None
    price_per_kwh: float | None = None


def grid_of(given: str) -> tuple[str, Range]:
    """A grid by its country's code, or by its own grams a kilowatt-hour (``"120"``).

    Raises:
        UsageError: E2053 neither.
    """
    name = given.lower() or "world"
    if name in GRIDS:
        return name, about(GRIDS[name], *GRID_SPREAD)
    try:
        grams = float(name)
    except ValueError:
        grams = -1.0
    if not 0 <= grams < 5000:
        raise UsageError("E2053", "the grid {name!r} is neither a country's code nor a number", name=given,
                         found=given, allowed=", ".join(GRIDS), do="give grams of CO2 a kilowatt-hour, e.g. 120")
    return "own", Range(grams, grams, grams)


def energy_kwh(seconds: Range, device: Device, devices: int = 1) -> Range:
    """Energy of ``devices`` for that long: hours x power x what is drawn of it x overhead."""
    hours = seconds * (devices / 3600)
    return hours.times(device.drawn).times(OVERHEAD) * (device.watts / 1000)


def cost_of(seconds: Range, energy: Range, rates: Rates, device: Device, devices: int = 1) -> dict[str, Any] | None:
    """Money for hours and energy; None where no price is known."""
    hourly = Range(rates.price_per_hour, rates.price_per_hour, rates.price_per_hour) if (
        rates.price_per_hour is not None) else device.price
    if hourly is None and rates.price_per_kwh is None:
        return None
    total = Range(0.0, 0.0, 0.0)
    if hourly is not None:
        total = total + (seconds * (devices / 3600)).times(hourly)
    if rates.price_per_kwh is not None:
        total = total + energy * rates.price_per_kwh
    return {**total.as_dict(), "given": rates.price_per_hour is not None or hourly is None}
