"""The user's own rows with one group's words exchanged for another's: ``she`` for ``he``, 女儿 for 儿子.

English by whole words, case kept, ``her`` by what follows it; Chinese by string, longest first, leaving alone words
that only look like a pronoun (其他, 吉他). The lists are in ``templates/``. A swap can spoil a sentence (a proper name,
a film about one woman); the counts say on how many rows a number stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from treetune.audit.cases import LANGUAGES, words
from treetune.audit.measured import MIN_ROWS, Measured, What, mean_or_nan
from treetune.audit.testing import mean_interval, sign_test
from treetune.core.records import FloatArray, Row
from treetune.core.seeds import seed_of
from treetune.metrics.interval import Clusters, bootstrap, unit_sums

COLUMNS = {"sentiment": ("text",), "question_answering": ("context", "question", "answers")}


@dataclass(frozen=True, slots=True)
class Swap:
    """Words of one group and what they become in the other, both ways.

    Attributes:
        name: attribute. groups: (one, other). mapping: lower-case word -> (replacement, 0 or 1: whose word it was).
        pattern: finds the words and those to be left alone.
    """

    language: str
    name: str
    groups: tuple[str, str]
    mapping: Mapping[str, tuple[str, int]]
    pattern: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Swapped:
    """A row with its words exchanged; ``side``: 1 if all were of the first group, -1 of the second, 0 of both."""

    place: int
    row: Row
    side: int


def swaps_of(language: str) -> list[Swap]:
    """All lists of a language; [] for one without."""
    if language not in LANGUAGES:
        return []
    known = words(language)
    return [_swap(language, entry, known.get("keep", ())) for entry in known["swaps"]]


def _swap(language: str, entry: Mapping[str, Any], keep: Sequence[str]) -> Swap:
    mapping: dict[str, tuple[str, int]] = {}
    for one, other in entry["terms"]:
        mapping.setdefault(one, (other, 0))
        mapping.setdefault(other, (one, 1))
    longest = sorted([*keep, *mapping], key=lambda term: -len(term))
    found = "|".join(map(re.escape, longest))
    pattern = re.compile(rf"\b(?:{found})\b", re.IGNORECASE) if language == "en" else re.compile(found)
    return Swap(language, entry["name"], tuple(entry["groups"]), mapping, pattern)


def swap_text(text: str, swap: Swap) -> tuple[str, list[int]]:
    """The text with the words exchanged, and whose words they were, in order."""
    sides: list[int] = []

    def exchange(match: re.Match[str]) -> str:
        word = match[0]
        found = swap.mapping.get(word.lower())
        if found is None:
            return word  # one that only looks like it
        sides.append(found[1])
        return like(word, _english(word.lower(), text[match.end() :], found[0]))

    return swap.pattern.sub(exchange, text), sides


def _english(word: str, after: str, usual: str) -> str:
    """``her`` is his or him, ``his`` is her or hers: the next word says whether it is owned (told her *to* go)."""
    if word not in ("her", "his"):
        return usual
    following = re.match(r"\s+([A-Za-z]+)", after)
    owns = following is not None and following[1].lower() not in words("en")["after_object"]
    if word == "her":
        return "his" if owns else "him"
    return "her" if owns else "hers"


def like(word: str, replacement: str) -> str:
    """The replacement in the word's case."""
    if word.isupper() and len(word) > 1:
        return replacement.upper()
    return replacement[:1].upper() + replacement[1:] if word[:1].isupper() else replacement


def swapped_rows(task: str, rows: Sequence[Row], swap: Swap) -> Iterator[Swapped]:
    """Those rows in which a word of the list stands, exchanged in every text column of the task."""
    columns = COLUMNS.get(task, ())
    for place, row in enumerate(rows):
        values, sides = dict(row.values), []
        for column in columns:
            cell, found = _swap_cell(values.get(column), swap)
            values[column] = cell
            sides += found if column != "answers" else []
        if sides:
            values.pop("answer_start", None)  # the exchange moves the text
            side = 0 if len(set(sides)) == 2 else 1 if sides[0] == 0 else -1
            yield Swapped(place, replace(row, values=values), side)


def _swap_cell(cell: Any, swap: Swap) -> tuple[Any, list[int]]:
    if isinstance(cell, str):
        return swap_text(cell, swap)
    if isinstance(cell, list | tuple):
        done = [_swap_cell(each, swap) for each in cell]
        return [each for each, _ in done], [side for _, sides in done for side in sides]
    return cell, []


def measure_swaps(
    swap: Swap, sides: Sequence[int], before: FloatArray, after: FloatArray, changed: Sequence[bool], measure: str,
    cluster: Clusters | None, *, seed: int = 0,
) -> list[Measured]:
    """Flip rate over all swapped rows, and the mean difference of first and second group's version of a row.

    Args:
        sides: (N,) as in `Swapped`; a row of both groups has no direction and counts for the flip rate only.
        before, after: (N,) the number of the row as it was, and swapped. changed: (N,) whether the answer did.
    """
    stream = seed_of(seed, swap.language, swap.name, *swap.groups)
    identity = {"attribute": swap.name, "group": swap.groups[0], "against": swap.groups[1], "language": swap.language}
    flipped = np.stack([np.array(changed, dtype=np.float64), np.ones(len(changed))], axis=1)
    sided = np.array(sides, dtype=np.float64)
    where = sided != 0
    rate = (mean_interval(flipped[:, 0], stream) if cluster is None or flipped[:, 0].mean() in (0.0, 1.0)
            else bootstrap(flipped, mean_or_nan, seed=stream, cluster=cluster))
    found = [Measured(What("swap", "changed", **identity), rate, (len(flipped), int(where.sum())), None, 0.0, flipped,
                      mean_or_nan, cluster=cluster)]
    if where.sum() < MIN_ROWS:
        return found
    rows = np.stack([(before - after) * sided, where.astype(np.float64)], axis=1)
    near = None if cluster is None else [cluster[place] for place in np.flatnonzero(where).tolist()]
    units = unit_sums(rows[where], near)
    interval = bootstrap(rows[where], mean_or_nan, seed=stream, cluster=near)
    error = float(np.sqrt((units[:, 0] ** 2).sum()) / units[:, 1].sum())
    found.append(Measured(What("swap", measure, **identity), interval, (len(units), int(where.sum())),
                          sign_test(units[:, 0], stream), error, rows, mean_or_nan, cluster=cluster,
                          freedom=max(1.0, len(units) - 1.0)))
    return found
