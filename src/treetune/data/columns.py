"""Which column of the file is which of ours: the user's word first, then the exact name, then other names."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from treetune.core.errors import DataError, UsageError
from treetune.data.refusals import printable

DEFAULT_ALIASES: Mapping[str, Sequence[str]] = {"id": ("example_id", "idx", "guid", "qid")}
MAX_NAMES_SHOWN = 30


def resolve_columns(
    present: Sequence[str],
    *,
    aliases: Mapping[str, Sequence[str]],
    columns: Mapping[str, str],
    required: Collection[str] = (),
    where: str,
) -> dict[str, str]:
    """Name in the file -> our name, for every column whose name changes.

    A name is looked for in this order: ``columns`` (the user's own), exactly, under an alias, and then the
    same without regard to case, blanks and hyphens. A column of the file that stands in the way of one of our
    names is kept as ``original_<name>``.

    Args:
        present: the file's columns in order.
        aliases: our name -> other names, in order of preference; goes over `DEFAULT_ALIASES`.
        columns: our name -> the user's column. required: our names that must be there.
        where: what messages call the file.

    Raises:
        DataError: E1112 a required column, or one that the user named, is not in the file.
        UsageError: E1115 the user gave one column two names.
    """
    found = _user_columns(present, columns, where)
    known = {**DEFAULT_ALIASES, **aliases}
    names = [name for name in dict.fromkeys([*known, *required]) if name not in found]
    found |= {name: name for name in names if name in present and name not in found.values()}
    for loose in (False, True):
        for name in names:
            if name not in found and (match := _match([name, *known.get(name, ())], present, found, loose)):
                found[name] = match
    for name in required:
        if name not in found:
            raise missing_column(name, [name, *known.get(name, ())], present, where)
    renamed = {theirs: ours for ours, theirs in found.items() if theirs != ours}
    return renamed | _pushed_aside(present, found)


def _user_columns(present: Sequence[str], columns: Mapping[str, str], where: str) -> dict[str, str]:
    taken: dict[str, str] = {}
    for ours, theirs in columns.items():
        if theirs not in present:
            raise missing_column(ours, [theirs], present, where, asked=theirs)
        if theirs in taken:
            raise UsageError("E1115", "the column {column!r} is given two names", where="--columns",
                             column=theirs, found=f"{taken[theirs]}={theirs}, {ours}={theirs}",
                             do="name a column once")
        taken[theirs] = ours
    return dict(columns)


def _match(wanted: Iterable[str], present: Sequence[str], found: Mapping[str, str], loose: bool) -> str:
    """The first wanted name that a free column has."""
    free = {_loose(name) if loose else name: name for name in reversed(present) if name not in found.values()}
    return next((free[key] for name in wanted if (key := _loose(name) if loose else name) in free), "")


def _loose(name: str) -> str:
    return name.strip().casefold().replace(" ", "_").replace("-", "_")


def _pushed_aside(present: Sequence[str], found: Mapping[str, str]) -> dict[str, str]:
    """New names for columns of the file whose names are taken by others."""
    used = set(found.values())
    taken = set(present) | set(found)
    aside: dict[str, str] = {}
    for name in present:
        if name in found and name not in used:
            new = f"original_{name}"
            while new in taken:
                new = f"original_{new}"
            taken.add(new)
            aside[name] = new
    return aside


def missing_column(
    name: str, wanted: Sequence[str], present: Sequence[str], where: str, *, asked: str = ""
) -> DataError:
    """The error for a column that is not there, with the nearest one that is."""
    more = ", …" if len(present) > MAX_NAMES_SHOWN else ""
    shown = printable(", ".join(present[:MAX_NAMES_SHOWN]) + more)
    near = nearest_name(wanted, present)
    if near:
        return DataError("E1112", "no column {column!r}", where=where, column=asked or name, found=shown,
                         do="--columns {ours}={near}", ours=name, near=near)
    return DataError("E1112", "no column {column!r}", where=where, column=asked or name, found=shown,
                     do="name the column with --columns {ours}=NAME", ours=name)


def nearest_name(wanted: Sequence[str], present: Sequence[str]) -> str:
    """The present name most like one of the wanted ones; "" when none is."""
    by_loose = {_loose(name): name for name in reversed(present)}
    best = ("", 0.5)
    for name in wanted:
        for candidate in difflib.get_close_matches(_loose(name), list(by_loose), n=1, cutoff=best[1]):
            ratio = difflib.SequenceMatcher(None, candidate, _loose(name)).ratio()
            best = max(best, (candidate, ratio), key=lambda pair: pair[1])
    return by_loose.get(best[0], "")


def rename(record: Mapping[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
    """The record under our names."""
    return {renamed.get(name, name): value for name, value in record.items()}
