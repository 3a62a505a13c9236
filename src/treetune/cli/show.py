"""What a person sees while it runs: a progress line on a terminal, plain lines in a pipe, nothing with --json."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from treetune.core.language import say


class Watcher:
    """Shows events of a run on standard error."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.terminal = sys.stderr.isatty()
        self.started = time.monotonic()
        self.first_step = 0

    def __call__(self, event: dict[str, Any]) -> None:
        if event["event"] == "resumed":
            self.first_step, self.started = event["step"], time.monotonic()
        line = self.line_of(event)
        if self.quiet or not line:
            return
        if self.terminal and event["event"] == "step" and event["step"] < event["of"]:
            print("\r\x1b[K" + line, end="", file=sys.stderr, flush=True)
        else:
            print(("\r\x1b[K" if self.terminal else "") + line, file=sys.stderr, flush=True)

    def line_of(self, event: dict[str, Any]) -> str:
        """The event in one line, ``""`` for those not worth one."""
        kind = event["event"]
        if kind == "step":
            return self.step_line(event)
        if kind == "evaluation":
            return say("step {step}: validation loss {loss:.4f} (best {best_loss:.4f} at step {best_step})", **_only(
                event, "step", "loss", "best_loss", "best_step"))
        if kind == "resumed":
            return say("going on from {path}", path=event["path"])
        if kind == "broken_checkpoint":
            return say("passed over a broken checkpoint: {found}", found=event["found"])
        if kind == "tokens" and event["cut"]["examples"]:
            return say("{examples} of {rows} rows are longer than the window: {tokens} tokens cut off their sources",
                       rows=event["rows"], **event["cut"])
        if kind == "exactness" and event["used"] != event["layout"]:
            return say("this model cannot be trained on {layout} rows exactly (difference {difference}, {where}); "
                       "{used} rows are used", **_only(event, "layout", "difference", "where", "used"))
        if kind == "complete":
            return say("the run in {path} is complete; nothing to do", path=event["path"])
        if kind == "saved":
            return say("saved {path}", path=event["path"])
        if kind == "early_stop":
            return say("no gain any more: stopped at step {step}", step=event["step"])
        if kind == "predicting":
            return say("predicting {rows} rows with {system}", rows=event["rows"], system=event["system"])
        return ""

    def step_line(self, event: dict[str, Any]) -> str:
        """Loss, speed and the time that is left."""
        done = event["step"] - self.first_step
        left = (time.monotonic() - self.started) / max(1, done) * (event["of"] - event["step"])
        return say(
            "step {step}/{of}  loss {loss:.4f}  lr {rate:.2e}  {speed:,.0f} tokens/s  {left} left",
            step=event["step"], of=event["of"], loss=event["loss"], rate=event["learning_rate"],
            speed=event["row_tokens"] / max(1e-9, event["seconds"]), left=clock(left),
        )


def _only(event: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: event[name] for name in names}


def clock(seconds: float) -> str:
    """``3:07`` or ``1:02:07``."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(title=Text(title), title_justify="left")
    for place, name in enumerate(header):
        shown.add_column(Text(name), justify="left" if place == 0 else "right", overflow="fold")
    for row in rows:
        shown.add_row(*(Text(cell) for cell in row))  # as they are: [b] in a row is no markup
    Console().print(shown)


def scores_table(record: Mapping[str, Any]) -> None:
    """Systems by metric, each with its interval."""
    metrics = [score["metric"] for score in next(iter(record["scores"].values()))]
    rows = [
        [system, *(f"{s['value']:.3f} [{s['low']:.3f}, {s['high']:.3f}]" for s in scores)]
        for system, scores in record["scores"].items()
    ]
    table(say("{rows} rows, 95 % intervals", rows=record["counts"]["rows"]), [say("system"), *metrics], rows)
