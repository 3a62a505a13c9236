"""Rows that cannot be used: kept, counted and shown, never dropped in silence."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from treetune.core.errors import DataError
from treetune.core.files import write_text

EXCERPT_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Refusal:
    """One record that cannot be used.

    Attributes:
        file: as the user gave it. line: 1-based line, or record number where the file has no lines.
        field: column the fault lies in, "" where it is the whole record.
        code: stable code such as ``E1107``. why: one line in the language in force.
        record: the record's first 200 characters, safe to print and to write as UTF-8.
    """

    file: str
    line: int
    field: str
    code: str
    why: str
    record: str

    def __str__(self) -> str:
        field = f", column {self.field!r}" if self.field else ""
        return f"{self.file}, line {self.line}{field}: {self.code} {self.why}"


def refuse(error: DataError, file: str, line: int, record: object, field: str = "") -> Refusal:
    """The refusal that says what ``error`` says; ``record`` is the raw text or the parsed record."""
    facts = error.as_dict()
    why = f"{facts['what']} ({facts['found']})" if facts["found"] else facts["what"]
    return Refusal(file, line, printable(field), error.code, printable(why), excerpt(record))


def excerpt(record: object) -> str:
    """The first characters of a record, without control characters or lone surrogates."""
    text = record if isinstance(record, str) else json.dumps(record, ensure_ascii=False, default=str)
    short = text[:EXCERPT_CHARACTERS].rstrip("\r\n")
    return printable(short) + ("…" if len(text.rstrip("\r\n")) > EXCERPT_CHARACTERS else "")


def printable(text: str) -> str:
    """``text`` with everything that a terminal or a UTF-8 file cannot hold written as an escape."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def write_quarantine(path: Path, refusals: Iterable[Refusal]) -> None:
    """Write one JSON object a refusal. Without refusals an older file is removed, so that it misleads nobody.

    Raises:
        RunError: E5001 to E5003 when the disk refuses.
    """
    lines = [json.dumps(asdict(refusal), ensure_ascii=False) + "\n" for refusal in refusals]
    if lines:
        write_text(path, "".join(lines))
    else:
        path.unlink(missing_ok=True)


def fault_in(record: Mapping[str, Any], max_depth: int) -> tuple[str, DataError] | None:
    """(column, error) of the first value that no text file can hold or no program should walk, else None.

    Errors: E1108 a NUL character, E1109 a lone surrogate, E1110 more than ``max_depth`` levels of nesting.
    """
    stack: list[tuple[str, Any, int]] = [(str(name), value, 1) for name, value in record.items()]
    stack += [(str(name), name, 1) for name in record]
    while stack:
        column, value, depth = stack.pop()
        if depth > max_depth:
            error = DataError("E1110", "the value is nested deeper than {depth} levels", depth=max_depth)
            return column, error
        if isinstance(value, str):
            if "\x00" in value:
                return column, DataError("E1108", "the text holds a NUL character")
            if not _is_unicode(value):
                return column, DataError("E1109", "the text holds half of a surrogate pair")
        elif isinstance(value, dict):
            stack += [(column, part, depth + 1) for pair in value.items() for part in pair]
        elif isinstance(value, list | tuple):
            stack += [(column, part, depth + 1) for part in value]
    return None


def _is_unicode(text: str) -> bool:
    """Whether the text can be written as UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
