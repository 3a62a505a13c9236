"""Documents of text files and of rows: what becomes one document, what is said once, what stops the reading."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from treetune.core.errors import DataError
from treetune.core.settings import TextSource
from treetune.data.text import documents

Write = Callable[..., Callable[..., list[str]]]
QA = {"template": "{context}", "each": "\nQ: {question}\nA: {answers}"}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """(content or rows) -> (options of the source) -> its documents."""

    def written(content: str | bytes | list[Any], name: str = "a.txt") -> Callable[..., list[str]]:
        if isinstance(content, list):
            name = "a.jsonl"
            content = "\n".join(json.dumps(row, ensure_ascii=False) for row in content)
        raw = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
        return lambda **options: list(documents(TextSource(path=name, share=1, **options), tmp_path))

    return written


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_a_line_is_a_document_and_empty_ones_are_left_out(write: Write, name: str) -> None:
    assert write(" one \n\n二\none\n", name)() == ["one", "二", "one"]


def test_a_file_is_one_document_with_its_empty_lines(write: Write) -> None:
    assert write("one\n\ntwo\n")(document="file") == ["one\n\ntwo"]


def test_a_row_reads_as_its_template_says(write: Write) -> None:
    rows = write([{"text": "good", "label": "positive", "stars": 5}, {"text": "坏", "label": "negative", "stars": 1}])
    assert rows(template="Review: {text}\nSentiment: {label} ({stars})") == [
        "Review: good\nSentiment: positive (5)", "Review: 坏\nSentiment: negative (1)"]


def test_of_a_list_the_first_entry_and_of_an_empty_one_nothing(write: Write) -> None:
    rows = write([{"answers": ["one", "two"]}, {"answers": []}])
    assert rows(template="<{answers}>") == ["<one>", "<>"]


def test_braces_in_a_cell_are_text(write: Write) -> None:
    assert write([{"text": "{label} {0}"}])(template="{text}") == ["{label} {0}"]


def test_rows_that_read_alike_are_one_document_in_file_order(write: Write) -> None:
    rows = write([{"text": "b"}, {"text": "a"}, {"text": "b"}])
    assert rows(template="{text}") == ["b", "a"]


def test_each_row_is_added_to_the_document_it_shares(write: Write) -> None:
    rows = write([
        {"context": "P", "question": "1", "answers": ["x"]},
        {"context": "R", "question": "2", "answers": ["y"]},
        {"context": "P", "question": "3", "answers": ["z"]},
    ])
    assert rows(**QA) == ["P\nQ: 1\nA: x\nQ: 3\nA: z", "R\nQ: 2\nA: y"]


def test_a_question_that_is_asked_twice_with_one_answer_is_read_once(write: Write) -> None:
    row = {"context": "P", "question": "1", "answers": "x"}
    assert write([row, {**row, "answers": "w"}, row])(**QA) == ["P\nQ: 1\nA: x\nQ: 1\nA: w"]


@pytest.mark.parametrize(
    ("content", "options", "code", "place"),
    [
        ('{"text": "a"}\n{"text": \n', {"template": "{text}"}, "E1110", "a.jsonl, line 2"),
        ('{"text": "a"}\n["a"]\n', {"template": "{text}"}, "E1110", "a.jsonl, line 2"),
        ('{"text": "a"}\n{"body": "b"}\n', {"template": "{text}"}, "E1112", "a.jsonl, line 2"),
        ('{"context": "a"}\n', QA, "E1112", "a.jsonl, line 1"),
        (b'{"text": "a"}\n\xff\n', {"template": "{text}"}, "E1106", "a.jsonl, line 2"),
        (b"one\ntwo \xe7\x8c\n", {}, "E1106", "a.jsonl, line 2"),
        (b"one\n\xff\n", {"document": "file"}, "E1106", "a.jsonl, line 2"),
    ],
)
def test_a_faulty_line_stops_the_reading_and_is_named(
    write: Write, content: str | bytes, options: dict[str, str], code: str, place: str
) -> None:
    with pytest.raises(DataError) as caught:
        write(content, "a.jsonl")(**options)
    assert (caught.value.code, caught.value.where) == (code, place)


def test_a_missing_column_is_named_with_those_there_are(write: Write) -> None:
    with pytest.raises(DataError, match="body") as caught:
        write([{"text": "a", "label": "b"}])(template="{body}")
    assert caught.value.allowed == "text, label"


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        list(documents(TextSource(path="none.txt", share=1), tmp_path))
    assert caught.value.code == "E1101"
