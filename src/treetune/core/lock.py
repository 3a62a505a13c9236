"""One process at a time works on a run folder: a lock that names its process and machine and never outlives them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from treetune.core.errors import RunError
from treetune.core.files import disk_error, sweep

NAME = ".lock"
BEAT_SECONDS = 10.0
BEATS_MISSED = 3
NO_LOCKS_HERE = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK)
_held: dict[Path, dict[str, Any]] = {}  # run folder -> what this process wrote into its lock


@contextmanager
def run_lock(root: Path, on_event: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Hold ``root/.lock`` inside; create ``root`` where it is missing, and take an empty one of ours away again.

    The kernel's own lock (flock) ends with its process, so what a dead process of this machine leaves behind is
    taken over at once, and said. A lock written by another machine is taken over when its file has not been touched
    for three beats, watched with this machine's clock: file systems do not always carry flock across machines.

    Raises:
        RunError: E5012 another process works on the run; E5001 to E5003 when the folder cannot be written.
    """
    created = not root.exists()
    try:
        root.mkdir(parents=True, exist_ok=True)
        handle = acquire(root / NAME)
    except OSError as error:
        raise disk_error(error, root) from error
    try:
        before = holder_of(root / NAME)
        if before:
            wait_for_silence(root / NAME, before)
            on_event({"event": "lock_taken_over", "pid": before["pid"], "host": before["host"]})
        try:
            _held[root] = write_holder(handle)
        except OSError as error:
            raise disk_error(error, root) from error
        sweep(root)
        with beating(handle):
            yield
    finally:
        release(handle, root / NAME, _held.pop(root, None))
        if created:
            with contextlib.suppress(OSError):
                root.rmdir()


def acquire(path: Path) -> int:
    """A descriptor of the lock file with flock held on it.

    Raises:
        RunError: E5012. OSError: the file cannot be made.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise held_error(path, holder_of(path)) from error
            if error.errno not in NO_LOCKS_HERE:
                raise
            refuse_living(path)
            return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(handle).st_ino == os.stat(path).st_ino:
                return handle
        os.close(handle)  # its last holder took the file away between our open and our lock


def refuse_living(path: Path) -> None:
    """Where the file system knows no flock: a living process of this machine with the lock's number holds it.

    Raises:
        RunError: E5012.
    """
    holder = holder_of(path)
    if holder and holder["host"] == socket.gethostname() and Path(f"/proc/{holder['pid']}").exists():
        raise held_error(path, holder)


def held_error(path: Path, holder: dict[str, Any]) -> RunError:
    """The error for a run that another process works on."""
    return RunError(
        "E5012", "another process works on this run", where=str(path.parent),
        found=f"pid {holder.get('pid', '?')} on {holder.get('host', '?')}, since {holder.get('since', '?')}",
        do="wait for it, stop it, or choose another --output-dir",
    )


def holder_of(path: Path) -> dict[str, Any]:
    """What the lock file says of its holder, {} where it says nothing."""
    with contextlib.suppress(OSError, ValueError):
        holder = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(holder, dict) and {"pid", "host"} <= set(holder):
            return holder
    return {}


def wait_for_silence(path: Path, holder: dict[str, Any]) -> None:
    """A holder of another machine that still touches its lock is alive.

    Raises:
        RunError: E5012.
    """
    if holder["host"] == socket.gethostname():
        return
    before = path.stat().st_mtime_ns
    until = time.monotonic() + BEATS_MISSED * BEAT_SECONDS
    while time.monotonic() < until:
        time.sleep(BEAT_SECONDS / 10)
        if path.stat().st_mtime_ns != before:
            raise held_error(path, holder)


def refuse_lost(root: Path) -> None:
    """A process that stood still, or was cut off from the disk, for so long that another one took its run over must
    not write into it when it is back. Nothing where this process holds no lock of ``root``.

    Raises:
        RunError: E5012.
    """
    if root in _held and (holder := holder_of(root / NAME)) != _held[root]:
        raise held_error(root / NAME, holder)


def write_holder(handle: int) -> dict[str, Any]:
    """Put this process's name into the lock file, and give it back."""
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    os.ftruncate(handle, 0)
    os.pwrite(handle, (json.dumps(holder) + "\n").encode(), 0)
    os.fsync(handle)
    return holder


@contextmanager
def beating(handle: int) -> Iterator[None]:
    """Touch the lock file every few seconds, so that other machines see that its holder lives."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(handle)

    thread = threading.Thread(target=beat, name="run lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def release(handle: int, path: Path, written: dict[str, Any] | None) -> None:
    """Take the file away while the lock is still held, then let go. A lock that was refused us, or that another
    process has taken over, stays: its number alone may be ours, too, on another machine.
    """
    with contextlib.suppress(OSError):
        if written and holder_of(path) == written:
            path.unlink()
    os.close(handle)
