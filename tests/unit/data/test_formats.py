"""Every format, well-formed and broken."""

import csv
import gzip
import io
import json
import lzma
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from treetune.core.errors import DataError, TreetuneError
from treetune.data import ReadResult, read_rows
from treetune.data import stream as stream_module
from treetune.data.formats import KINDS, kind_of, parse
from treetune.data.refusals import Refusal

ReadText = Callable[..., ReadResult]
few = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CHARACTERS = st.characters(codec="utf-8", exclude_categories=["Cc"], include_characters="\n\r\t")
CELLS = st.text(CHARACTERS, max_size=12)


def values(result: ReadResult) -> list[dict[str, Any]]:
    return [dict(row.values) for row in result.rows]


def refusal(result: ReadResult) -> Refusal:
    assert len(result.refused) == 1, result.refused
    return result.refused[0]


def compress(data: bytes, suffix: str) -> bytes:
    if suffix == ".zst":
        import zstandard

        return bytes(zstandard.ZstdCompressor().compress(data))
    if suffix == ".gz":
        return gzip.compress(data)
    return lzma.compress(data) if suffix == ".xz" else data


def parquet_bytes(table: Any) -> bytes:
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    return buffer.getvalue()


# What is read


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".zst"])
@pytest.mark.parametrize(("kind", "content"), [
    (".csv", 'text,label\n"a, b",0\n好,1\n'),
    (".tsv", "text\tlabel\na, b\t0\n好\t1\n"),
    (".jsonl", '{"text": "a, b", "label": "0"}\n{"text": "好", "label": "1"}\n'),
    (".ndjson", '{"text": "a, b", "label": "0"}\n{"text": "好", "label": "1"}'),
    (".json", '[{"text": "a, b", "label": "0"}, {"text": "好", "label": "1"}]'),
    (".json", '{"data": [{"text": "a, b", "label": "0"},\n {"text": "好", "label": "1"}]}'),
    (".json", '{"text": "a, b", "label": "0"}\n{"text": "好", "label": "1"}\n'),
])
def test_every_text_kind_plain_and_compressed(
    read_text: ReadText, kind: str, content: str, suffix: str
) -> None:
    result = read_text(compress(content.encode(), suffix), f"rows{kind}{suffix}")
    assert values(result) == [{"text": "a, b", "label": "0"}, {"text": "好", "label": "1"}]
    assert (result.refused, result.num_read) == ((), 2)


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_parquet_plain_and_compressed(read_text: ReadText, suffix: str) -> None:
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"text": ["a", "好", None], "n": [1, 2, 3]})
    result = read_text(compress(parquet_bytes(table), suffix), f"rows.parquet{suffix}")
    assert values(result) == [{"text": "a", "n": 1}, {"text": "好", "n": 2}, {"text": None, "n": 3}]
    assert [row.line for row in result.rows] == [1, 2, 3]


def test_parquet_label_numbers_get_the_names_that_the_file_declares(read_text: ReadText) -> None:
    arrow = pytest.importorskip("pyarrow")
    label = {"names": ["negative", "positive"], "_type": "ClassLabel"}
    features = {"label": label, "text": {"_type": "Value"}}
    table = arrow.table({"text": ["a", "b", "c"], "label": [1, 0, -1]}).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    result = read_text(parquet_bytes(table), "rows.parquet")
    assert [row.values["label"] for row in result.rows] == ["positive", "negative", None]


def test_mark_at_the_start_and_windows_line_ends_do_not_matter(read_text: ReadText) -> None:
    assert values(read_text(b"\xef\xbb\xbftext,label\r\na,b\r\n", "a.csv")) == [{"text": "a", "label": "b"}]
    assert values(read_text(b'\xef\xbb\xbf{"text": "a"}\r\n', "a.jsonl")) == [{"text": "a"}]
    assert values(read_text(b'\xef\xbb\xbf[{"text": "a"}]\r\n', "a.json")) == [{"text": "a"}]
    assert values(read_text(b"\xef\xbb\xbftext\tlabel\r\na\tb\r\n", "a.tsv")) == [{"text": "a", "label": "b"}]


