"""Answers in a file that is whole or absent, each row once, also when the process is killed at any instant.

While answers are made they stand in ``OUT.partial``, and ``OUT.journal`` says of each block where it ends and what it
holds. Both are made durable before the next block, the answers first: what the journal does not vouch for is cut off
when the same command goes on. At the end the partial file gets its name in one step, and ``OUT.manifest.json`` says
what made it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from treetune.core.errors import RunError
from treetune.core.files import disk_error, sync_folder, value_digest, write_json
from treetune.core.language import say
from treetune.core.lock import acquire
from treetune.workflow import scope

FORMAT = 1
START = "0" * 64
JOURNAL = "journal"


@dataclass(slots=True)
class Done:
    """What is written and vouched for.

    Attributes:
        verdicts: verdict -> rows. complete: nothing is left to do. damage: what was found broken and is made again.
    """

    blocks: int = 0
    rows: int = 0
    bytes: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    complete: bool = False
    damage: str = ""


class Journal:
    """The answers of one command under way; a context manager that lets go and keeps what is written.

    Args:
        output: the file of the answers. binding: name -> value of all that makes the answers what they are.
        restart: begin anew, whatever is there.

    Raises:
        RunError: E5020 another process writes this file, E5021 begun with something else, named; E5022 the journal's
            beginning cannot be read; E5001 to E5003 the disk refuses.
    """

    def __init__(self, output: Path, binding: Mapping[str, Any], restart: bool = False) -> None:
        self.output = output
        self.partial, self.path, self.manifest = (
            beside(output, end) for end in ("partial", JOURNAL, "manifest.json"))
        self.binding = json.loads(json.dumps(binding))
        self.done = Done()
        self._whole = hashlib.sha256()
        self._check = START
        self._journal: IO[bytes] = os.fdopen(claim(output), "r+b")
        try:
            self._answers: IO[bytes] = self._resume(restart)
        except BaseException as error:
            self._journal.close()
            if isinstance(error, OSError):
                raise disk_error(error, self.partial) from error
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.close()
        self._journal.close()

    def append(self, text: str, num_rows: int, verdicts: Mapping[str, int]) -> None:
        """The next block, durably: first its answers, then that they are there.

        Raises:
            RunError: E5001 to E5003 when the disk refuses.
        """
        data = text.encode("utf-8")
        try:
            self._answers.write(data)
            _sync(self._answers)
            self._say({"block": self.done.blocks, "rows": num_rows, "bytes": len(data),
                       "sha256": hashlib.sha256(data).hexdigest(), "verdicts": dict(verdicts)})
        except OSError as error:
            raise disk_error(error, self.partial) from error
        self._count(data, num_rows, verdicts)

    def finish(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Give the file its name, with a manifest of what made it; the journal goes.

        Args:
            facts: more for the manifest.

        Raises:
            RunError: E5001 to E5003 when the disk refuses.
        """
        record = {"output": self.output.name, "rows": self.done.rows, "verdicts": dict(self.done.verdicts),
                  "bytes": self.done.bytes, "sha256": self._whole.hexdigest(), "binding": self.binding, **facts,
                  "created": time.strftime("%Y-%m-%d")}
        try:
            if not self.done.complete:
                self._say({"end": True})
                self.done.complete = True
            write_json(self.manifest, record)
            if self.partial.exists():
                os.replace(self.partial, self.output)
            sync_folder(self.output.parent)
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(error, self.output) from error
        return record

    def _resume(self, restart: bool) -> IO[bytes]:
        """Take up what holds, cut off the rest; the answers' file, open at its end."""
        head: dict[str, Any] = {}
        last: dict[str, Any] = {}
        for entry, _ in self._entries():
            head, last = head or entry, entry
        named = "end" in last and not self.partial.exists()  # killed between the two last steps
        if restart or head.get("format") != FORMAT or (named and head["binding"] != self.binding):
            return self._begin(restart)
        self._refuse_changed(head["binding"])
        whole = named and self.output.exists()
        if not whole:
            self.partial.touch()
        answers = open(self.output if whole else self.partial, "r+b")  # noqa: SIM115 - held open
        kept = self._take(answers)
        if whole and self.done.damage:
            answers.close()
            raise self._untold(self.output, self.done.damage)
        answers.truncate(self.done.bytes)
        answers.seek(self.done.bytes)
        self._journal.seek(kept)
        self._journal.truncate()
        return answers

    def _begin(self, restart: bool) -> IO[bytes]:
        if not restart and self.partial.exists() and self.partial.stat().st_size:
            raise self._untold(self.partial, say("the first line of {name} is missing or broken", name=self.path.name))
        self._journal.seek(0)
        self._journal.truncate()
        self._say({"format": FORMAT, "binding": self.binding})
        return open(self.partial, "wb")

    def _untold(self, path: Path, found: str) -> RunError:
        return RunError("E5022", "it cannot be told what the answers begun here were made with", where=str(path),
                        found=found, do="give --restart to begin anew")

    def _entries(self) -> Iterator[tuple[dict[str, Any], int]]:
        """The lines as far as they hold together, each with the byte it ends at; the first says what began here."""
        check, place = START, 0
        self._journal.seek(0)
        for line in self._journal:
            place += len(line)
            try:
                entry = json.loads(line)
                own = entry.pop("check")
            except (ValueError, KeyError, AttributeError, TypeError):
                return
            if not line.endswith(b"\n") or own != value_digest([check, entry]):
                return
            check = own
            yield {**entry, "check": own}, place

    def _refuse_changed(self, before: Mapping[str, Any]) -> None:
        """Answers of two models, settings or files do not belong into one file.

        Raises:
            RunError: E5021.
        """
        changed = [name for name in {**before, **self.binding} if before.get(name) != self.binding.get(name)]
        if changed:
            shown = "; ".join(f"{name_of(name)}: {_short(before.get(name))} -> {_short(self.binding.get(name))}"
                              for name in changed)
            raise RunError("E5021", "the answers begun here were made with something else: {parts}",
                           parts=", ".join(map(name_of, changed)), where=str(self.partial), found=shown,
                           do="put it back as it was to go on, or give --restart to begin anew")

    def _take(self, answers: IO[bytes]) -> int:
        """Count the blocks that stand in the file as they were written; the byte where their journal ends."""
        kept = 0
        for entry, place in self._entries():
            if "end" in entry:
                self.done.complete = True
            elif "block" in entry:
                data = answers.read(entry["bytes"])
                if hashlib.sha256(data).hexdigest() != entry["sha256"]:
                    self.done.damage = say("block {block} is not what was written", block=entry["block"])
                    break
                self._count(data, entry["rows"], entry["verdicts"])
            self._check, kept = entry["check"], place
        return kept

    def _count(self, data: bytes, num_rows: int, verdicts: Mapping[str, int]) -> None:
        self._whole.update(data)
        self.done.blocks += 1
        self.done.rows += num_rows
        self.done.bytes += len(data)
        self.done.verdicts.update(verdicts)

    def _say(self, entry: Mapping[str, Any]) -> None:
        self._check = value_digest([self._check, entry])
        self._journal.write(json.dumps({**entry, "check": self._check}, ensure_ascii=False).encode() + b"\n")
        _sync(self._journal)


