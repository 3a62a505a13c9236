"""File formats: csv, tsv, jsonl, json and parquet as a stream of (line, record or refusal).

CSV is RFC 4180: a cell in double quotes may hold commas, newlines and doubled quotes. A line whose quotes do
not work out is refused alone and reading goes on with the line after it, so that one stray quote cannot
swallow the rows below. TSV has one row a line; a cell that begins and ends with a quote and has only doubled
quotes between is unquoted, every other quote is itself.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from treetune.core.errors import DataError
from treetune.data.labels import name_labels, names_in_metadata
from treetune.data.refusals import Refusal, fault_in, printable, refuse
from treetune.data.shapes import flatten_squad
from treetune.data.stream import (
    COMPRESSIONS,
    MAX_LINE_BYTES,
    Line,
    check_head,
    not_utf8,
    open_data,
    read_lines,
    reading,
)

Record = dict[str, Any]
Item = tuple[int, Record | Refusal]

KINDS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
MAX_DEPTH = 64
BATCH_ROWS = 1024
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')
_ESCAPES = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")


def kind_of(path: Path) -> str:
    """The format by the extension, with ``.gz``, ``.xz`` or ``.zst`` behind it or not; "" when unknown."""
    suffixes = path.suffixes[:-1] if path.suffix in COMPRESSIONS else path.suffixes
    kind = suffixes[-1].lower() if suffixes else ""
    return kind if kind in KINDS else ""


def parse(path: Path, name: str) -> Iterator[Item]:
    """Every record of a file in order; ``name`` is what messages call the file.

    Raises:
        DataError: E1102 empty, E1104 unknown kind, E1105 not text or not parquet, E1106 first line not UTF-8,
            E1110 and E1111 for a .json file as a whole, E1113 a column name that stands twice,
            E1117 broken compression, E1118 unreadable.
    """
    kind = kind_of(path)
    if not kind:
        raise DataError("E1104", "files of this kind are not read", where=name,
                        found=path.suffix or "no extension",
                        allowed=f"{', '.join(KINDS)}, each also with {', '.join(COMPRESSIONS)}",
                        do="convert the file or correct its extension")
    if kind == ".parquet":
        yield from parse_parquet(path, name)
        return
    check_head(path, name)
    parsers: dict[str, Callable[[Path, str], Iterator[Item]]] = {
        ".csv": parse_csv, ".tsv": parse_tsv, ".json": parse_json, ".jsonl": parse_jsonl,
        ".ndjson": parse_jsonl,
    }
    yield from parsers[kind](path, name)


def parse_csv(path: Path, name: str) -> Iterator[Item]:
    """Comma-separated rows with a header; refusals E1106, E1107 (ragged), E1108, E1114, E1116 (quotes)."""
    yield from _table(_csv_records(read_lines(path, name)), name)


def parse_tsv(path: Path, name: str) -> Iterator[Item]:
    """Tab-separated rows with a header; refusals E1106, E1107 (ragged), E1108, E1114."""
    yield from _table((([line], _tsv_cells(line.text)) for line in read_lines(path, name)), name)


def _tsv_cells(text: str) -> list[str]:
    return [
        match[1].replace('""', '"') if (match := _QUOTED.fullmatch(cell)) else cell
        for cell in text.rstrip("\r\n").split("\t")
    ]


def _csv_records(lines: Iterator[Line]) -> Iterator[tuple[list[Line], list[str] | csv.Error]]:
    """(lines of the record, cells or what is wrong with the quotes)."""
    waiting: deque[Line] = deque()

    def feed(taken: list[Line]) -> Iterator[str]:
        size = 0
        while line := (waiting.popleft() if waiting else next(lines, None)):
            taken.append(line)
            size += len(line.text)
            if size > MAX_LINE_BYTES and len(taken) > 1:
                raise csv.Error("a quoted cell does not end within 10 MB")
            yield line.text

    while True:
        taken: list[Line] = []
        try:
            cells = _next_record(feed(taken))
        except csv.Error as error:
            waiting.extendleft(reversed(taken[1:]))
            yield taken[:1], error
        else:
            if not taken:
                return
            yield taken, cells


def _next_record(feed: Iterator[str]) -> list[str]:
    """Cells of one record; takes as many lines as its quotes ask for."""
    first = next(feed, "")
    if '"' not in first and "\r" not in first.rstrip("\r\n"):
        return first.rstrip("\r\n").split(",") if first.strip("\r\n") else []

    def lines() -> Iterator[str]:
        yield first
        yield from feed

    limit = csv.field_size_limit(2 * MAX_LINE_BYTES)
    try:
        return next(csv.reader(lines(), strict=True), [])
    finally:
        csv.field_size_limit(limit)


def _table(records: Iterator[tuple[list[Line], list[str] | csv.Error]], name: str) -> Iterator[Item]:
    """Records under the names of the first one."""
    header: list[str] = []
    for lines, cells in records:
        number, raw = lines[0].number, "".join(line.text for line in lines)
        fault = next((line.fault for line in lines if line.fault), None) or _quote_fault(cells)
        if not fault and not raw.strip():
            continue
        if not header:
            if fault:
                raise whole_file(fault, name, number)
            header = _header([cell.strip() for cell in cells], name) if isinstance(cells, list) else []
        elif fault:
            yield number, refuse(fault, name, number, raw)
        elif len(cells_of := list(cells) if isinstance(cells, list) else []) != len(header):
            yield number, refuse(_ragged(len(cells_of), len(header), len(lines)), name, number, raw)
        else:
            yield number, dict(zip(header, cells_of, strict=True))


def _quote_fault(cells: list[str] | csv.Error) -> DataError | None:
    if isinstance(cells, csv.Error):
        return DataError("E1116", "the quotes of the row do not work out", found=str(cells),
                         do="put a cell with quotes in quotes and double those inside")
    return None


def _ragged(found: int, expected: int, num_lines: int) -> DataError:
    if num_lines > 1:
        return DataError(
            "E1107", "the row of {lines} lines has {found_fields} fields, the header has {expected}",
            lines=num_lines, found_fields=found, expected=expected,
        )
    return DataError("E1107", "the row has {found_fields} fields, the header has {expected}",
                     found_fields=found, expected=expected)


def _header(names: list[str], name: str) -> list[str]:
    """Column names; one without a name is called after its place."""
    names = [column or f"column_{place}" for place, column in enumerate(names, start=1)]
    twice = [column for column, count in Counter(names).items() if count > 1]
    if twice:
        raise repeated_column(twice[0], name, names)
    return names


def repeated_column(column: str, name: str, names: list[str]) -> DataError:
    """The error for a header that has one name twice."""
    return DataError("E1113", "the column name {column!r} stands twice", where=name, column=column,
                     found=printable(", ".join(names)[:300]), do="rename one of the columns")


def whole_file(fault: DataError, name: str, line: int) -> DataError:
    """A fault of the first line: nothing below it can be trusted, so the file is refused."""
    fault.where = f"{name}, line {line}"
    return fault


def parse_jsonl(path: Path, name: str) -> Iterator[Item]:
    """One JSON object a line; refusals E1106, E1108, E1109, E1110, E1111, E1113, E1114."""
    first = True
    for line in read_lines(path, name):
        if not line.fault and not line.text.strip():
            continue
        if first and line.fault and line.fault.code == "E1106":
            raise whole_file(line.fault, name, line.number)
        first = False
        if line.fault:
            yield line.number, refuse(line.fault, name, line.number, line.text)
            continue
        try:
            value = load_json(line.text)
        except DataError as error:
            yield line.number, refuse(error, name, line.number, line.text)
            continue
        deep = line.text.count("[") + line.text.count("{") > MAX_DEPTH
        suspect = deep or _ESCAPES.search(line.text) is not None
        for item in _objects(value, name, line.number, check=suspect):
            yield line.number, item


def parse_json(path: Path, name: str) -> Iterator[Item]:
    """A list of objects, or ``{"data": [...]}``, SQuAD's nested form too; one object a line as well.

    Refusals: E1108, E1109, E1110 (nesting), E1111.
    """
    with reading(name), open_data(path) as handle:
        raw = handle.read().removeprefix(b"\xef\xbb\xbf")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        start = raw.rfind(b"\n", 0, error.start) + 1
        fault = not_utf8(error.start - start, raw[error.start])
        raise whole_file(fault, name, raw.count(b"\n", 0, error.start) + 1) from error
    try:
        value = load_json(text)
    except DataError as error:
        if _is_object(text.lstrip().split("\n", 1)[0]):
            yield from parse_jsonl(path, name)
            return
        error.where, error.allowed = name, 'a list of objects, or {"data": [...]}'
        raise
    number = 0
    for element in _elements(value, text, name):
        for item in _objects(element, name, number + 1, check=True):
            number += 1
            yield number, item


def _is_object(text: str) -> bool:
    try:
        return isinstance(load_json(text), dict)
    except DataError:
        return False


def _elements(value: Any, text: str, name: str) -> list[Any]:
    """The list inside a JSON file."""
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        value = value["data"]
    elif isinstance(value, dict) and "\n" not in text.strip():
        value = [value]
    if not isinstance(value, list):
        found = "{" + ", ".join(value)[:300] + "}" if isinstance(value, dict) else type(value).__name__
        raise DataError("E1111", "the JSON file holds no list of objects", where=name, found=printable(found),
                        allowed='a list of objects, or {"data": [...]}',
                        do="write the file as a list of objects, or one object a line as .jsonl")
    return value


def load_json(text: str) -> Any:
    """Parse strictly: no NaN, no key twice in one object.

    Raises:
        DataError: E1110 not JSON (column, and line where there are several), E1113 a key stands twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, " if error.lineno > 1 else ""
        found = f"{place}column {error.colno}: {error.msg}"
        raise DataError("E1110", "this is not valid JSON", found=found, do="correct the file") from error
    except RecursionError as error:
        raise DataError("E1110", "the value is nested deeper than {depth} levels", depth=MAX_DEPTH,
                        do="correct the file") from error
    except DataError:
        raise
    except ValueError as error:  # NaN, or a number of thousands of digits
        raise DataError("E1110", "this is not valid JSON", found=str(error), do="correct the file") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> Record:
    record = dict(pairs)
    if len(record) < len(pairs):
        column = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise DataError("E1113", "the key {column!r} stands twice", column=column,
                        do="rename or remove one of them")
    return record


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not a JSON value")