def test_lines_count_from_one_and_records_know_where_they_begin(read_text: ReadText) -> None:
    result = read_text('text,label\n"two\nlines",a\n\nplain,b\n"three\n\n\nmore",c\nlast,d', "rows.csv")
    assert [(row.line, row.number) for row in result.rows] == [(2, 0), (5, 1), (6, 2), (10, 3)]
    assert result.rows[2].values["text"] == "three\n\n\nmore"
    result = read_text('\n{"a": 1}\n\n{"a": 2}\nnot json\n{"a": 3}')
    assert [(row.line, row.number) for row in result.rows] == [(2, 0), (4, 1), (6, 2)]
    assert refusal(result).line == 5


def test_quotes_in_tsv_are_text_unless_they_wrap_a_cell(read_text: ReadText) -> None:
    cells = ['"so ""good"", yes"', '"Great" film', '"open', '5" disc']
    result = read_text("text\tlabel\n" + "".join(f"{cell}\tp\n" for cell in cells), "rows.tsv")
    assert [row.values["text"] for row in result.rows] == ['so "good", yes', *cells[1:]]


def test_a_column_without_a_name_is_called_after_its_place(read_text: ReadText) -> None:
    assert values(read_text(",text\n0,a\n", "rows.csv")) == [{"column_1": "0", "text": "a"}]


def test_a_cell_may_be_longer_than_the_csv_library_likes(read_text: ReadText) -> None:
    limit = csv.field_size_limit()
    text = "x" * (limit + 10)
    assert values(read_text(f'text\n"{text}"\n', "rows.csv")) == [{"text": text}]
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(("name", "kind"), [
    ("a.csv", ".csv"), ("a.b.JSONL.gz", ".jsonl"), ("a.parquet.zst", ".parquet"), ("a.gz", ""), ("a", ""),
    ("a.txt", ""), (".jsonl", ""), ("a.csv.bz2", ""),
])
def test_kind_is_told_by_the_extension(name: str, kind: str) -> None:
    assert kind_of(Path(name)) == kind


# Files that are refused as a whole


@pytest.mark.parametrize(("name", "content", "code"), [
    ("a.csv", b"", "E1102"), ("a.jsonl", b"\n \n", "E1102"), ("a.json", b"\xef\xbb\xbf", "E1102"),
    ("a.parquet", b"", "E1102"), ("a.csv.gz", gzip.compress(b""), "E1102"),
    ("a.csv", b"text,label\n", "E1103"), ("a.json", b"[]", "E1103"), ("a.json", b'{"data": []}', "E1103"),
    ("a.txt", b"text", "E1104"), ("a", b"text", "E1104"), ("a.csv.bz2", b"text", "E1104"),
    ("a.csv", b"PK\x03\x04text", "E1105"), ("a.csv", gzip.compress(b"text\na\n"), "E1105"),
    ("a.csv", "text\na\n".encode("utf-16"), "E1105"), ("a.tsv", "text\na\n".encode("utf-16-le"), "E1105"),
    ("a.jsonl", bytes(range(32)) * 40, "E1105"), ("a.parquet", b"text,label\n", "E1105"),
    ("a.parquet", b"PAR1 and then nothing PAR1", "E1105"),
    ("a.csv", b"te\xffxt\na\n", "E1106"), ("a.jsonl", b'{"a": "\xff"}\n{"a": "b"}\n', "E1106"),
    ("a.json", b'[{"a": "b"},\n{"a": "\xff"}]', "E1106"),
    ("a.json", b'[{"a": 1},\n {"a" 2}]', "E1110"), ("a.json", b'{"a": [1, 2\n', "E1110"),
    ("a.json", b'"text"', "E1111"), ("a.json", b'{"train":\n [{"a": 1}]}', "E1111"),
    ("a.csv", b"text,label,text\na,b,c\n", "E1113"), ("a.json", b'[{"a": 1, "a": 2}]', "E1113"),
    ("a.csv", b'text,"label\na,b\n', "E1116"),
    ("a.csv.gz", gzip.compress(b"text\n" + bytes(range(33, 127)) * 99)[:-20], "E1117"),
    ("a.csv.gz", b"not gzip", "E1117"), ("a.csv.xz", b"not xz", "E1117"), ("a.csv.zst", b"not zst", "E1117"),
    ("a.csv.xz", lzma.compress(b"text\na\n")[:-9], "E1117"),
    ("a.csv.zst", compress(b"text\n" + bytes(range(33, 127)), ".zst")[:-9], "E1117"),
    ("a.parquet.gz", b"not gzip", "E1117"),
])
def test_a_file_that_cannot_be_read_is_named_with_its_code(
    read_text: ReadText, name: str, content: bytes, code: str
) -> None:
    with pytest.raises(DataError) as caught:
        read_text(content, name)
    assert caught.value.code == code
    assert name in caught.value.where
    assert caught.value.do
    assert caught.value.exit_code == 3


