"""Gaps between groups of rows: quality, calibration, acceptance, errors among accepted, recall of each label.

A group is compared with all other rows of its column; of two groups the comparison is one test, not two. A gap says
that the model serves these rows worse. It does not say why: the rows of one group may be harder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from treetune.audit.measured import MIN_ROWS, Measured, What, difference_of_means
from treetune.audit.testing import compare_groups, mean_interval, two_sample_rows
from treetune.core.errors import UsageError
from treetune.core.records import FloatArray, Row
from treetune.core.seeds import seed_of
from treetune.data.columns import nearest_name
from treetune.metrics.interval import Clusters
from treetune.metrics.selective import BoolArray

MAX_VALUES = 12  # a column of numbers with more different values is cut into quarters
MAX_SHOWN = 30


@dataclass(frozen=True, slots=True)
class RowValues:
    """One measure, one number a row. ``where``: (N,) rows that it is defined on; quality of a wrong answer is 0."""

    name: str
    values: FloatArray
    where: BoolArray


@dataclass(frozen=True, slots=True)
class Gaps:
    """Tests of one column's groups; ``levels``: value of each group and measure with its interval and rows.

    Attributes:
        too_small: (group, measure, rows) that were not tested. missing: rows without a value in the column.
    """

    column: str
    tests: tuple[Measured, ...]
    levels: tuple[dict[str, Any], ...]
    too_small: tuple[tuple[str, str, int], ...]
    missing: int


def groups_in(column: str, rows: Sequence[Row], renamed: Mapping[str, str], where: str) -> list[str]:
    """The group of each row by a column of the file, under the file's own name or ours; "" where it has no value.

    Numbers with more than ``MAX_VALUES`` different values are cut into quarters.

    Raises:
        UsageError: E2710 when no row has the column, with the nearest name there is.
    """
    theirs = {ours: name for name, ours in renamed.items()}
    present = list(dict.fromkeys(theirs.get(name, name) for row in rows for name in row.values))
    name = renamed.get(column, column)
    if not any(name in row.values for row in rows):
        near = nearest_name([column], present)
        raise UsageError("E2710", "there is no column {column!r} to group the rows by", column=column, where=where,
                         found=", ".join(present[:MAX_SHOWN]), near=near,
                         do="write --by {near}" if near else "name a column of the file")
    return quartered([_as_text(row.values.get(name)) for row in rows])


def _as_text(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    return " ".join(str(value).split())


def quartered(texts: list[str]) -> list[str]:
    """The texts, or, if they are many different numbers, the quarter each belongs to as ``from … to``."""
    given = [text for text in texts if text]
    if len(set(given)) <= MAX_VALUES:
        return texts
    try:
        numbers = np.array([float(text) for text in given])
    except ValueError:
        return texts
    if not np.isfinite(numbers).all():
        return texts
    edges = np.quantile(numbers, [0.25, 0.5, 0.75])
    quarter = np.searchsorted(edges, numbers, side="left")
    ends = {place: numbers[quarter == place] for place in range(4)}
    names = {place: f"{part.min():g} … {part.max():g}" for place, part in ends.items() if len(part)}
    named = iter(names[int(place)] for place in quarter)
    return [next(named) if text else "" for text in texts]


def row_measures(
    quality: FloatArray, confidence: FloatArray, wrong: BoolArray | None, accepted: BoolArray | None,
    expected: Sequence[str] = (), answers: Sequence[str] = (), labels: Sequence[str] = (),
) -> list[RowValues]:
    """What is measured of each row.

    Args:
        quality: (N,) the task's first metric of each answer. confidence: (N,) 0-1, NaN where unknown.
        wrong: (N,) by the definition in force, None where there is none. accepted: (N,) by the gate, None without.
        expected, answers: (N,) labels, for label tasks.

    Returns:
        ``quality``; ``calibration`` (confidence minus right: above 0 is too sure); ``acceptance``; ``accepted_error``;
        ``recall:<label>``. Those that cannot be known are left out.
    """
    everywhere = np.ones(len(quality), dtype=bool)
    found = [RowValues("quality", quality, everywhere)]
    if wrong is not None:
        known = np.isfinite(confidence)
        found.append(RowValues("calibration", np.where(known, confidence, 0.0) - ~wrong, known))
    if accepted is not None:
        found.append(RowValues("acceptance", accepted.astype(np.float64), everywhere))
        if wrong is not None and accepted.any():
            found.append(RowValues("accepted_error", wrong.astype(np.float64), accepted))
    for label in labels:
        mine = np.array([each == label for each in expected])
        said = np.array([each == label for each in answers], dtype=np.float64)
        if mine.any():
            found.append(RowValues(f"recall:{label}", said, mine))
    return found


def measure_gaps(
    column: str, groups: Sequence[str], measures: Sequence[RowValues], cluster: Clusters | None, *, seed: int = 0,
    min_rows: int = MIN_ROWS,
) -> Gaps:
    """Every group of a column against the others, in every measure that both sides have ``min_rows`` rows for."""
    names = np.array(groups)
    given = np.array([bool(each) for each in groups], dtype=bool)
    order = [name for name, _ in Counter(each for each in groups if each).most_common()]
    tests: list[Measured] = []
    levels: list[dict[str, Any]] = []
    too_small: list[tuple[str, str, int]] = []
    for measure in measures:
        usable = measure.where & given
        sizes = {name: int((usable & (names == name)).sum()) for name in order}
        large = [name for name in order if sizes[name] >= min_rows]
        too_small += [(name, measure.name, sizes[name]) for name in order if sizes[name] < min_rows]
        levels += [_level(name, measure, usable & (names == name), seed) for name in order if sizes[name]]
        for name in _compared(large, sizes, min_rows):
            against = large[1] if len(order) == 2 else "others"
            tests.append(_gap(What("gap", measure.name, column, name, against), measure, usable,
                              names == name, cluster, seed))
    return Gaps(column, tuple(tests), tuple(levels), tuple(too_small), int((~given).sum()))


def _compared(large: list[str], sizes: Mapping[str, int], min_rows: int) -> list[str]:
    """Groups to test: of two groups the first, else all whose rest is large enough as well."""
    total = sum(sizes.values())
    if len(sizes) == 2:
        return large[:1] if len(large) == 2 else []
    return [name for name in large if total - sizes[name] >= min_rows]


def _level(group: str, measure: RowValues, where: BoolArray, seed: int) -> dict[str, Any]:
    interval = mean_interval(measure.values[where], seed_of(seed, "level", group))
    return {"group": group, "measure": measure.name, "rows": int(where.sum()), **asdict(interval)}


def _gap(
    what: What, measure: RowValues, usable: BoolArray, named: BoolArray, cluster: Clusters | None, seed: int
) -> Measured:
    values, inside = measure.values[usable], named[usable]
    near = None if cluster is None else [cluster[place] for place in np.flatnonzero(usable).tolist()]
    result = compare_groups(values, inside, near, seed_of(seed, what.attribute, what.group, what.measure))
    group = (usable & named).astype(np.float64)
    rest = (usable & ~named).astype(np.float64)
    rows = two_sample_rows(measure.values, named) * (group + rest)[:, None]  # all rows: two runs can be paired
    means = {"group": float(values[inside].mean()), "against": float(values[~inside].mean())}
    return Measured(what, result.interval, (int(inside.sum()), int((~inside).sum())), result.p_value, result.error,
                    rows, difference_of_means, result.correction, result.shares, cluster, means, result.freedom)


