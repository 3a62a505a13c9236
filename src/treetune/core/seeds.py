"""The one maker of random generators. Order is a function of (seed, stream), never of global state."""

from __future__ import annotations

import hashlib

import numpy as np


def seed_of(seed: int, *stream: str | int) -> int:
    """A 63-bit seed for one named stream of randomness, e.g. ``seed_of(0, "order", epoch)``."""
    text = "\x1f".join([str(seed), *map(str, stream)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *stream: str | int) -> np.random.Generator:
    """A numpy generator for one named stream (Philox: counter-based, equal on every machine)."""
    return np.random.Generator(np.random.Philox(seed_of(seed, *stream)))