def test_repeated_parquet_columns_are_refused(read_text: ReadText) -> None:
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table([["a"], ["b"]], names=["text", "text"])
    with pytest.raises(DataError, match="E1113"):
        read_text(parquet_bytes(table), "rows.parquet")


def test_the_broken_byte_of_a_json_file_is_found(read_text: ReadText) -> None:
    with pytest.raises(DataError) as caught:
        read_text(b'[{"a": "b"},\n{"a": "\xff"}]', "a.json")
    assert caught.value.where.endswith("a.json, line 2")
    assert "byte 7 of the line" in str(caught.value)


def test_unknown_kinds_are_answered_with_the_known_ones(read_text: ReadText) -> None:
    with pytest.raises(DataError) as caught:
        read_text("a", "rows.xlsx")
    assert all(kind in caught.value.allowed for kind in (*KINDS, ".gz", ".xz", ".zst"))
    assert caught.value.found == ".xlsx"


def test_zstd_of_several_frames_is_read_to_its_end(read_text: ReadText) -> None:
    frames = b"".join(compress(part, ".zst") for part in (b"text\n", b"a\n", b"b\n"))
    assert [row.values["text"] for row in read_text(frames, "rows.csv.zst").rows] == ["a", "b"]


# Records that are refused one by one


@pytest.mark.parametrize(("name", "content", "code", "line", "why"), [
    ("a.csv", b"text,label\na,b\nc\xff,d\ne,f\n", "E1106", 3, "byte 1 of the line"),
    ("a.csv", b'text,label\na,b\n"c\n\xff",d\ne,f\n', "E1106", 3, "byte 0 of the line"),
    ("a.jsonl", b'{"a": 1}\n{"a": 1}\n{"a": "\xc3"}\n', "E1106", 3, "byte 7"),
    ("a.tsv", b"text\tlabel\na\tb\nx\ne\tf\n", "E1107", 3, "1 fields, the header has 2"),
    ("a.csv", b"text,label\na,b\nc,d,e\nf,g\n", "E1107", 3, "3 fields, the header has 2"),
    ("a.csv", b'text,label\na,b\n"c\nd"\nf,g\n', "E1107", 3, "row of 2 lines has 1 fields"),
    ("a.csv", b"text,label\na,b\nc,\x00\nf,g\n", "E1108", 3, "position 2"),
    ("a.jsonl", b'{"a": 1}\n{"a": 2}\n{"a": "\x00"}\n', "E1108", 3, "NUL"),
    ("a.jsonl", b'{"a": 1}\n{"a": 2}\n{"a": "\\u0000"}\n', "E1108", 3, "NUL"),
    ("a.jsonl", b'{"a": 1}\n{"a": "\\ud800"}\n{"a": 1}', "E1109", 2, "surrogate"),
    ("a.jsonl", b'{"a": 1}\n{"\\uDFFF": 1}\n{"a": 1}', "E1109", 2, "surrogate"),
    ("a.json", b'[{"a": 1}, {"a": ["\\ud800"]}, {"a": 1}]', "E1109", 2, "surrogate"),
    ("a.jsonl", b'{"a": 1}\n{"a" 1}\n{"a": 1}', "E1110", 2, "column 6"),
    ("a.jsonl", b'{"a": 1}\n{"a": NaN}\n{"a": 1}', "E1110", 2, "NaN"),
    ("a.jsonl", b'{"a": 1}\n{"a": ' + b"1" * 5000 + b'}\n{"a": 1}', "E1110", 2, "digits"),
    ("a.jsonl", b'{"a": 1}\n{"a": ' + b"[" * 100 + b"]" * 100 + b'}\n{"a": 1}', "E1110", 2, "64 levels"),
    ("a.jsonl", b'{"a": 1}\n{"a": ' + b"[" * 9999 + b"]" * 9999 + b'}\n{"a": 1}', "E1110", 2, "64 levels"),
    ("a.jsonl", b'{"a": 1}\n["a"]\n{"a": 1}', "E1111", 2, "list"),
    ("a.json", b'[{"a": 1}, "a", {"a": 1}]', "E1111", 2, "str"),
    ("a.jsonl", b'{"a": 1}\n{"paragraphs": [1]}\n{"a": 1}', "E1111", 2, "paragraphs"),
    ("a.jsonl", b'{"a": 1}\n{"a": 1, "a": 2}\n{"a": 1}', "E1113", 2, "'a' stands twice"),
    ("a.csv", b'text,label\na,b\n"c" d,e\nf,g\n', "E1116", 3, "quotes"),
])
def test_a_faulty_record_is_refused_alone(
    read_text: ReadText, name: str, content: bytes, code: str, line: int, why: str
) -> None:
    result = read_text(content, name)
    fault = refusal(result)
    assert (fault.code, fault.line) == (code, line)
    assert why in fault.why
    assert (len(result.rows), result.num_read) == (2, 3)
    assert [row.number for row in result.rows] == [0, 1]
    str(fault).encode("utf-8")
    fault.record.encode("utf-8")
    assert "\x00" not in fault.record


