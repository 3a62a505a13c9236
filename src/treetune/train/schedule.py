"""The learning rate of a step."""

from __future__ import annotations

import math


def learning_rate(step: int, total: int, peak: float, warmup_ratio: float, kind: str) -> float:
    """Learning rate of 0-based ``step`` out of ``total``.

    Linear warm-up over ``ceil(warmup_ratio * total)`` steps that ends at ``peak``, then ``linear`` or ``cosine``
    decay that would reach 0 one step after the last, or ``constant``.
    """
    warmup = math.ceil(warmup_ratio * total)
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    if kind == "linear":
        return peak * (1 - done)
    if kind == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * done))
    return peak
