"""Rows one after the other are the rows that are read all at once, and none of them is kept."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from treetune.core.errors import DataError
from treetune.core.records import Row
from treetune.data.read import read_rows
from treetune.data.refusals import Refusal
from treetune.data.walk import Source, open_source, refuse_changed, walk

How = dict[str, Any]
HOW: How = {"split": "test", "aliases": {"text": ("sentence",)}, "columns": {}, "required": ["text"]}


def jsonl(path: Path) -> Path:
    lines = [{"sentence": "a", "id": 7}, {"sentence": "b", "more": 1}]
    path.write_text("\n".join([json.dumps(lines[0]), "{broken", "", json.dumps(lines[1])]) + "\n", "utf-8")
    return path


def csv(path: Path) -> Path:
    path.write_text('text,label\n"two\nlines",good\nragged\nb,bad\n', "utf-8")
    return path


def zipped(path: Path) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as handle:
        handle.write('{"text": "x"}\n')
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    csv(path / "test-1.csv")
    jsonl(path / "test-2.jsonl")
    csv(path / "train.csv")
    return path


def both(path: Path, how: How = HOW) -> tuple[Source, list[Row], list[Refusal]]:
    source = open_source(path, **how)
    found = list(walk(source))
    return (source, [each for each in found if isinstance(each, Row)],
            [each for each in found if isinstance(each, Refusal)])


@pytest.mark.parametrize(("make", "name"), [
    (jsonl, "a.jsonl"), (csv, "a.csv"), (zipped, "a.jsonl.gz"), (folder, "all")])
def test_they_are_the_rows_refusals_names_and_digest_of_reading_at_once(
    make: Callable[[Path], Path], name: str, tmp_path: Path
) -> None:
    path = make(tmp_path / name)
    source, rows, refused = both(path)
    whole = read_rows(path, **HOW)
    assert tuple(rows) == whole.rows
    assert tuple(refused) == whole.refused
    assert source.renamed == whole.renamed
    assert (source.digest, source.files) == (whole.digest, whole.files)
    assert list(walk(source)) == list(walk(source)), "a source can be read again"


@pytest.mark.parametrize(("content", "code"), [("", "E1102"), ("\n\n", "E1102"), ('{"other": 1}\n', "E1112")])
def test_what_cannot_be_read_at_once_cannot_be_walked(content: str, code: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(content, "utf-8")
    for read in (read_rows, open_source):
        with pytest.raises(DataError) as caught:
            read(path, **HOW)
        assert caught.value.code == code


def test_the_second_row_is_not_read_before_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from treetune.data import walk as module

    path = jsonl(tmp_path / "a.jsonl")
    source = open_source(path, **HOW)
    seen: list[Any] = []
    plain = module.normalise
    monkeypatch.setattr(module, "normalise", lambda record: seen.append(record) or plain(record))
    rows = walk(source)
    next(rows)
    assert len(seen) == 1
    list(rows)
    assert len(seen) == 2


@pytest.mark.parametrize("change", ["grows", "is replaced", "is gone"])
def test_a_file_that_is_written_to_while_its_rows_are_read_is_told(change: str, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl")
    source = open_source(path, **HOW)
    list(walk(source))
    refuse_changed(source)
    if change == "grows":
        with path.open("a", encoding="utf-8") as handle:
            handle.write('{"sentence": "c"}\n')
    elif change == "is replaced":
        jsonl(tmp_path / "b.jsonl").replace(path)
    else:
        path.unlink()
    with pytest.raises(DataError) as caught:
        refuse_changed(source)
    assert caught.value.code == "E1124"
    assert caught.value.where == str(path)
