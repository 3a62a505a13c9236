"""The runs a server answers with: looked up by name only, and taken up anew when their folders change."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treetune.core.errors import RunError, TreetuneError, UsageError
from treetune.core.files import RunFolder, read_json
from treetune.tasks.contract import Column, Task

if TYPE_CHECKING:
    from treetune.workflow.run import Run

OF_THE_ANSWER = ("answer_start", "is_impossible")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
Signature = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """One state of a run in memory; a request is answered by the state it was taken in under.

    Attributes:
        changed: parts of the gate's scope that are not as the gate says; None without a readable gate.
        gated: whether there is a gate file at all. digest: of the weights, sha256. gate_digest: of the gate.
        signature: what the folder looked like. loaded: seconds since the epoch.
    """

    name: str
    run: Run
    changed: tuple[str, ...] | None
    gated: bool
    digest: str
    gate_digest: str
    signature: Signature
    loaded: int


def parse_names(words: Iterable[str]) -> dict[str, str]:
    """``RUN`` or ``NAME=RUN`` -> folder by name; a folder called ``tuned`` goes by its parent's name.

    Raises:
        UsageError: E2701 a name that is none, E2702 one name twice.
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, folder = word.partition("=")
        path = Path(folder if equals else word).resolve()
        name = name if equals else path.name if path.name != "tuned" else path.parent.name
        if not NAME.fullmatch(name) or ".." in name:
            raise UsageError("E2701", "this cannot be a run's name on the server", found=repr(name),
                             allowed="letters, digits, . _ and -, at most 64", do="give one: NAME=FOLDER")
        if name in found:
            raise UsageError("E2702", "two runs go by the name {name!r}", name=name, found=f"{found[name]}, {path}",
                             do="name one of them: NAME=FOLDER")
        found[name] = str(path)
    return found


def load(name: str, folder: str) -> Served:
    """Load a run whole; what is written meanwhile is not half taken in.

    Raises:
        RunError: E5601 the folder changed while it was read. Others as `open_run`.
    """
    from treetune.workflow.evidence import scope_now
    from treetune.workflow.run import open_run

    before = signature_of(RunFolder(Path(folder)))
    run = open_run(folder)
    run.loaded.model.eval()
    scope, _ = scope_now(run)
    gated = run.folder.gate.exists()
    changed, gate_digest = _against_gate(run.folder, scope) if gated else (None, "")
    if signature_of(run.folder) != before:
        raise RunError("E5601", "the run's folder changed while it was read", where=name,
                       do="wait until it is written, then try again")
    return Served(name, run, changed, gated, scope["weights"], gate_digest, before, int(time.time()))


def _against_gate(folder: RunFolder, scope: Mapping[str, str]) -> tuple[tuple[str, ...] | None, str]:
    from treetune.workflow.scope import parts_changed

    try:
        record = read_json(folder.gate)
        bound: Mapping[str, str] = record["scope"]
        return tuple(parts_changed(bound, scope)), str(record.get("digest", ""))
    except (TreetuneError, KeyError, TypeError, AttributeError):  # deciding will say that nobody can vouch for it
        return None, ""


def signature_of(folder: RunFolder) -> Signature:
    """Name, time and size of every file that answers depend on."""
    paths = [*folder.model.glob("*"), folder.gate]
    return tuple(sorted((path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in paths if path.is_file()))


class Runs:
    """Name -> the state in force. Replacing one is a single assignment; who holds the old one keeps it."""

    def __init__(self, folders: Mapping[str, str]) -> None:
        self.folders = dict(folders)
        self.served: dict[str, Served] = {name: load(name, folder) for name, folder in folders.items()}
        self.stale: dict[str, str] = {}  # name -> code of the fault that keeps its new state out
        self._seen: dict[str, Signature] = {}
        self._bad: dict[str, Signature] = {}

    def find(self, name: str) -> Served | None:
        """The run of that name; a name is never a path."""
        return self.served.get(name)

    def of_task(self, task: str) -> Served | None:
        """The first run that does this task."""
        return next((each for each in self.served.values() if task == each.run.task.NAME), None)

    def reload_changed(self) -> dict[str, str]:
        """Take up runs whose folder changed and then stood still for one look; name -> "ok" or the fault's code."""
        done: dict[str, str] = {}
        for name, folder in self.folders.items():
            try:
                now = signature_of(RunFolder(Path(folder)))
            except OSError:  # a file went between listing and looking
                continue
            settled, self._seen[name] = self._seen.get(name) == now, now
            if now == self.served[name].signature:
                self.stale.pop(name, None)
            elif settled and self._bad.get(name) != now:
                done[name] = self._reload(name, folder, now)
        return done

    def _reload(self, name: str, folder: str, now: Signature) -> str:
        try:
            self.served[name] = load(name, folder)
        except Exception as error:  # noqa: BLE001 - whatever the new files hold, the old state stays in force
            self._bad[name] = now
            self.stale[name] = str(getattr(error, "code", "E9000"))
            return self.stale[name]
        self.stale.pop(name, None)
        return "ok"


def asked_columns(task: Task) -> list[Column]:
    """What a client sends of a row; columns that describe the answer are not among them."""
    return [column for column in task.COLUMNS
            if column.name not in task.ANSWER_COLUMNS and column.name not in OF_THE_ANSWER]


def facts_of(served: Served) -> dict[str, Any]:
    """A run as ``/v1/runs`` shows it, in the language in force."""
    from treetune.decide.wording import guarantee, outcome

    run = served.run
    gate: dict[str, Any] = {"set": served.gated, "valid": served.changed == (), "guarantee": "", "outcome": []}
    if served.gated and served.changed is not None:
        record = read_json(run.folder.gate)
        gate |= {"guarantee": guarantee(record), "outcome": outcome(record)}
    return {
        "name": served.name, "task": run.task.NAME, "output": str(run.task.OUTPUT), "labels": list(run.options.labels),
        "columns": [{"name": column.name, "required": column.required} for column in asked_columns(run.task)],
        "weights_sha256": served.digest, "loaded": served.loaded, "gate": gate, "report": run.folder.report.is_file(),
        "max_length": run.max_length, "max_new_tokens": run.max_new_tokens,
    }