def beside(output: Path, end: str) -> Path:
    """A file that belongs to the answers."""
    return output.with_name(f"{output.name}.{end}")


def claim(output: Path) -> int:
    """A descriptor of the journal of these answers, which no other process has while this one holds it.

    Raises:
        RunError: E5020; E5001 to E5003 the disk refuses.
    """
    path = beside(output, JOURNAL)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        return acquire(path)
    except OSError as error:
        raise disk_error(error, path) from error
    except RunError as error:
        raise RunError("E5020", "another process writes these answers", where=str(output),
                       do="wait for it, or choose another --output") from error


def refuse_second(output: Path) -> None:
    """Before anything is read, and anything beside the answers is written anew.

    Raises:
        RunError: E5020.
    """
    if os.path.exists(beside(output, JOURNAL)):
        os.close(claim(output))


def name_of(part: str) -> str:
    """A part of the binding as a person calls it; of the run and its engine, as where a gate is bound to it."""
    own = {
        "data": say("the rows"), "columns": say("the names of columns"), "task": say("the task"),
        "gate": say("the gate"), "decoding": say("how answers are written"), "rows_per_block": "--block-rows",
        "recording": "--record, --log-text", "software": say("the versions of packages"),
    }
    return own.get(part) or scope.name_of(part)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:12]}…"


def _sync(handle: IO[bytes]) -> None:
    handle.flush()
    os.fsync(handle.fileno())
