"""Passes the numbers of a run on to the trackers that were asked for. No tracker can stop a run."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from treetune.core.errors import RunError
from treetune.core.files import RunFolder, read_json, write_json
from treetune.core.settings import LoopSettings, reported_to
from treetune.workflow.log import MetricsLog, OnEvent
from treetune.workflow.trackers.contract import EXPECTED, Begin, Tracker, load_tracker

FOLDER = "trackers"
KEPT = "trackers.json"
MOST_FAILURES = 5  # in a row; then it is left alone, for each may have waited for a network
PREFIXES = {"step": "train", "evaluation": "validation"}
NOT_TOLD = {"step", "of"}  # the step is the axis


@dataclass(slots=True)
class Told:
    """How it goes with one tracker. ``open``: None before it begins, and when it is left alone."""

    open: Tracker | None = None
    id: str = ""
    sent: int = 0
    failed: int = 0
    in_a_row: int = 0


class Reporting:
    """Hears the events of a run, hands them on, and tells trackers the numbers; a context manager that ends them.

    Trackers begin with the first event that has a step: settings are held against those of before by then, and it is
    known from which step on a resumed run goes. Ids are kept in ``trackers.json``, so that it is the same run there.

    Args:
        on_event: who else listens.
    """

    def __init__(self, settings: LoopSettings, folder: RunFolder, on_event: OnEvent) -> None:
        self.settings = settings
        self.folder = folder
        self.on_event = on_event
        self.trackers = {name: Told() for name in reported_to(settings)}
        self.begun = False
        self.step = 0

    def __enter__(self) -> Reporting:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        for name, told in self.trackers.items():
            with self._watched(name, told) as tracker:
                if tracker:
                    tracker.end(finished=kind is None)
        if self.begun:
            self._keep()

    def __call__(self, event: dict[str, Any]) -> None:
        """Hand the event on, then tell its numbers."""
        self.on_event(event)
        if not self.trackers:
            return
        if "step" in event:
            self.step = int(event["step"])
            if not self.begun:
                self._begin(self.step - (event["event"] != "resumed"))
        values = numbers_of(event)
        if not values or not self.begun:
            return
        for name, told in self.trackers.items():
            with self._watched(name, told) as tracker:
                if tracker:
                    tracker.numbers(values, self.step)
                    told.sent += 1
                    told.in_a_row = 0

    def _begin(self, kept_steps: int) -> None:
        self.begun = True
        before: dict[str, Any] = {}
        with contextlib.suppress(RunError):  # missing or broken: they begin anew
            before = dict(read_json(self.folder.root / KEPT))
        settings = settings_of(self.settings)
        for name, told in self.trackers.items():
            told.id = str(before.get(name, {}).get("id", ""))
            how = Begin(self.folder.root / FOLDER, self.folder.root.resolve().name, told.id, settings, kept_steps)
            with self._watched(name, told):
                told.open = load_tracker(name).begin(how)
                told.id = told.open.id
        self._keep()

    def _keep(self) -> None:
        write_json(self.folder.root / KEPT, {name: {"id": told.id, "sent": told.sent, "failed": told.failed}
                                             for name, told in self.trackers.items()})

    @contextlib.contextmanager
    def _watched(self, name: str, told: Told) -> Iterator[Tracker | None]:
        """The tracker, None where it is left alone; what it lets out is counted, and told the first time.

        What it prints goes to standard error, for standard output is the command's own.
        """
        try:
            with contextlib.redirect_stdout(sys.stderr):
                yield told.open
        except failures_of(name) as error:
            told.failed += 1
            told.in_a_row += 1
            if told.in_a_row >= MOST_FAILURES:
                told.open = None
            if told.failed == 1:
                MetricsLog(self.folder.metrics, self.on_event)({
                    "event": "tracker_failed", "tracker": name, "found": " ".join(str(error).split())[:300]})


def failures_of(name: str) -> tuple[type[Exception], ...]:
    """What may come out of a tracker; of one that cannot even be imported, what an import lets out."""
    try:
        return load_tracker(name).failures()
    except EXPECTED:
        return EXPECTED


def numbers_of(event: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an event by the names they are drawn under; {} of events that are not drawn. Never a text."""
    if event["event"] == "account":
        return {f"account/{name}": number for name, value in event["actual"].items()
                if (number := number_of(value)) is not None}
    prefix = PREFIXES.get(event["event"])
    return {f"{prefix}/{name}": number for name, value in event.items()
            if prefix and name not in NOT_TOLD and (number := number_of(value)) is not None}


def number_of(value: Any) -> float | None:
    """A finite number, also of a quantity with its range; None of anything else."""
    if isinstance(value, Mapping):
        value = value.get("value")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def settings_of(settings: LoopSettings) -> dict[str, Any]:
    """The settings as flat names and plain values; of files and folders of this machine only the last name.

    Of an instruction, which may show rows as examples, the number of its characters.
    """
    found: dict[str, Any] = {}

    def note(name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, each in value.items():
                note(f"{name}.{key}", each)
        elif isinstance(value, list | tuple):
            for place, each in enumerate(value):
                note(f"{name}.{place}", each)
        elif isinstance(value, str):
            found[name] = last_name(value)
        elif value is not None:
            found[name] = value

    for name, value in settings.model_dump().items():
        note(name, len(value) if name == "instruction" and value else value)
    return found


def last_name(text: str) -> str:
    """``train.csv`` of a path that is there or that begins at the root; any other text as it is."""
    return Path(text).name if "/" in text and (os.path.isabs(text) or os.path.exists(text)) else text
