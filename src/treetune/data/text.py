"""Plain text for pretraining: documents of text files, and rows rendered as text by a template."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from treetune.core.errors import DataError
from treetune.core.settings import TextSource
from treetune.data.stream import read_lines

ROW_KINDS = (".jsonl", ".ndjson")


def documents(source: TextSource, root: Path) -> Iterator[str]:
    """The documents of one source in file order; empty ones are left out.

    Raises:
        DataError: E1101 missing, E1106 broken UTF-8 (line and byte named), E1110 a row that is not JSON,
            E1112 a template column that a row has not.
    """
    path = root / source.path
    if not path.is_file():
        raise DataError("E1101", "there is no such file", where=str(path), do="check the path")
    if not source.template:
        lines = (line for _, line in _lines(path))
        if source.document == "file":
            whole = "\n".join(lines)
            yield from [whole] if whole.strip() else []
        else:
            yield from (line for line in lines if line)
        return
    if source.each:
        shared: dict[str, list[str]] = {}
        for head, tail in _rendered(source, path):
            shared.setdefault(head, []).append(tail)
        yield from (head + "".join(dict.fromkeys(tails)) for head, tails in shared.items())
    else:
        yield from dict.fromkeys(head for head, _ in _rendered(source, path))


def _rendered(source: TextSource, path: Path) -> Iterator[tuple[str, str]]:
    """(template, each) filled with the cells of every row."""
    for number, line in _lines(path):
        where = f"{path.name}, line {number}"
        try:
            row = {key: _as_text(value) for key, value in json.loads(line).items()}
        except (ValueError, AttributeError) as error:
            raise DataError("E1110", "the line is not valid JSON", where=where, found=str(error)) from error
        try:
            yield source.template.format(**row), source.each.format(**row)
        except (KeyError, IndexError, ValueError, AttributeError) as error:  # also {0}, {text.foo} and a lone brace
            raise DataError("E1112", "no column {column!r}", where=where, column=str(error.args[0]),
                            allowed=", ".join(row), do="correct the template of the source") from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(1-based number, text without white space at its ends) of every line; a faulty line stops the reading."""
    for line in read_lines(path, path.name):
        if line.fault is not None:
            line.fault.where = f"{path.name}, line {line.number}"
            raise line.fault
        yield line.number, line.text.strip()


def _as_text(value: object) -> str:
    """A cell as text; of a list the first entry."""
    if isinstance(value, list):
        return str(value[0]) if value else ""
    return "" if value is None else str(value)
