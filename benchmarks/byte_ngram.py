"""A language model of bytes that only counts: interpolated Kneser-Ney with three discounts per order.

Source: Chen and Goodman 1998, "An empirical study of smoothing techniques for language modeling", section 3.4
(modified Kneser-Ney); the alphabet is the 256 bytes, below order 0 stands the uniform distribution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
Reals = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]
MOST_ORDER = 7  # context and symbol fit one 64-bit key


@dataclass(frozen=True, slots=True)
class Level:
    """One order. ``keys`` (n,): context and symbol, sorted; ``counts`` (n,): each one's count less its discount.

    ``contexts`` (m,): sorted; ``totals`` (m,): their counts; ``masses`` (m,): what the discounts took from them.
    """

    keys: Keys
    counts: Reals
    contexts: Keys
    totals: Reals
    masses: Reals


class ByteNgram:
    """Probabilities of the next byte given at most ``order`` bytes before it."""

    def __init__(self, text: bytes, order: int = 5) -> None:
        """Count ``text`` (longer than ``order`` bytes). Time: one sort of as many keys as there are bytes."""
        if not 0 <= order <= MOST_ORDER or len(text) <= order:
            raise ValueError(f"order 0 to {MOST_ORDER} and a longer text, not order {order} and {len(text)} bytes")
        keys, counts = np.unique(windows(np.frombuffer(text, np.uint8), order + 1), return_counts=True)
        levels = [level_of(keys, counts)]
        for length in range(order, 0, -1):  # a shorter context counts in how many longer ones it goes on: not how often
            keys, counts = np.unique(keys & np.uint64(256**length - 1), return_counts=True)
            levels.append(level_of(keys, counts))
        self.levels = levels[::-1]

    def probabilities(self, text: bytes, places: npt.NDArray[np.int64] | None = None) -> Reals:
        """(len(text),): probability of each byte given those before it.

        ``places`` (len(text),): how many bytes before it belong to the same block; without it, all of them.
        """
        data = np.frombuffer(text, np.uint8)
        known = np.arange(len(data)) if places is None else places
        result = np.full(len(data), 1 / 256)
        for order, level in enumerate(self.levels):
            if len(data) <= order:
                break
            keys = windows(data, order + 1)
            ends = np.arange(order, len(data))
            usable = known[order:] >= order
            result[ends[usable]] = refined(level, keys[usable], result[ends[usable]])
        return result


def windows(data: Bytes, length: int) -> Keys:
    """(len(data) - length + 1,): each window of ``length`` bytes as one number, its first byte the highest."""
    count = len(data) - length + 1
    keys = np.zeros(count, np.uint64)
    for place in range(length):
        keys = (keys << np.uint64(8)) | data[place : place + count].astype(np.uint64)
    return keys


def level_of(keys: Keys, counts: npt.NDArray[np.int64]) -> Level:
    """Counts of one order, discounted, and their sums by context."""
    discounts = discounts_of(counts)[np.minimum(counts, 3)]
    contexts, starts = np.unique(keys >> np.uint64(8), return_index=True)
    return Level(keys, counts - discounts, contexts, np.add.reduceat(counts, starts).astype(np.float64),
                 np.add.reduceat(discounts, starts))


def discounts_of(counts: npt.NDArray[np.int64]) -> Reals:
    """(4,): what is taken from a count of 0, 1, 2, 3 and more; a half where too few counts tell."""
    seen = [int((counts == number).sum()) for number in range(1, 5)]
    if 0 in seen:
        return np.array([0.0, 0.5, 0.5, 0.5])
    share = seen[0] / (seen[0] + 2 * seen[1])
    found = [number - (number + 1) * share * seen[number] / seen[number - 1] for number in (1, 2, 3)]
    return np.array([0.0, *np.clip(found, 0.01, [0.99, 1.99, 2.99])])


def refined(level: Level, keys: Keys, lower: Reals) -> Reals:
    """The probabilities of one order, given those of the order below; unseen contexts leave them as they are."""
    context = keys >> np.uint64(8)
    place = np.minimum(np.searchsorted(level.contexts, context), len(level.contexts) - 1)
    seen = level.contexts[place] == context
    entry = np.minimum(np.searchsorted(level.keys, keys), len(level.keys) - 1)
    count = np.where(level.keys[entry] == keys, level.counts[entry], 0.0)
    return np.where(seen, (count + level.masses[place] * lower) / level.totals[place], lower)
