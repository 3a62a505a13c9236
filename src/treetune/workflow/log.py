"""What happened, kept in the run folder and shown to whoever watches."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from treetune.core.files import write_text

OnEvent = Callable[[dict[str, Any]], None]


class MetricsLog:
    """Appends events to ``metrics.jsonl`` and passes them on.

    After a resume from step N, lines of later steps (written after the last checkpoint) are taken out first, so
    that every step stands in the file once.
    """

    def __init__(self, path: Path, watch: OnEvent) -> None:
        self.path = path
        self.watch = watch
        path.parent.mkdir(parents=True, exist_ok=True)

    def __call__(self, event: dict[str, Any]) -> None:
        if event["event"] == "resumed":
            self.drop_after(event["step"])
        with open(self.path, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(event, ensure_ascii=False) + "\n")
        self.watch(event)

    def drop_after(self, step: int) -> None:
        """Take out the lines of steps after ``step``."""
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if json.loads(line).get("step", 0) <= step]
            write_text(self.path, "".join(line + "\n" for line in kept))


def read_events(path: Path) -> list[dict[str, Any]]:
    """All events of a run, oldest first; [] where there are none."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
