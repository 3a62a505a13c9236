"""Does the training data cover an input: near rows, shared spans, what an answer copies, test rows seen in training.

The model can be relied on for the kinds of text it was tuned on; these numbers say how near an input is to them. They
say nothing of whether the answer is right.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from treetune.explain.suspects import unit_rows
from treetune.explain.traces import Floats
from treetune.explain.words import UNIT

SPAN = 8  # units from which on a shared span is called copied; 13 of GPT-3's appendix C suit long web pages
NEIGHBOURS = 5


def units(text: str) -> list[str]:
    """Words and Chinese characters, case folded."""
    return [match.group().casefold() for match in UNIT.finditer(text)]


@dataclass(frozen=True, slots=True)
class Shared:
    """What a text has in common with the training rows.

    Attributes:
        known: share of its units that stand somewhere in them. pairs: the same of pairs of neighbours.
        longest: units of the longest span that stands in a row as it is. row: that row, -1 without. span: its text.
    """

    known: float
    pairs: float
    longest: int
    row: int
    span: str


class SpanIndex:
    """Every unit, pair and span of ``SPAN`` units of the training rows."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.rows = [units(text) for text in texts]
        self.words = {unit for row in self.rows for unit in row}
        self.pairs = {pair for row in self.rows for pair in pairwise(row)}
        self.places: dict[int, list[tuple[int, int]]] = {}
        for number, row in enumerate(self.rows):
            for start in range(len(row) - SPAN + 1):
                self.places.setdefault(hash(tuple(row[start : start + SPAN])), []).append((number, start))

    def shared(self, text: str) -> Shared:
        """What ``text`` shares; spans shorter than ``SPAN`` units count as none."""
        own = units(text)
        pairs = list(pairwise(own))
        best, row, start = 0, -1, 0
        at = 0
        while at + SPAN <= len(own):
            found, number = self._longest_from(own, at)
            if found > best:
                best, row, start = found, number, at
            at += max(1, found - SPAN + 1)
        return Shared(
            _share(unit in self.words for unit in own), _share(pair in self.pairs for pair in pairs), best, row,
            _text_of(text, start, start + best) if best else "",
        )

    def _longest_from(self, own: list[str], at: int) -> tuple[int, int]:
        best, row = 0, -1
        for number, start in self.places.get(hash(tuple(own[at : at + SPAN])), ()):
            other = self.rows[number]
            length = 0
            while at + length < len(own) and start + length < len(other) and own[at + length] == other[start + length]:
                length += 1
            if length >= SPAN and length > best:
                best, row = length, number
        return best, row

    def copied_share(self, text: str) -> float:
        """Share of the text's units that stand in a span it has in common with a training row."""
        own = units(text)
        inside = np.zeros(len(own), dtype=bool)
        for at in range(len(own) - SPAN + 1):
            if not inside[at : at + SPAN].all() and self._longest_from(own, at)[0]:
                inside[at : at + self._longest_from(own, at)[0]] = True
        return float(inside.mean()) if len(own) else 0.0


def _share(found: Iterable[bool]) -> float:
    values = list(found)
    return sum(values) / len(values) if values else 0.0


def _text_of(text: str, first: int, last: int) -> str:
    matches = list(UNIT.finditer(text))
    return text[matches[first].start() : matches[last - 1].end()]


def density_ranks(states: Floats, asked: Floats) -> Floats:
    """(M,) share of the training rows that lie as far from their own neighbours as each row asked about, or farther.

    1: the input lies where training rows are thick; 0: farther out than any of them. Distance is that to the fifth
    nearest row, cosine of centred states; a training row is not its own neighbour.
    """
    centre = states.mean(0)
    known, new = unit_rows(states - centre), unit_rows(asked - centre)
    count = min(NEIGHBOURS, len(known) - 1)
    own = np.zeros(len(known), dtype=np.float32)
    for start in range(0, len(known), 512):
        alike = known[start : start + 512] @ known.T
        alike[np.arange(len(alike)), np.arange(start, start + len(alike))] = -np.inf
        own[start : start + len(alike)] = 1 - np.partition(alike, -count, axis=1)[:, -count]
    alike = new @ known.T
    distance = 1 - np.partition(alike, -count, axis=1)[:, -count]
    # the same row again is as near as can be: equal to the last digit is equal
    return np.array([(own >= each - 1e-6).mean() for each in distance], dtype=np.float32)