def test_a_stray_quote_does_not_swallow_the_rows_below(read_text: ReadText) -> None:
    below = "".join(f"text {n},pos\n" for n in range(50))
    result = read_text(f'text,label\n"never closed,pos\n{below}', "rows.csv")
    assert refusal(result).code == "E1116"
    assert [row.line for row in result.rows] == list(range(3, 53))


@pytest.mark.parametrize(("name", "row", "rest"), [
    ("a.csv", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx,b\n", "c,d\n"),
    ("a.csv", '"xxxxxxxxxxxxxxxxxxxxxxxxxx\n', 'c",d\ne,f\n'),
    ("a.jsonl", '{"text": "xxxxxxxxxxxxxxxxxxxxxxxxxxxx"}\n', '{"text": "c"}\n'),
])
def test_a_line_that_is_too_long_is_refused_alone(
    read_text: ReadText, monkeypatch: pytest.MonkeyPatch, name: str, row: str, rest: str
) -> None:
    monkeypatch.setattr(stream_module, "MAX_LINE_BYTES", 20)
    header = "text,label\n" if name == "a.csv" else '{"text": "a"}\n'
    result = read_text(header + row + rest, name)
    fault = refusal(result)
    assert (fault.code, fault.line) == ("E1114", 2)
    assert str(len(row)) in fault.why
    assert result.rows[-1].line == (header + row + rest).count("\n")


def test_the_limit_of_a_line_is_ten_megabytes(read_text: ReadText) -> None:
    result = read_text("text\nok\n" + "x" * 10_000_001 + "\nok\n" + "y" * 9_999_999 + "\n", "rows.csv")
    assert (refusal(result).code, refusal(result).line) == ("E1114", 3)
    assert [row.line for row in result.rows] == [2, 4, 5]


def test_parquet_text_that_is_not_utf8_is_refused_alone(read_text: ReadText) -> None:
    arrow = pytest.importorskip("pyarrow")
    raw = arrow.array([b"a", b"\xff", b"c", b"d\x00"], arrow.binary())
    result = read_text(parquet_bytes(arrow.table({"text": raw.view(arrow.string())})), "rows.parquet")
    assert [(fault.line, fault.code) for fault in result.refused] == [(2, "E1106"), (4, "E1108")]
    assert [row.values["text"] for row in result.rows] == ["a", "c"]


# Properties


@given(content=st.binary(max_size=200), kind=st.sampled_from(KINDS),
       suffix=st.sampled_from(["", ".gz", ".xz", ".zst"]), packed=st.booleans())
@example(content=b'a,b\n"\r', kind=".csv", suffix="", packed=False)
@settings(max_examples=400, deadline=None)
def test_any_bytes_give_rows_refusals_or_an_error_of_ours(
    content: bytes, kind: str, suffix: str, packed: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows{kind}{suffix}"
        path.write_bytes(compress(content, suffix) if packed else content)
        try:
            result = read_rows(path, split="train", aliases={"text": ("a",)}, columns={})
        except TreetuneError as error:
            str(error).encode("utf-8")
        else:
            assert result.num_read == len(result.rows) + len(result.refused) > 0
            json.dumps([row.values for row in result.rows], ensure_ascii=False, default=str).encode("utf-8")


_PIECES = st.sampled_from([
    b'"', b'""', b",", b"\t", b"\n", b"\r", b"\r\n", b"\x00", b"\xff", b"a", "好".encode(),
    b"{", b"}", b"[", b"]", b":", b'{"a": 1}', b"\\ud800", b"NaN", b"\xef\xbb\xbf",
    b'"paragraphs": [', b'"qas": [{', b'{"answers": {"text": ["x"]}}',
])


@given(pieces=st.lists(_PIECES, max_size=30), kind=st.sampled_from(KINDS[:5]))
@settings(max_examples=400, deadline=None)
def test_scraps_of_syntax_give_rows_refusals_or_an_error_of_ours(pieces: list[bytes], kind: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows{kind}"
        path.write_bytes(b"".join(pieces))
        try:
            read_rows(path, split="train", aliases={}, columns={})
        except TreetuneError as error:
            str(error).encode("utf-8")


@given(rows=st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=6),
       end=st.sampled_from(["\n", "\r\n"]))
@few
def test_csv_comes_back_as_it_was_written(read_text: ReadText, rows: list[list[str]], end: str) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator=end)
    writer.writerows([["a", "b", "c"], *rows])
    lines = [2 + sum(1 + sum(cell.count("\n") for cell in row) for row in rows[:n]) for n in range(len(rows))]
    result = read_text(buffer.getvalue(), "rows.csv")
    assert [list(row.values.values()) for row in result.rows] == rows
    assert [row.line for row in result.rows] == lines


@given(rows=st.lists(st.dictionaries(CELLS, CELLS | st.integers() | st.lists(CELLS, max_size=2), max_size=3),
                     min_size=1, max_size=6), ascii_only=st.booleans(), blank=st.integers(0, 2))
@few
def test_jsonl_comes_back_as_it_was_written(
    read_text: ReadText, rows: list[dict[str, Any]], ascii_only: bool, blank: int
) -> None:
    lines = [json.dumps(row, ensure_ascii=ascii_only) + "\n" * (1 + blank) for row in rows]
    path_items = read_text("".join(lines)).rows
    assert [row.line for row in path_items] == [1 + n * (1 + blank) for n in range(len(rows))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_bytes("".join(lines).encode())
        assert [record for _, record in parse(path, "rows.jsonl")] == rows
