"""Runs that are killed: a process forked after the imports does the work, SIGKILL ends it, another goes on.

Forking costs milliseconds where a fresh process costs seconds of imports, so that hundreds of kills fit into minutes.
What is killed is the same: nothing of the child is in its parent, and SIGKILL leaves it no last word.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn


@dataclass(frozen=True, slots=True)
class Ended:
    """How a forked process ended: by ``killed`` or with ``code``, after ``seconds``."""

    killed: bool
    code: int
    seconds: float


def forked(work: Callable[[], int], log: Path, ready: Callable[[], bool] | None = None, delay: float = 0.0) -> Ended:
    """Run ``work`` in a forked process, its output appended to ``log``; SIGKILL it ``delay`` seconds after ``ready()``
    became true.
    """
    gc.freeze()  # what is shared is not walked through, and so not copied, in the child
    sys.stdout.flush()
    sys.stderr.flush()
    began = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 warns of forking a process with threads
        child = os.fork()
    if child == 0:
        forked_body(work, log)
    status = wait(child, ready, delay)
    return Ended(os.WIFSIGNALED(status), os.waitstatus_to_exitcode(status), time.monotonic() - began)


def forked_body(work: Callable[[], int], log: Path) -> NoReturn:
    """What a forked process does: ``work``, its output appended to ``log``; it never comes back."""
    code = 1
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        code = work()
    except BaseException:  # noqa: BLE001 - a forked process must not come back into its parent's code
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def wait(child: int, ready: Callable[[], bool] | None, delay: float) -> int:
    """The child's status; killed ``delay`` seconds after ``ready()``."""
    until = None
    while ready:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        if until is None and ready():
            until = time.monotonic() + delay
        if until is not None and time.monotonic() >= until:
            os.kill(child, signal.SIGKILL)
            break
        time.sleep(0.004)
    return os.waitpid(child, 0)[1]


CALLS = ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir", "ftruncate", "pwrite")


class DieAt:
    """Counts calls that change a file system while inside `armed`, and SIGKILLs this process in the ``number``-th.

    A write dies after half of its bytes, any other call before it is made.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.count = 0
        self.names: list[str] = []

    def note(self, name: str) -> bool:
        """One call; whether it is the last."""
        self.count += 1
        self.names.append(name)
        return self.count == self.number

    def arm(self) -> None:
        """Put the counters in; meant for a forked process, which ends with them."""
        from treetune.core import files

        for name in CALLS:
            plain = getattr(os, name)
            setattr(os, name, self.counted(name, plain))
        plain_open = open

        def open_counted(path: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            if "w" not in mode and "a" not in mode:
                return plain_open(path, mode, *args, **options)
            if self.note("open"):
                os.kill(os.getpid(), signal.SIGKILL)
            return CountedFile(plain_open(path, mode, *args, **options), self)

        files.open = open_counted  # type: ignore[attr-defined]

    def counted(self, name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        """``plain`` that dies where its turn has come."""

        def call(*args: Any, **options: Any) -> Any:
            if self.note(name):
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(*args, **options)

        return call


class CountedFile:
    """A file open for writing whose writes are counted."""

    def __init__(self, handle: Any, die: DieAt) -> None:
        self.handle = handle
        self.die = die

    def write(self, data: Any) -> int:
        """Write all, or half and die."""
        if self.die.note("write"):
            view = memoryview(data).cast("B")
            self.handle.write(view[: len(view) // 2])
            self.handle.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return int(self.handle.write(data))

    def __enter__(self) -> CountedFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.handle.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.handle, name)
