"""Predictions with the verdict on each, and how they are dealt to the two sides that set a gate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from treetune.core.errors import DataError
from treetune.core.records import Prediction, Reason
from treetune.core.seeds import seed_of
from treetune.metrics.selective import BoolArray

TUNE_SHARE = 0.4


@dataclass(frozen=True, slots=True)
class Judged:
    """Predictions with the verdict on each. N of all.

    Attributes:
        wrong: (N,). groups: rows of one group share a source and may err together. truths: right labels, "" elsewhere.
        findings: what the checks found in each answer, () without checks. parts: the value each row has in the column
            that guarantees are given by, () without one.
    """

    predictions: tuple[Prediction, ...]
    wrong: BoolArray
    groups: tuple[str, ...]
    truths: tuple[str, ...]
    findings: tuple[tuple[Reason, ...], ...] = ()
    parts: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.predictions)

    def take(self, places: Sequence[int]) -> Judged:
        """These rows, in this order."""
        return Judged(tuple(self.predictions[place] for place in places), self.wrong[list(places)],
                      tuple(self.groups[place] for place in places), tuple(self.truths[place] for place in places),
                      tuple(self.findings[place] for place in places) if self.findings else (),
                      tuple(self.parts[place] for place in places) if self.parts else ())

    def stopped(self, checks: Iterable[str]) -> BoolArray:
        """(N,) whether one of the ``checks`` found something."""
        named = frozenset(checks)
        return np.array([any(each.code in named for each in own) for own in self.findings or ((),) * len(self)],
                        dtype=bool)


def joined(parts: Sequence[Judged]) -> Judged:
    """One after the other."""
    with_parts = any(each.parts for each in parts)
    return Judged(
        tuple(own for each in parts for own in each.predictions), np.concatenate([each.wrong for each in parts]),
        tuple(own for each in parts for own in each.groups), tuple(own for each in parts for own in each.truths),
        tuple(own for each in parts for own in each.findings or ((),) * len(each)),
        tuple(own for each in parts for own in each.parts or ("",) * len(each)) if with_parts else (),
    )


def split_judged(judged: Judged, tune_share: float = TUNE_SHARE) -> tuple[Judged, Judged]:
    """(tune, calibration): whole groups, in the order of a hash of their name, so nobody can shop for a lucky split.

    Raises:
        DataError: E1504 when there are not two groups.
    """
    order = sorted(set(judged.groups), key=lambda group: (seed_of(0, "gate", group), group))
    if len(order) < 2:
        raise DataError("E1504", "there are too few rows to set a gate", found=f"{len(order)} different sources",
                        allowed="at least 2; some hundred for a gate that accepts anything",
                        do="give more labelled rows")
    chosen = set(order[: min(max(1, round(tune_share * len(order))), len(order) - 1)])
    places = range(len(judged))
    return (judged.take([place for place in places if judged.groups[place] in chosen]),
            judged.take([place for place in places if judged.groups[place] not in chosen]))


def one_per_group(judged: Judged) -> Judged:
    """One row of each group, drawn by a hash: exact p-values need rows that err independently of each other."""
    drawn: dict[str, tuple[int, int]] = {}
    for place, group in enumerate(judged.groups):
        lot = (seed_of(0, "draw", group, place), place)
        drawn[group] = min(drawn.get(group, lot), lot)
    return judged.take(sorted(place for _, place in drawn.values()))
