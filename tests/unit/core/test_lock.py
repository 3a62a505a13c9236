"""One process a run: a living holder is named and left alone, a dead one is taken over and named."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from treetune.core import lock
from treetune.core.errors import RunError
from treetune.core.lock import NAME, refuse_lost, run_lock
from treetune.workflow.log import MetricsLog, read_events

HOLD = """
import sys, time
from pathlib import Path
from treetune.core.lock import run_lock
with run_lock(Path(sys.argv[1]), print):
    print("held", flush=True)
    time.sleep(60)
"""


def holding(root: Path) -> "subprocess.Popen[str]":
    """A process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_living_holder_is_named_and_left_alone_and_a_dead_one_taken_over(tmp_path: Path) -> None:
    root = tmp_path / "run"
    process = holding(root)
    try:
        with pytest.raises(RunError) as caught, run_lock(root, lambda event: None):
            pass
        assert caught.value.code == "E5012"
        assert f"pid {process.pid} on {socket.gethostname()}" in str(caught.value)
        assert (root / NAME).exists()
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    events: list[dict[str, Any]] = []
    with run_lock(root, events.append):
        assert json.loads((root / NAME).read_text())["pid"] == os.getpid()
    assert events == [{"event": "lock_taken_over", "pid": process.pid, "host": socket.gethostname()}]
    assert list(root.iterdir()) == []


def test_two_in_one_process_are_refused_too(tmp_path: Path) -> None:
    with run_lock(tmp_path, lambda event: None):
        with pytest.raises(RunError, match="E5012"), run_lock(tmp_path, lambda event: None):
            pass
        assert (tmp_path / NAME).exists()
    assert not (tmp_path / NAME).exists()


def test_a_folder_made_for_nothing_goes_again_and_one_with_files_stays(tmp_path: Path) -> None:
    with run_lock(tmp_path / "empty", lambda event: None):
        pass
    assert not (tmp_path / "empty").exists()
    with run_lock(tmp_path / "used", lambda event: None):
        (tmp_path / "used" / "file").write_text("x")
    assert (tmp_path / "used" / "file").exists()


def test_half_written_files_of_killed_writers_are_swept(tmp_path: Path) -> None:
    (tmp_path / ".data.json.tmp-77").write_text("{")
    (tmp_path / "data.json").write_text("{}")
    with run_lock(tmp_path, lambda event: None):
        assert sorted(path.name for path in tmp_path.iterdir()) == [NAME, "data.json"]


def of_another_host(root: Path) -> Path:
    (root / NAME).write_text(json.dumps({"pid": 1, "host": "elsewhere", "since": "2026-01-01"}))
    return root / NAME


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.1)


@pytest.mark.usefixtures("quick")
def test_a_silent_holder_on_another_machine_is_taken_over(tmp_path: Path) -> None:
    of_another_host(tmp_path)
    events: list[dict[str, Any]] = []
    with run_lock(tmp_path, events.append):
        pass
    assert [event["host"] for event in events] == ["elsewhere"]


@pytest.mark.usefixtures("quick")
def test_a_holder_on_another_machine_that_still_beats_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = of_another_host(tmp_path)
    plain = time.sleep

    def sleep(seconds: float) -> None:
        plain(seconds)
        os.utime(path)

    monkeypatch.setattr(lock.time, "sleep", sleep)
    with pytest.raises(RunError, match="E5012"), run_lock(tmp_path, lambda event: None):
        pass
    assert json.loads(path.read_text())["host"] == "elsewhere"


@pytest.mark.usefixtures("quick")
def test_the_holder_beats(tmp_path: Path) -> None:
    with run_lock(tmp_path, lambda event: None):
        before = (tmp_path / NAME).stat().st_mtime_ns
        until = time.monotonic() + 20
        while (tmp_path / NAME).stat().st_mtime_ns == before:
            assert time.monotonic() < until
            time.sleep(0.02)


@pytest.mark.parametrize("now", [{"pid": os.getpid(), "host": "elsewhere", "since": "2026-01-01"}, None], ids=str)
def test_who_was_away_while_another_took_over_writes_nothing_more(now: dict[str, Any] | None, tmp_path: Path) -> None:
    root = tmp_path / "run"
    with run_lock(root, lambda event: None):
        refuse_lost(root)
        refuse_lost(tmp_path / "of no run")
        log = MetricsLog(root / "metrics.jsonl", lambda event: None)
        log({"event": "before"})
        (root / NAME).unlink()
        if now:
            (root / NAME).write_text(json.dumps(now))
        with pytest.raises(RunError, match="E5012"):
            refuse_lost(root)
        with pytest.raises(RunError, match="E5012"):
            log({"event": "after"})
    refuse_lost(root)
    assert (root / NAME).exists() == bool(now)  # the other's lock stays, though its process has our number
    assert [event["event"] for event in read_events(root / "metrics.jsonl")] == ["before"]


def test_without_flock_a_living_process_of_this_machine_is_found_by_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_here(*args: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", none_here)
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": "now"}
    (tmp_path / NAME).write_text(json.dumps(holder))
    with pytest.raises(RunError, match="E5012"), run_lock(tmp_path, lambda event: None):
        pass
    (tmp_path / NAME).write_text(json.dumps(holder | {"pid": 2**22 + 1}))
    events: list[dict[str, Any]] = []
    with run_lock(tmp_path, events.append):
        pass
    assert [event["event"] for event in events] == ["lock_taken_over"]


def test_a_disk_without_room_for_the_lock_is_a_coded_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(RunError, match="E5001"), run_lock(tmp_path, lambda event: None):
            pass
    with run_lock(tmp_path, lambda event: None):  # what was left is nobody's
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()


def test_a_folder_that_cannot_be_made_is_a_coded_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError) as caught, run_lock(tmp_path / "file", lambda event: None):
        pass
    assert caught.value.code == "E5003"


def test_a_folder_that_may_not_be_written_is_refused_before_anything_begins(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("needs a user other than root: root may write everywhere")
    (tmp_path / "run").mkdir(mode=0o500)
    with pytest.raises(RunError) as caught, run_lock(tmp_path / "run", lambda event: None):
        pass
    assert caught.value.code == "E5002"
