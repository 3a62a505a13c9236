"""From the first steps of a run to its whole time: measurement takes the place of priors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from treetune.plan.duration import Duration
from treetune.plan.quantity import Range
from treetune.plan.workload import Workload

PROBE_STEPS = 20
FORWARD_SHARE = 1 / 3
"""A forward pass without gradients, as a share of a training pass: one product of three."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step as it was seen: seconds from its first pass to the next step, tokens computed, passes."""

    seconds: float
    tokens: int
    passes: int = 1


@dataclass(slots=True)
class Seen:
    """What a run has shown so far. ``elapsed``: seconds since its start. Seconds of evaluations and saves."""

    elapsed: float = 0.0
    steps: list[Step] = field(default_factory=list)
    evaluations: list[float] = field(default_factory=list)
    saves: list[float] = field(default_factory=list)


def seconds_a_token(steps: Sequence[Step]) -> tuple[float, float]:
    """(seconds a computed token, relative standard error); the first step, which warms up, is left out where it can be.

    Slow moments of a busy machine are part of the time and stay in: sum over sum, not a median.
    """
    used = list(steps[1:]) if len(steps) > 2 else list(steps)
    tokens, seconds = sum(step.tokens for step in used), sum(step.seconds for step in used)
    if not tokens:
        return 0.0, 1.0
    rate = seconds / tokens
    spread = sum((step.seconds - rate * step.tokens) ** 2 for step in used) / max(1, len(used) - 1)
    return rate, math.sqrt(spread * len(used)) / seconds


def measured_duration(before: Duration, seen: Seen, work: Workload) -> Duration:
    """The whole run's time once some steps are seen.

    Args:
        before: the plan from priors, whose figures stand for what was not seen yet (saving).
    """
    rate, error = seconds_a_token(seen.steps)
    done_tokens, done_steps = sum(step.tokens for step in seen.steps), len(seen.steps)
    left_share = max(0.0, 1 - done_steps / work.steps)
    left_tokens = max(0.0, work.tokens - done_tokens) if left_share else 0.0
    one = _mean(seen.evaluations, work.evaluation_tokens * rate * FORWARD_SHARE)
    save = _mean(seen.saves, before.parts["saving"] / max(1, work.saves))
    parts = {
        "seen": seen.elapsed, "training": left_tokens * rate,
        "evaluation": one * max(0, work.evaluations - len(seen.evaluations)),
        "saving": save * max(0, work.saves - len(seen.saves)),
    }
    total = sum(parts.values())
    doubt = 2 * error * parts["training"]
    doubt += (0.05 if seen.evaluations else 0.3) * parts["evaluation"] + 0.5 * parts["saving"] + 0.02 * total
    return Duration(parts, Range(max(seen.elapsed, total - doubt), total, total + doubt),
                    seen.elapsed / total if total else 1.0, "probe")


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
