"""Where answers go is looked at before the first row is read: nothing is lost for a name that cannot be had."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from treetune.core.errors import RunError, UsageError
from treetune.core.language import choose_language
from treetune.workflow.journal import Journal
from treetune.workflow.output import output_file


@pytest.fixture(autouse=True)
def in_english() -> Iterator[None]:
    choose_language("en")
    yield
    choose_language("")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows" / "rows.jsonl"
    path.parent.mkdir()
    path.write_text('{"text": "good"}\n', "utf-8")
    return path


def test_a_new_file_an_old_file_and_standard_output_can_be_had(rows: Path, tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    assert output_file(str(answers), str(rows)) == answers
    answers.write_text("old\n", "utf-8")
    assert output_file(str(answers), str(rows)) == answers
    assert output_file(str(rows.parent / "answers.jsonl"), str(rows)) == rows.parent / "answers.jsonl"
    assert output_file("-", str(rows)) is None


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_a_folder_or_a_pipe_is_no_place_for_a_whole_file(
    make: Callable[[Path], None], rows: Path, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    make(place)
    for name in (str(place), ""):
        with pytest.raises(UsageError, match="E2043"):
            output_file(name, str(rows))


def test_a_link_is_followed_and_a_link_to_what_is_no_file_is_refused(rows: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "far" / "answers.jsonl")
    assert output_file(str(link), str(rows)) == (tmp_path / "far" / "answers.jsonl").resolve()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "stdout").symlink_to(tmp_path / "pipe")
    with pytest.raises(UsageError, match="E2043"):
        output_file(str(tmp_path / "stdout"), str(rows))


def test_answers_take_no_place_among_the_rows(rows: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.jsonl"
    link.symlink_to(rows)
    for output, data in ((rows, rows), (link, rows), (rows, link), (rows.parent / "a.jsonl", rows.parent)):
        with pytest.raises(UsageError, match="E2044"):
            output_file(str(output), str(data))


def test_what_another_process_writes_is_told_before_anything_is_touched(rows: Path, tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    with Journal(output, {"data": "d"}) as journal:
        journal.append("{}\n", 1, {})
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
        with pytest.raises(RunError, match="E5020") as caught:
            output_file(str(output), str(rows))
        assert "?" not in str(caught.value), "it is not said who, because nobody knows"
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    assert output_file(str(output), str(rows)) == output
