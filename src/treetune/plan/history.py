"""What past runs teach a plan: how far plans of like runs were off, applied to the next one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from treetune.plan.quantity import Range

Account = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Lesson:
    """Factors on a plan's expectation. ``runs``: how many it was learnt from."""

    time: Range
    memory: Range
    runs: int


def learn(accounts: Sequence[Account], kind: str, width: int, lora: bool, machine: str) -> Lesson | None:
    """The factors of the most alike runs; None where there are none on this machine.

    Alike: same processor; then, as far as there are any, same kind of model; same use of adapters; width within a
    factor of two.
    """
    near = [each for each in accounts if each.get("machine", {}).get("processor") == machine and _factors(each)]
    tests = (
        lambda one: one["model"]["kind"] == kind,
        lambda one: bool(one["model"]["lora_r"]) == lora,
        lambda one: 0.5 <= one["model"]["width"] / width <= 2,
    )
    for test in tests:
        near = [each for each in near if test(each)] or near
    if not near:
        return None
    found = [pair for each in near if (pair := _factors(each))]
    return Lesson(_middle([pair[0] for pair in found]), _middle([pair[1] for pair in found]), len(near))


def _factors(account: Account) -> tuple[float, float] | None:
    """(actual by planned seconds, actual by planned peak bytes); None where the account lacks one."""
    try:
        actual, planned = account["actual"], account["planned"]
        pair = (actual["seconds"] / planned["seconds"]["expected"],
                actual["peak_bytes"] / planned["peak_bytes"]["expected"])
    except (KeyError, TypeError, ZeroDivisionError):
        return None
    return pair if all(math.isfinite(each) and each > 0 for each in pair) else None


def _middle(factors: Sequence[float]) -> Range:
    """Median with the outermost factors; one run alone is given a quarter of doubt on each side."""
    ordered = sorted(factors)
    half = len(ordered) // 2
    middle = ordered[half] if len(ordered) % 2 else math.sqrt(ordered[half - 1] * ordered[half])
    if len(ordered) < 3:
        return Range(min(ordered[0], middle * 0.8), middle, max(ordered[-1], middle * 1.25))
    return Range(ordered[0], middle, ordered[-1])
