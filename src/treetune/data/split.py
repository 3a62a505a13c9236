"""Splitting rows so that what belongs together stays together, and finding rows that stand twice."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from treetune.core.errors import DataError, UsageError
from treetune.core.records import Row
from treetune.core.seeds import seed_of

MAX_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Overlap:
    """Rows that say the same as an earlier one.

    Attributes:
        count: how many of the later rows.
        examples: the first three, each (id of the earlier, id of the later).
    """

    count: int
    examples: tuple[tuple[str, str], ...]


def split_off(
    rows: Sequence[Row], share: float, seed: int, group_of: Callable[[Row], str], *, name: str = "validation"
) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """(rows kept, rows split off), in their old order; the second get ``split=name`` and keep their numbers.

    Groups are taken in the order of a hash of (seed, group) until the share of the rows is reached, so the
    result does not depend on the order of the rows, and adding rows moves few of the others. A group that
    would exceed the share is passed over; if every group would, the smallest is taken.

    Args:
        share: share of the rows, above 0 and below 1, that is split off. seed: of the hash.
        group_of: rows with the same key stay on the same side, e.g. the document they are about.

    Raises:
        UsageError: E1131 a share out of bounds. DataError: E1130 fewer than two groups.
    """
    if not 0 < share < 1:
        raise UsageError("E1131", "the share to split off is out of bounds", where="--validation-share",
                         found=str(share), allowed="0 < share < 1", do="choose a share such as 0.1")
    keys = [group_of(row) for row in rows]
    sizes = Counter(keys)
    if len(sizes) < 2:
        raise DataError("E1130", "the rows cannot be split: all belong to one group",
                        where=rows[0].file if rows else "", found=f"{len(rows)} rows",
                        allowed="at least 2 groups", do="give a second file with --validation-data")
    order = sorted(sizes, key=lambda key: (seed_of(seed, "split", key), key))
    target, taken, chosen = max(1, round(share * len(rows))), 0, set[str]()
    for key in order:
        if taken + sizes[key] <= target and len(chosen) < len(sizes) - 1:
            chosen.add(key)
            taken += sizes[key]
    chosen = chosen or {min(order, key=lambda key: sizes[key])}
    kept = tuple(row for row, key in zip(rows, keys, strict=True) if key not in chosen)
    off = tuple(replace(row, split=name) for row, key in zip(rows, keys, strict=True) if key in chosen)
    return kept, off


def group_by(columns: Sequence[str]) -> Callable[[Row], str]:
    """A ``group_of`` for `split_off`: rows with the same text in these columns (as `same_text` sees it)."""
    return lambda row: "\x1f".join(same_text(row.values.get(column)) for column in columns)


def same_text(value: Any) -> str:
    """The cell as it is compared: NFKC, lower case, white space squeezed; a list as its entries in a line."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return "\x1e".join(same_text(part) for part in value)
    return " ".join(unicodedata.normalize("NFKC", str(value)).lower().split())


def _keys(rows: Sequence[Row], columns: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(same_text(row.values.get(column)) for column in columns) for row in rows]


def duplicates(rows: Sequence[Row], columns: Sequence[str]) -> Overlap:
    """Rows whose columns say the same as those of an earlier row; rows empty in all of them do not count."""
    first: dict[tuple[str, ...], str] = {}
    hits = []
    for row, key in zip(rows, _keys(rows, columns), strict=True):
        if key in first:
            hits.append((first[key], row.id))
        elif any(key):
            first[key] = row.id
    return Overlap(len(hits), tuple(hits[:MAX_EXAMPLES]))


def leakage(rows_a: Sequence[Row], rows_b: Sequence[Row], columns: Sequence[str]) -> Overlap:
    """Rows of ``rows_b`` whose columns say the same as those of a row of ``rows_a``."""
    known = {key: row.id for row, key in reversed(list(zip(rows_a, _keys(rows_a, columns), strict=True)))}
    hits = [
        (known[key], row.id) for row, key in zip(rows_b, _keys(rows_b, columns), strict=True)
        if key in known and any(key)
    ]
    return Overlap(len(hits), tuple(hits[:MAX_EXAMPLES]))
