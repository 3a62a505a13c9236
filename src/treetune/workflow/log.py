"""What happened, kept in the run folder and shown to whoever watches."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from treetune.core.files import disk_error, write_text
from treetune.core.lock import refuse_lost

OnEvent = Callable[[dict[str, Any]], None]


class MetricsLog:
    """Appends events to ``metrics.jsonl`` and passes them on.

    Lines of steps that a lost attempt wrote after the last checkpoint are taken out when the steps are taken again,
    so that every step stands in the file once; so is a last line that a crash left unfinished.
    """

    def __init__(self, path: Path, watch: OnEvent) -> None:
        self.path = path
        self.watch = watch
        self.placed = False
        self.begun = False

    def __call__(self, event: dict[str, Any]) -> None:
        """Write one event.

        Raises:
            RunError: E5001 no space, E5002 no permission, E5003 other failure of the disk, E5012 another process took
                the run over.
        """
        refuse_lost(self.path.parent)
        if not self.placed and "step" in event:
            self.placed = True
            self.drop_after(event["step"] - (event["event"] != "resumed"))
        line = json.dumps(event, ensure_ascii=False) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a+b") as handle:
                if not self.begun and handle.tell():  # a line that a crash cut off must not swallow ours
                    handle.seek(-1, os.SEEK_END)
                    line = line if handle.read(1) == b"\n" else "\n" + line
                handle.write(line.encode("utf-8"))
                if event["event"] == "checkpoint":  # what the log says of these steps is as durable as they are
                    handle.flush()
                    os.fsync(handle.fileno())
            self.begun = True
        except OSError as error:
            raise disk_error(error, self.path) from error
        self.watch(event)

    def drop_after(self, step: int) -> None:
        """Take out the lines of steps after ``step``."""
        kept = [event for event in read_events(self.path) if event.get("step", 0) <= step]
        write_text(self.path, "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in kept))


def read_events(path: Path) -> list[dict[str, Any]]:
    """All events of a run, oldest first; [] where there are none. A line that a crash cut off is passed over."""
    if not path.exists():
        return []
    events = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            events.append(json.loads(line))
    return [event for event in events if isinstance(event, dict)]
