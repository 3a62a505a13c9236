"""What a person sees while rows of a file are answered: a line that changes on a terminal, now and then one in a pipe.

Answers themselves may go to standard output, so everything else goes to standard error.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from treetune.cli.show import clock, show_line
from treetune.core.language import say
from treetune.core.records import Prediction

PIPE_SECONDS = 30.0


class AnswersWatcher:
    """Shows the events of `treetune.workflow.predict.predict_file`."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.terminal = sys.stderr.isatty()
        self.last = time.monotonic()

    def __call__(self, event: dict[str, Any]) -> None:
        line = line_of(event)
        if self.quiet or not line:
            return
        running = event["event"] == "answered" and event["rows"] < event["of"]
        now = time.monotonic()
        if self.terminal or not running or now - self.last >= PIPE_SECONDS:
            self.last = now
            show_line(line, self.terminal, running)


def line_of(event: Mapping[str, Any]) -> str:
    """The event in one line, ``""`` for those not worth one."""
    kind = event["event"]
    if kind == "answered":
        speed = event["rows_per_second"]
        return say("{rows} of {of} rows  {speed:,.1f} rows/s  {left} left", rows=event["rows"], of=event["of"],
                   speed=speed, left=clock((event["of"] - event["rows"]) / max(1e-9, speed)))
    if kind == "going_on":
        line = say("going on behind row {rows} of {of} in {path}", rows=event["rows"], of=event["of"],
                   path=event["path"])
        return line + (say("; {damage}: from there all is answered again", damage=event["damage"])
                       if event["damage"] else "")
    if kind == "rows" and event["refused"]:
        return say("{refused} rows are refused, {rows} are answered", refused=event["refused"], rows=event["rows"])
    if kind == "parity":
        return say("{engine}: {equal:.1%} of {rows} answers equal those of the run's own engine",
                   engine=event["engine"], equal=event["equal_answers"], rows=event["rows"])
    return ""


def print_answers(predictions: Sequence[Prediction]) -> None:
    """To standard output, as they would stand in a file."""
    from treetune.workflow.answer_lines import to_lines

    sys.stdout.write(to_lines(predictions))
    sys.stdout.flush()


def summary_lines(record: Mapping[str, Any], output: str) -> list[str]:
    """What was done, for a person."""
    lines = [say("{rows} answers in {path}", rows=record["rows"], path=output)]
    verdicts = ", ".join(f"{name} {count}" for name, count in sorted(record["verdicts"].items()))
    if set(record["verdicts"]) - {"ungated"}:
        lines.append(say("decisions: {verdicts}", verdicts=verdicts))
    if record["refused"]:
        lines.append(say("{refused} rows were refused, listed in {path}", refused=record["refused"],
                         path=f"{output}.quarantine.jsonl"))
    return lines
