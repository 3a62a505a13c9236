"""The longest span of each sample that stands unchanged in a large text.

Windows are compared by 64-bit polynomial hashes, one length after another: a window of L + 1 can only stand in the
text where its first L do, so both sides shrink from length to length. What is found is compared symbol by symbol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Symbols = npt.NDArray[np.uint32]
Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]
FACTOR = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
INVERSE = pow(FACTOR, -1, 2**64)
TABLE_BITS = 24
CHUNK = 4_000_000


@dataclass(frozen=True, slots=True)
class Span:
    """``length`` symbols from ``start`` of a sample, which are also those from ``place`` of the text."""

    length: int = 0
    start: int = 0
    place: int = 0


def characters(text: str) -> Symbols:
    """(len(text),): code points."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def longest_spans(samples: Sequence[Symbols], text: Symbols, first_lengths: Sequence[int] = (12, 4, 1)) -> list[Span]:
    """The longest span of each sample; length 0 where not one symbol of it stands in the text.

    ``first_lengths``: the search starts with windows of the first of them; samples without any go on to the next one,
    which must end at 1. Long windows first, as nearly every short one stands somewhere in a large text.
    """
    found = [Span()] * len(samples)
    rest = [number for number, sample in enumerate(samples) if len(sample)]
    side = Hashed(text)
    for first in first_lengths:
        for number, span in zip(rest, _spans([samples[number] for number in rest], side, first), strict=True):
            found[number] = span
        rest = [number for number in rest if not found[number].length]
    for sample, span in zip(samples, found, strict=True):
        if not np.array_equal(sample[span.start : span.start + span.length],
                              text[span.place : span.place + span.length]):
            raise AssertionError(f"two spans share a hash: {span}")
    return found


class Hashed:
    """Symbols with the hash of any window at hand, in chunks so that powers stay short."""

    def __init__(self, symbols: Symbols) -> None:
        self.size = len(symbols)
        mixed = symbols.astype(np.uint64) + np.uint64(1)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(29)
        self.sums = np.zeros(self.size + 1, np.uint64)
        np.cumsum(mixed * _powers(FACTOR, self.size), out=self.sums[1:])
        self.inverses = _powers(INVERSE, self.size)

    def windows(self, starts: Places, length: int) -> Hashes:
        """(len(starts),): hashes of the windows of ``length`` symbols."""
        return (self.sums[starts + length] - self.sums[starts]) * self.inverses[starts]


def _powers(base: int, count: int) -> Hashes:
    steps = np.full(count, base, np.uint64)
    if count:
        steps[0] = 1
    return np.cumprod(steps)


def _spans(samples: Sequence[Symbols], text: Hashed, length: int) -> list[Span]:
    """The longest span of at least ``length`` of each sample."""
    found = [Span()] * len(samples)
    if not samples:
        return found
    joined = Hashed(np.concatenate(samples))
    sizes = np.array([len(sample) for sample in samples])
    owner = np.repeat(np.arange(len(samples)), sizes)
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    left = np.repeat(first + sizes, sizes) - np.arange(joined.size)  # symbols from here to the end of the sample
    starts = np.arange(joined.size)
    places: Places | None = None
    while len(starts):
        starts = starts[left[starts] >= length]
        hashes, which = np.unique(joined.windows(starts, length), return_inverse=True)
        places, hit = _standing(text, places, length, hashes)
        kept = hit[which] >= 0
        starts, which = starts[kept], which[kept]
        for number, start, place in zip(owner[starts], starts, hit[which], strict=True):
            if found[number].length < length:
                found[number] = Span(length, int(start - first[number]), int(place))
        length += 1
    return found


def _standing(text: Hashed, places: Places | None, length: int, hashes: Hashes) -> tuple[Places, Places]:
    """(places of the text that hold a window of ``hashes`` (n,), for each hash one of them or -1).

    ``places``: those to look at; None means all.
    """
    hit = np.full(len(hashes), -1, np.int64)
    if not len(hashes):
        return np.zeros(0, np.int64), hit
    shift = np.uint64(64 - TABLE_BITS)
    table = np.zeros(2**TABLE_BITS, bool)
    table[hashes >> shift] = True
    count = text.size if places is None else len(places)
    kept = [np.zeros(0, np.int64)]
    for begin in range(0, count, CHUNK):
        stop = min(begin + CHUNK, count)
        part = np.arange(begin, stop) if places is None else places[begin:stop]
        part = part[part + length <= text.size]
        found = text.windows(part, length)
        maybe = table[found >> shift]
        part, found = part[maybe], found[maybe]
        entry = np.minimum(np.searchsorted(hashes, found), len(hashes) - 1)
        same = hashes[entry] == found
        hit[entry[same]] = part[same]
        kept.append(part[same])
    return np.concatenate(kept), hit
