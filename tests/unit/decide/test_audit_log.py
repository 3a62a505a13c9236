"""The log of decisions: appended, chained, and any change of it is seen and named."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treetune.core.errors import RunError
from treetune.core.language import choose_language
from treetune.decide.audit_log import START, AuditLog


@pytest.fixture(autouse=True)
def english() -> None:
    choose_language("en")


def filled(folder: Path, count: int = 6) -> AuditLog:
    log = AuditLog(folder)
    for number in range(0, count, 2):
        log.append([{"row": number}, {"row": number + 1}])
    return log


def test_what_was_appended_is_intact_and_in_order(tmp_path: Path) -> None:
    found = filled(tmp_path).verify()
    assert (found.records, found.files, found.fault) == (6, 1, "")
    lines = [json.loads(line) for line in (tmp_path / "audit_log.jsonl").read_text("utf-8").splitlines()]
    assert [line["row"] for line in lines] == list(range(6))
    assert lines[0]["previous"] == START
    assert [line["previous"] for line in lines[1:]] == [line["digest"] for line in lines[:-1]]


def test_an_empty_log_is_intact(tmp_path: Path) -> None:
    AuditLog(tmp_path).append([])
    assert AuditLog(tmp_path).verify().records == 0


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 5), st.sampled_from(["change", "drop", "double", "swap", "garbage"]))
def test_any_change_of_a_line_is_found(place: int, how: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        log = filled(Path(name))
        lines = log.path.read_text("utf-8").splitlines()
        other = (place + 1) % 6
        if how == "change":
            lines[place] = lines[place].replace(f'"row":{place}', '"row":99')
        elif how == "drop":
            del lines[place]
        elif how == "double":
            lines.insert(place, lines[place])
        elif how == "swap":
            lines[place], lines[other] = lines[other], lines[place]
        else:
            lines[place] = "x"
        log.path.write_text("".join(line + "\n" for line in lines), "utf-8")
        assert log.verify().fault


def test_nothing_is_added_to_a_log_that_was_cut(tmp_path: Path) -> None:
    log = filled(tmp_path)
    lines = log.path.read_text("utf-8").splitlines()
    log.path.write_text("".join(line + "\n" for line in lines[:-2]), "utf-8")
    assert "missing at the end" in log.verify().fault
    with pytest.raises(RunError, match="E5505"):
        log.append([{"row": 7}])
    log.path.unlink()
    with pytest.raises(RunError, match="E5505"):
        log.append([{"row": 7}])


def test_lines_whose_head_a_crash_lost_are_counted_in(tmp_path: Path) -> None:
    log = filled(tmp_path)
    before = log.head.read_text("utf-8")
    log.append([{"row": 6}])
    log.head.write_text(before, "utf-8")  # the process died between the two writes
    log.append([{"row": 7}])
    assert (log.verify().records, log.verify().fault) == (8, "")


def test_full_files_are_set_aside_and_the_chain_goes_on(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, max_bytes=300)
    for number in range(9):
        log.append([{"row": number, "text": "x" * 50}])
    found = log.verify()
    assert (found.records, found.fault) == (9, "")
    assert found.files > 2
    sorted(tmp_path.glob("audit_log.0*.jsonl"))[0].unlink()
    assert log.verify().fault
