"""A log of decisions that shows when somebody changed it: every line holds the digest of the line before.

Lines are JSON, appended and never rewritten. A second file holds number and digest of the last line, so that lines
cut off at the end are missed. Whoever can write both files can make up a whole new log: keep a copy of the last
digest elsewhere if that matters.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treetune.core.errors import RunError
from treetune.core.files import disk_error, value_digest, write_json
from treetune.core.language import say

START = "0" * 64
MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Verified:
    """``records``: lines that hold together, over all ``files``. ``fault``: what is wrong, "" when nothing is."""

    records: int
    files: int
    fault: str
    where: str
    head: str


class AuditLog:
    """``audit_log.jsonl`` in a folder; full files are set aside as ``audit_log.0001.jsonl`` and so on."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self.folder = folder
        self.path = folder / "audit_log.jsonl"
        self.head = folder / "audit_log.head.json"
        self.max_bytes = max_bytes

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """All of them, durably, one process at a time.

        Raises:
            RunError: E5001 to E5003 when the disk refuses; E5505 the log was tampered with, so nothing is added.
        """
        if not records:
            return
        with self._locked():
            number, previous = self._last()
            lines = []
            for record in records:
                body = json.dumps({**record, "number": number + 1, "previous": previous}, ensure_ascii=False,
                                  sort_keys=True, separators=(",", ":"))  # as `value_digest` has it
                number, previous = number + 1, hashlib.sha256(body.encode()).hexdigest()
                lines.append(f'{body[:-1]},"digest":"{previous}"}}')
            self._write("".join(line + "\n" for line in lines))
            write_json(self.head, {"number": number, "digest": previous})

    def verify(self) -> Verified:
        """Read everything again, and find the first line that does not hold."""
        number, previous, files = 0, START, self._files()
        for path in files:
            for place, line in enumerate(path.read_text("utf-8").splitlines(), 1):
                fault, digest = _fault(line, number, previous)
                if fault:
                    return Verified(number, len(files), fault, f"{path.name}, {place}", previous)
                number, previous = number + 1, digest
        head = self._head()
        if (head["number"], head["digest"]) != (number, previous):
            return Verified(number, len(files), say("lines are missing at the end, or {name} was changed",
                                                    name=self.head.name), self.path.name, previous)
        return Verified(number, len(files), "", "", previous)

    def _files(self) -> list[Path]:
        return [*sorted(self.folder.glob("audit_log.[0-9]*.jsonl")), *([self.path] if self.path.exists() else [])]

    def _head(self) -> dict[str, Any]:
        try:
            found = json.loads(self.head.read_text("utf-8"))
            return {"number": found["number"], "digest": found["digest"]}
        except (OSError, ValueError, KeyError, TypeError):
            return {"number": 0, "digest": START}

    def _last(self) -> tuple[int, str]:
        """Number and digest of the last line; a line that a crash left without its head is counted in."""
        files = self._files()
        line = _last_line(files[-1]) if files else ""
        if not line:
            head = self._head()
            if head["number"]:
                raise self._broken(say("lines are missing at the end, or {name} was changed", name=self.head.name))
            return 0, START
        try:
            found = json.loads(line)
            number, previous = int(found["number"]), str(found["previous"])
        except (ValueError, KeyError, TypeError) as error:
            raise self._broken(say("the line is not what was written")) from error
        fault, digest = _fault(line, number - 1, previous)
        if fault or number < self._head()["number"]:
            raise self._broken(fault or say("lines are missing at the end, or {name} was changed", name=self.head.name))
        return number, digest

    def _broken(self, found: str) -> RunError:
        return RunError("E5505", "the audit log is not as it was written", where=str(self.path), found=found,
                        do="look at it with treetune audit-log verify; move it away to begin a new one")

    def _write(self, text: str) -> None:
        try:
            if self.path.exists() and self.path.stat().st_size > self.max_bytes:
                self.path.rename(self.folder / f"audit_log.{len(self._files()):04d}.jsonl")
            with open(self.path, "a", encoding="utf-8") as handle:
                handle.write(text)
                handle.flush()
                os.fsync(handle.fileno())
        except OSError as error:
            raise disk_error(error, self.path) from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        path = self.folder / ".audit_log.lock"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = open(path, "w", encoding="utf-8")  # noqa: SIM115 - closed below
        except OSError as error:
            raise disk_error(error, path) from error
        with handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def _fault(line: str, number: int, previous: str) -> tuple[str, str]:
    """("" or what is wrong, digest) of a line that should follow number and digest of the one before."""
    try:
        record = json.loads(line)
        digest = record.pop("digest")
    except (ValueError, KeyError, AttributeError, TypeError):
        return say("the line is not what was written"), ""
    if record.get("number") != number + 1 or record.get("previous") != previous:
        return say("a line before it is missing, doubled or changed"), ""
    if value_digest(record) != digest:
        return say("the line is not what was written"), ""
    return "", digest


def _last_line(path: Path) -> str:
    """The last line, read from the end."""
    with open(path, "rb") as handle:
        size = handle.seek(0, os.SEEK_END)
        step = 1 << 14
        while True:
            handle.seek(max(0, size - step))
            lines = handle.read().decode("utf-8", errors="replace").splitlines()
            if len(lines) > 1 or step >= size:
                return lines[-1] if lines else ""
            step *= 4
