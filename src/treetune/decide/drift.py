"""Whether the rows that come in are still like those the gate was set on.

Without labels: the rank of each new row's score, and of the novelty of its text, among the calibration rows and all
new rows before it. While rows are exchangeable these ranks are independent and uniform, so a bettor against that gets
rich with a small chance only (conformal test martingale). With labels: the outcomes of a random sample of accepted
answers against the bound that was promised.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from math import isfinite, log2
from typing import Any

import numpy as np

from treetune.core.records import Example
from treetune.core.seeds import seed_of
from treetune.metrics.sequential import ChangeMartingale, confidence_sequence, first_alarm, risk_evidence

ALARM_CHANCE = 0.01
MAX_CHARACTERS = 400
MAX_PAIRS = 4000
DIGITS = 4
LOWEST = -1e9  # stands for minus infinity: an answer with a fault ranks below all others


@dataclass(frozen=True, slots=True)
class Profile:
    """How usual each pair of neighbouring characters is, in bits; learnt on the tune rows."""

    bits: Mapping[str, float]
    unknown: float

    def usualness(self, text: str) -> float:
        """Minus the mean bits a pair of the text's beginning takes: low for text unlike the tune rows'."""
        text = text[:MAX_CHARACTERS]
        if len(text) < 2:
            return 0.0
        pairs = [text[place : place + 2] for place in range(len(text) - 1)]
        return -sum(map(self.bits.get, pairs, repeat(self.unknown))) / len(pairs)


def profile_of(texts: Iterable[str]) -> Profile:
    """From the tune rows' texts; the ``MAX_PAIRS`` commonest pairs, smoothed by a half."""
    counts: Counter[str] = Counter()
    for text in texts:
        text = text[:MAX_CHARACTERS]
        counts.update(text[place : place + 2] for place in range(len(text) - 1))
    kept = counts.most_common(MAX_PAIRS)
    total = sum(counts.values()) + 0.5 * (len(kept) + 1)
    return Profile({pair: round(-log2((number + 0.5) / total), DIGITS) for pair, number in kept},
                   round(-log2(0.5 / total), DIGITS))


def text_of(example: Example) -> str:
    """What the novelty of a row is measured on."""
    return f"{example.question} {example.source[:MAX_CHARACTERS]}" if example.question else example.source


@dataclass(frozen=True, slots=True)
class Reference:
    """The calibration rows as later rows are compared with: a value by row for each thing that is watched."""

    profile: Profile
    values: Mapping[str, tuple[float, ...]]

    def as_dict(self) -> dict[str, Any]:
        return {"bits": dict(self.profile.bits), "unknown": self.profile.unknown,
                "values": {name: list(own) for name, own in self.values.items()}}

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> Reference:
        return Reference(Profile(record["bits"], record["unknown"]),
                         {name: tuple(own) for name, own in record["values"].items()})

    def values_of(self, score: float, example: Example) -> dict[str, float]:
        """What is watched of one row."""
        return {"score": round(score, 6) if isfinite(score) else LOWEST,
                "text": round(self.profile.usualness(text_of(example)), 6)}


def reference_of(
    tune: Sequence[Example], calibration: Sequence[Example], scores: Sequence[float]
) -> Reference:
    """Profile from the tune rows, values from the calibration rows, one a source."""
    empty = Reference(profile_of(map(text_of, tune)), {})
    rows = [empty.values_of(float(score), each) for score, each in zip(scores, calibration, strict=True)]
    return Reference(empty.profile, {name: tuple(row[name] for row in rows) for name in ("score", "text")})


@dataclass(slots=True)
class Watch:
    """The stream so far. ``alarm``: number of rows after which it was raised, None while it is quiet."""

    reference: Reference
    alarm_chance: float = ALARM_CHANCE
    rows: int = 0
    alarm: int | None = None
    highest: float = 1.0
    _bags: dict[str, list[float]] = field(default_factory=dict)
    _capitals: dict[str, ChangeMartingale] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._bags = {name: sorted(own) for name, own in self.reference.values.items()}
        self._capitals = {name: ChangeMartingale() for name in self._bags}

    @property
    def capital(self) -> float:
        """Mean over what is watched: still a bet against "nothing has changed"."""
        return sum(each.capital for each in self._capitals.values()) / max(1, len(self._capitals))

    @property
    def capitals(self) -> dict[str, float]:
        """By what is watched."""
        return {name: each.capital for name, each in self._capitals.items()}

    def add(self, values: Mapping[str, float], lot: str) -> float:
        """One more row.

        Args:
            lot: names the row; ties are broken by a hash of it, so that a replay gives the same numbers.
        """
        self.rows += 1
        share = (seed_of(0, "tie", lot, self.rows) + 1) / 2**63
        for name, bag in self._bags.items():
            own = values[name]
            below, upto = bisect_left(bag, own), bisect_right(bag, own)
            self._capitals[name].update((below + share * (upto - below + 1)) / (len(bag) + 1))
            insort(bag, own)
        now = self.capital
        self.highest = max(self.highest, now)
        if self.alarm is None and now >= 1 / self.alarm_chance:
            self.alarm = self.rows
        return now


@dataclass(frozen=True, slots=True)
class AuditState:
    """What the outcomes of the random sample of accepted answers say of the bound.

    Attributes:
        low, high: of their error, at every time together. alarm: audited rows after which the bound was refuted.
    """

    rows: int
    wrong: int
    low: float
    high: float
    alarm: int | None


def audit_state(wrong: Sequence[bool], max_error: float, alarm_chance: float = ALARM_CHANCE) -> AuditState:
    """Of outcomes in the order they were given."""
    verdicts = np.array(wrong, dtype=bool)
    alarm = first_alarm(risk_evidence(verdicts, max_error), alarm_chance) if len(verdicts) else None
    return AuditState(len(verdicts), int(verdicts.sum()),
                      *confidence_sequence(int(verdicts.sum()), len(verdicts), 1 - alarm_chance), alarm)
