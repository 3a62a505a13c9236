"""What a person sees while it runs: a progress line on a terminal, plain lines in a pipe, nothing with --json."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from treetune.cli.table import table
from treetune.core.language import say

WARNINGS = {"lock_taken_over", "allowed_change", "other_software", "best_lost", "halved", "bad_loss", "stalled",
            "tracker_failed"}


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
        show_line(line, self.terminal, event["event"] == "step" and event["step"] < event["of"])

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
        if kind in WARNINGS:
            return warning_line(event)
        if kind in ("plan", "probe", "account", "no_plan"):
            from treetune.cli.show_plan import account_line, plan_line

            return account_line(event) if kind == "account" else plan_line(event)
        if kind == "predicting":
            return say("predicting {rows} rows with {system}", rows=event["rows"], system=event["system"])
        if kind == "evidence":
            return evidence_line(event)
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


def evidence_line(event: Mapping[str, Any]) -> str:
    """What a score that costs more has cost, and whether later answers will pay for it, too."""
    times = event["seconds"] / max(1e-9, event["answer_seconds"])
    said = {"name": event["name"], "seconds": event["seconds"], "rows": event["rows"], "times": times}
    if event["used"]:
        return say("{name}: {seconds:.1f} s for {rows} rows, {times:.2g} times what their answers took; the gate's "
                   "score uses it, so every later answer takes it, too", **said)
    return say("{name}: {seconds:.1f} s for {rows} rows, {times:.2g} times what their answers took; the gate's score "
               "does without it", **said)


def show_line(line: str, terminal: bool, passing: bool) -> None:
    """On standard error; on a terminal in the place of the line before, if that was ``passing``."""
    end = "" if terminal and passing else "\n"
    print(("\r\x1b[K" if terminal else "") + line, end=end, file=sys.stderr, flush=True)


def warning_line(event: dict[str, Any]) -> str:
    """Something that goes on, but that somebody should know."""
    kind = event["event"]
    if kind == "lock_taken_over":
        return say("the process that worked on this run before is gone (pid {pid} on {host}); going on in its place",
                   **_only(event, "pid", "host"))
    if kind == "allowed_change":
        return say("changed as allowed: {key} was {before}, is {now}", **_only(event, "key", "before", "now"))
    if kind == "other_software":
        return say("other software than the checkpoint's: {changed}; the result need not be the same to the byte",
                   changed=", ".join(f"{name} {old} -> {new}" for name, (old, new) in event["changed"].items()))
    if kind == "best_lost":
        return say("the checkpoint of the best step {best_step} is broken ({found}); the best of what follows is kept",
                   **_only(event, "best_step", "found"))
    if kind == "halved":
        return say("memory ran out ({found}): passes are half as large from here on; the rows of a step stay the same",
                   found=event["found"])
    if kind == "bad_loss":
        return say("step {step}: {found}; {left_out_steps} steps are left out of training ({rows})",
                   **_only(event, "step", "found", "left_out_steps", "rows"))
    if kind == "tracker_failed":
        return say("{tracker} does not take the run's numbers ({found}); the run goes on, and metrics.jsonl has them",
                   **_only(event, "tracker", "found"))
    return say("step {step} has been running for {seconds:.0f} s, usually {usual_seconds:.1f} s",
               **_only(event, "step", "seconds", "usual_seconds"))


def _only(event: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: event[name] for name in names}


def clock(seconds: float) -> str:
    """``3:07`` or ``1:02:07``."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def scores_table(record: Mapping[str, Any]) -> None:
    """Systems by metric, each with its interval."""
    metrics = [score["metric"] for score in next(iter(record["scores"].values()))]
    rows = [
        [system, *(f"{s['value']:.3f} [{s['low']:.3f}, {s['high']:.3f}]" for s in scores)]
        for system, scores in record["scores"].items()
    ]
    table(say("{rows} rows, 95 % intervals", rows=record["counts"]["rows"]), [say("system"), *metrics], rows)