def _objects(value: Any, name: str, line: int, *, check: bool) -> Iterator[Record | Refusal]:
    """The records that one JSON value stands for: itself, or the questions of a SQuAD article."""
    if not isinstance(value, dict):
        kind = type(value).__name__
        error = DataError("E1111", "the record is not an object", found=kind)
        yield refuse(error, name, line, kind if isinstance(value, list) else value)
        return
    if check and (fault := fault_in(value, MAX_DEPTH)):
        too_deep = fault[1].code == "E1110"
        yield refuse(fault[1], name, line, ", ".join(value) if too_deep else value, fault[0])
        return
    try:
        yield from flatten_squad(value)
    except DataError as error:
        yield refuse(error, name, line, value, str(error.values.get("column", "")))


def parse_parquet(path: Path, name: str) -> Iterator[Item]:
    """Rows of a parquet file; line = 1-based record number. Refusals: E1106, E1108."""
    import pyarrow as arrow
    from pyarrow import parquet

    with reading(name), open_data(path) as handle:
        if not handle.read(1):
            raise DataError("E1102", "the file is empty", where=name, do="check how the file was made")
    with reading(name):
        source = str(path) if path.suffix == ".parquet" else arrow.BufferReader(_all_bytes(path))
    try:
        with parquet.ParquetFile(source) as file:
            names = list(file.schema_arrow.names)
            _header(names, name)
            labels = names_in_metadata(file.schema_arrow.metadata)
            number = 0
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                for record in _batch_records(batch, name, number + 1):
                    number += 1
                    yield number, name_labels(record, labels) if isinstance(record, dict) else record
    except DataError:
        raise
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise DataError("E1105", "the file is not parquet or is broken", where=name,
                        found=" ".join(str(error).split())[:200], do="write the file again") from error


def _all_bytes(path: Path) -> bytes:
    with open_data(path) as handle:
        return handle.read()


def _batch_records(batch: Any, name: str, first: int) -> Iterator[Record | Refusal]:
    """The batch's rows; one by one where a text of it is not UTF-8."""
    try:
        records: list[Record] = batch.to_pylist()
    except UnicodeDecodeError as error:
        if len(batch) > 1:
            for place in range(len(batch)):
                yield from _batch_records(batch.slice(place, 1), name, first + place)
        else:
            fault = DataError("E1106", "a text of the row is not UTF-8", found=f"byte {error.start}")
            yield refuse(fault, name, first, "")
        return
    for place, record in enumerate(records):
        fault_found = fault_in(record, MAX_DEPTH)
        yield refuse(fault_found[1], name, first + place, record, fault_found[0]) if fault_found else record
