"""The user's rows: a file, a folder or a hub data set in, rows and refusals out."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from treetune.core.errors import DataError
from treetune.core.files import file_digest
from treetune.core.records import Row
from treetune.data.columns import rename, resolve_columns
from treetune.data.formats import KINDS, Item, Record, kind_of, parse
from treetune.data.hub import PREFIX, parse_hub
from treetune.data.refusals import Refusal, write_quarantine
from treetune.data.shapes import normalise
from treetune.data.stream import reading

__all__ = ["ReadResult", "Refusal", "read_rows", "stop_if_too_many", "write_quarantine"]

MAX_REFUSALS_SHOWN = 10
SPLIT_NAMES = {
    "train": "train", "training": "train", "test": "test", "calibration": "calibration",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
}
_SPLIT_OF_NAME = re.compile(rf"({'|'.join(sorted(SPLIT_NAMES, key=len, reverse=True))})(?:set)?(?![a-z])")


@dataclass(frozen=True, slots=True)
class ReadResult:
    """What one data argument held.

    Attributes:
        rows: accepted rows in file order. refused: the others.
        renamed: column name in the file -> our name, where they differ.
        num_read: records seen, accepted or not. files: what was read, in order.
        digest: sha256 of the file's bytes as stored; of several files, of their digests one after the other;
            of a hub data set, of its records.
    """

    rows: tuple[Row, ...]
    refused: tuple[Refusal, ...]
    renamed: Mapping[str, str]
    num_read: int
    digest: str
    files: tuple[str, ...]


def read_rows(
    path: str | Path,
    *,
    split: str,
    aliases: Mapping[str, Sequence[str]],
    columns: Mapping[str, str],
    required: Collection[str] = (),
) -> ReadResult:
    """Read every row of a file, a folder or ``hub:NAME``; faulty records are refused one by one and listed.

    Args:
        path: .csv .tsv .json .jsonl .ndjson .parquet, also with .gz .xz .zst; a folder of such files, of
            which those named after ``split`` are read (train*, validation* | valid* | val* | dev*, test*,
            calibration*), else those named after no split; or ``hub:NAME``.
        split: what the rows are for; stands in each row.
        aliases: our column name -> other names it may have. columns: our name -> the user's column.
        required: our names that the file must have, under whichever name.

    Raises:
        DataError: E1101 no such file, E1102 empty, E1103 no rows, E1104 unknown kind, E1105 not text,
            E1106 first line not UTF-8, E1110 / E1111 a .json file as a whole, E1112 no such column,
            E1113 a column name twice, E1117 broken compression, E1118 unreadable,
            E1119 nothing in the folder for the split, E1122 hub.
        UsageError: E1115 one column under two names, E1121 the datasets library is missing.
    """
    readers, paths = readers_of(path, split)
    rows: list[Row] = []
    refused: list[Refusal] = []
    renamed: dict[str, str] = {}
    for file, read in readers:
        records, faults = _gather(read(), file)
        refused += faults
        if records:
            present = list(dict.fromkeys(key for _, record in records for key in record))
            changed = resolve_columns(
                present, aliases=aliases, columns=columns, required=required, where=file
            )
            renamed |= changed
            rows += _as_rows(records, changed, file, split, start=len(rows))
    digest = digest_of(paths) if paths else _hub_digest(rows)
    return ReadResult(tuple(rows), tuple(refused), renamed, len(rows) + len(refused), digest,
                      tuple(file for file, _ in readers))


def readers_of(path: str | Path, split: str) -> tuple[list[tuple[str, Callable[[], Iterator[Item]]]], list[Path]]:
    """Of each file its name and what reads it from its start; and the files, none of a hub data set."""
    name = str(path)
    if name.startswith(PREFIX):
        return [(name, partial(parse_hub, name, split))], []
    paths = files_of(Path(path), split)
    return [(str(file), partial(parse, file, str(file))) for file in paths], paths


def _gather(source: Iterable[Item], file: str) -> tuple[list[tuple[int, Record]], list[Refusal]]:
    """Records in their normal shape, and refusals, of one file."""
    records: list[tuple[int, Record]] = []
    refused: list[Refusal] = []
    for line, item in source:
        if isinstance(item, Refusal):
            refused.append(item)
        else:
            records.append((line, normalise(item)))
    if not records and not refused:
        raise no_rows(file)
    return records, refused


def no_rows(file: str) -> DataError:
    """The error for a file without a record."""
    return DataError("E1103", "the file has no rows", where=file, allowed="at least one row",
                     do="check how the file was made")


def _as_rows(
    records: Iterable[tuple[int, Record]], renamed: Mapping[str, str], file: str, split: str, *, start: int
) -> Iterator[Row]:
    for number, (line, record) in enumerate(records, start=start):
        yield Row(values=rename(record, renamed), file=file, line=line, number=number, split=split)


def files_of(path: Path, split: str) -> list[Path]:
    """The file itself, or the files of a folder that serve the split."""
    with reading(str(path)):
        if path.is_file():
            return [path]
        if not path.exists():
            raise _no_file(path)
        inside = sorted(path.iterdir()) if path.is_dir() else []
        visible = [file for file in inside if not file.name.startswith(".")]
        files = [file for file in visible if kind_of(file) and file.is_file()]
    if not files:
        raise DataError("E1104", "the folder holds no file that is read", where=str(path),
                        found=", ".join(file.name for file in inside[:10]) or "nothing",
                        allowed=", ".join(KINDS), do="name a file or another folder")
    splits = {file: split_of_name(file.name) for file in files}
    chosen = [file for file in files if splits[file] == split] or [file for file in files if not splits[file]]
    if not chosen:
        raise DataError("E1119", "the folder holds no file for the split {split!r}", where=str(path),
                        split=split, found=", ".join(file.name for file in files[:10]),
                        do="name the file itself, or rename it so that it begins with {split}")
    return chosen


def split_of_name(name: str) -> str:
    """The split that a file name begins with (``dev-00.jsonl`` -> ``validation``); "" when it names none."""
    match = _SPLIT_OF_NAME.match(name.lower())
    return SPLIT_NAMES[match[1]] if match else ""


def _no_file(path: Path) -> DataError:
    beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, n=1, cutoff=0.6)
    if near:
        return DataError("E1101", "there is no such file", where=str(path), do="did you mean {near}?",
                         near=str(path.with_name(near[0])))
    return DataError("E1101", "there is no such file", where=str(path), do="check the path")


def digest_of(paths: Sequence[Path]) -> str:
    """sha256 of the bytes as stored, of several files of their digests one after the other."""
    digests = []
    for path in paths:
        with reading(str(path)):
            digests.append(file_digest(path))
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _hub_digest(rows: Iterable[Row]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row.values, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def stop_if_too_many(result: ReadResult, max_share: float, quarantine: Path | None = None) -> None:
    """Go on only if few enough rows were refused and one at least is left.

    Args:
        max_share: share of the records, 0 to 1, that may be refused.
        quarantine: where the full list was written.

    Raises:
        DataError: E1120 with the first ten refusals.
    """
    if result.rows and len(result.refused) <= max_share * result.num_read:
        return
    raise too_many(result.refused, len(result.refused), result.num_read, result.files, max_share, quarantine)


def too_many(
    first: Sequence[Refusal], num_refused: int, num_read: int, files: Sequence[str], max_share: float,
    quarantine: Path | None,
) -> DataError:
    """The error E1120; ``first``: the refusals, of which the first ten are shown."""
    shown = [str(refusal) for refusal in first[:MAX_REFUSALS_SHOWN]]
    more = num_refused - len(shown)
    listing = "\n    ".join([*shown, *([f"… +{more}"] if more else [])])
    if quarantine:
        return DataError("E1120", "{refused} of {read} rows cannot be used", where=", ".join(files),
                         found=listing, allowed=f"{max_share:.1%}", refused=num_refused,
                         read=num_read, path=str(quarantine),
                         do="correct them (all are listed in {path}), or allow more with --max-refused-share")
    return DataError("E1120", "{refused} of {read} rows cannot be used", where=", ".join(files),
                     found=listing, allowed=f"{max_share:.1%}", refused=num_refused,
                     read=num_read, do="correct them, or allow more with --max-refused-share")
