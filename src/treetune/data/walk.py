"""The user's rows one after the other, from files of any size: what was read is forgotten when the next row comes.

`treetune.data.read.read_rows` gives the same rows, all at once. A .json file is one value and is held whole while it is
read, and so is compressed parquet; the other kinds take the memory of a row.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from treetune.core.errors import DataError
from treetune.core.records import Row
from treetune.data.columns import rename, resolve_columns
from treetune.data.formats import Item
from treetune.data.read import digest_of, no_rows, readers_of
from treetune.data.refusals import Refusal
from treetune.data.shapes import normalise


@dataclass(frozen=True, slots=True)
class Part:
    """One file. ``items`` reads it from its start. ``renamed``: column name in it -> our name, where they differ."""

    name: str
    items: Callable[[], Iterator[Item]]
    renamed: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Source:
    """One data argument that can be read again and again.

    Attributes:
        digest: sha256 of the files' bytes as stored, see `treetune.data.read.ReadResult`; of a hub data set, of its
            records before they are renamed. stamps: of each file, see `stamps_of`, from before it was first read.
    """

    parts: tuple[Part, ...]
    split: str
    digest: str
    stamps: tuple[object, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(part.name for part in self.parts)

    @property
    def renamed(self) -> dict[str, str]:
        return {theirs: ours for part in self.parts for theirs, ours in part.renamed.items()}


def open_source(
    path: str | Path, *, split: str, aliases: Mapping[str, Sequence[str]], columns: Mapping[str, str],
    required: Collection[str] = (),
) -> Source:
    """Read everything once for the names of its columns and its digest; arguments and errors as `read_rows`."""
    readers, paths = readers_of(path, split)
    stamps = stamps_of(paths)
    digest = digest_of(paths) if paths else ""
    parts = []
    running = hashlib.sha256()
    for file, read in readers:
        present: dict[str, None] = {}
        found = False
        for _, item in read():
            found = True
            if not isinstance(item, Refusal):
                record = normalise(item)
                present.update(dict.fromkeys(record))
                if not digest:
                    running.update(json.dumps(record, sort_keys=True, default=str).encode())
        if not found:
            raise no_rows(file)
        renamed = resolve_columns(list(present), aliases=aliases, columns=columns, required=required,
                                  where=file) if present else {}
        parts.append(Part(file, read, renamed))
    return Source(tuple(parts), split, digest or running.hexdigest(), stamps)


def stamps_of(files: Iterable[str | Path]) -> tuple[object, ...]:
    """What changes when a file is written to or another is put in its place; None where there is none."""
    found: list[object] = []
    for file in files:
        try:
            about = os.stat(file)
        except OSError:
            found.append(None)
            continue
        found.append((about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns))
    return tuple(found)


def refuse_changed(source: Source) -> None:
    """Rows read since `open_source` are those that its digest is of, up to now.

    Raises:
        DataError: E1124.
    """
    if not source.stamps:
        return
    now = stamps_of(source.files)
    changed = [file for file, before, after in zip(source.files, source.stamps, now, strict=True) if before != after]
    if changed:
        raise DataError("E1124", "the file was written to while its rows were read", where=", ".join(changed),
                        do="wait until it is whole, or give a copy of it, and give the same command again")


def walk(source: Source) -> Iterator[Row | Refusal]:
    """Every record in order, as a row or as why it is none. Rows are numbered as `read_rows` numbers them."""
    number = 0
    for part in source.parts:
        for line, item in part.items():
            if isinstance(item, Refusal):
                yield item
            else:
                yield Row(rename(normalise(item), part.renamed), part.name, line, number, source.split)
                number += 1
