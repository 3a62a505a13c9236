"""metrics.jsonl: every step once, whatever happened in between."""

import errno
from pathlib import Path
from typing import Any

import pytest

from treetune.core.errors import RunError
from treetune.workflow import log as log_module
from treetune.workflow.log import MetricsLog, read_events


def write(path: Path, *events: dict[str, Any]) -> None:
    log = MetricsLog(path, lambda event: None)
    for event in events:
        log(event)


def steps(path: Path) -> list[int]:
    return [event["step"] for event in read_events(path) if event["event"] == "step"]


def test_events_are_kept_in_order_and_passed_on(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    log = MetricsLog(tmp_path / "run" / "metrics.jsonl", seen.append)
    events = [{"event": "tokens", "rows": 3}, {"event": "step", "step": 1}, {"event": "note", "text": "好"}]
    for event in events:
        log(event)
    assert seen == events == read_events(tmp_path / "run" / "metrics.jsonl")


def test_a_resumed_run_drops_the_lost_steps(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, *({"event": "step", "step": step} for step in (1, 2, 3)))
    write(path, {"event": "resumed", "step": 2}, {"event": "step", "step": 3})
    assert steps(path) == [1, 2, 3]


def test_a_run_that_starts_again_without_a_checkpoint_drops_all_of_them(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, *({"event": "step", "step": step} for step in (1, 2, 3)))
    write(path, {"event": "tokens", "rows": 1}, {"event": "step", "step": 1}, {"event": "step", "step": 2})
    assert steps(path) == [1, 2]


@pytest.mark.parametrize("rest", ['{"event": "st', "\n\n", "[]\n", "\x00\x00\x00"])
def test_what_a_crash_left_is_passed_over(rest: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, {"event": "step", "step": 1})
    with open(path, "a", encoding="utf-8") as handle:
        handle.write(rest)
    assert steps(path) == [1]
    write(path, {"event": "resumed", "step": 1}, {"event": "step", "step": 2})
    assert steps(path) == [1, 2]
    assert len(path.read_text("utf-8").splitlines()) == 3


def test_no_file_means_no_events(tmp_path: Path) -> None:
    assert read_events(tmp_path / "metrics.jsonl") == []


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(log_module, "open", refuse, raising=False)
    with pytest.raises(RunError) as caught:
        write(tmp_path / "metrics.jsonl", {"event": "tokens"})
    assert caught.value.code == "E5001"
