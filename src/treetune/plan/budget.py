"""Limits a run is given: read, compared with its plan before it starts, and with what it used while it runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from treetune.core.errors import UsageError
from treetune.plan.quantity import Range

_TIME = re.compile(r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s)?")
_UNITS = (86400.0, 3600.0, 60.0, 1.0)
NAMES = ("max_time", "max_energy", "max_cost")
"""What is used up step by step; memory is not."""


def seconds_of(text: str) -> float:
    """``"90m"``, ``"1h30m"``, ``"2d"``, ``"45 s"`` in seconds; 0 for ``""``.

    Raises:
        UsageError: E2055 a time without a unit, or no time at all.
    """
    plain = text.replace(" ", "").lower()
    if not plain:
        return 0.0
    found = _TIME.fullmatch(plain)
    total = sum(float(part) * unit for part, unit in zip(found.groups(), _UNITS, strict=True) if part) if found else 0
    if not total:
        raise UsageError("E2055", "{text!r} is no length of time", text=text, where="max_time", found=text,
                         allowed="45s, 90m, 1h30m, 2d", do="write a number with its unit")
    return float(total)


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits by name, in seconds, kWh and money; bytes of memory. What is not limited is not in ``limits``."""

    limits: Mapping[str, float] = field(default_factory=dict)
    memory: float = 0.0

    def used_up(self, used: Mapping[str, float]) -> str:
        """The first limit that is reached; ``""`` where none is."""
        return next((name for name, limit in self.limits.items() if used.get(name, 0.0) >= limit), "")


def budget_of(max_time: str, max_energy: float, max_cost: float, max_memory_gb: float) -> Budget:
    """From settings as given; 0 and ``""`` mean no limit."""
    limits = dict(zip(NAMES, (seconds_of(max_time), max_energy, max_cost), strict=True))
    return Budget({name: limit for name, limit in limits.items() if limit}, max_memory_gb * 1e9)


def refuse_over(budget: Budget, planned: Mapping[str, Range | None], done: Mapping[str, float]) -> list[str]:
    """Names of the budgets that the run is expected to exceed, although it may do.

    Args:
        planned: what the run is likely to take in all, by name. done: what its earlier attempts have used.

    Raises:
        UsageError: E2056 even the least it can take is more than the budget; E2057 money is limited, and no price
            is known; E2058 the budget is used up already.
    """
    doubtful = []
    for name, limit in budget.limits.items():
        likely = planned.get(name)
        if done.get(name, 0.0) >= limit:
            raise UsageError("E2058", "the budget {name} of this run is used up", name=name, where=name,
                             found=f"{done[name]:.4g}", allowed=f"{limit:.4g}", do="raise it and run again to go on")
        if likely is None:
            if name == "max_cost":
                raise UsageError("E2057", "money is limited, but no price is known", where=name,
                                 do="give --price-per-hour or --price-per-kwh")
            continue
        if likely.low > limit:
            raise UsageError(
                "E2056", "the run is likely to take more than its budget {name}", name=name, where=name,
                found=f"{likely.expected:.4g} ({likely.low:.4g} - {likely.high:.4g})", allowed=f"{limit:.4g}",
                do="raise it, or shorten the run: fewer epochs, fewer rows, --max-steps, --lora-r, a smaller model")
        if likely.expected > limit:
            doubtful.append(name)
    return doubtful
