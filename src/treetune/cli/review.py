"""``treetune review``: work through the answers that a run's gate left to a person."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from treetune.core.language import say

if TYPE_CHECKING:
    from treetune.workflow.review import Desk

MOST_SHOWN = 1200


def run(
    run_folder: Annotated[str, typer.Argument(metavar="RUN", help="run folder with a gate, after treetune predict")],
    reviewer: Annotated[str, typer.Option(help="name to write beside each outcome")] = "",
    limit: Annotated[int, typer.Option(min=0, help="stop after so many answers; 0: all that wait")] = 0,
    json_output: Annotated[bool, typer.Option("--json", help="only print what waits, one JSON object a line")] = False,
) -> int:
    """Work through the answers that wait for a person: accept, correct or skip each; stop and go on at any time."""
    from treetune.workflow.review import open_desk

    desk = open_desk(run_folder)
    waiting = desk.pending()[: limit or None]
    if json_output:
        for each in waiting:
            print(json.dumps(each, ensure_ascii=False))
        return 0
    done = skipped = 0
    for number, each in enumerate(waiting, 1):
        show(desk, each, number, len(waiting))
        said = ask(desk, each)
        if said is None:
            break
        if not said:
            skipped += 1
            continue
        desk.record(each, said[1], reviewer)
        done += 1
    left = len(waiting) - done - skipped
    print(say("{done} written down, {skipped} skipped, {left} left", done=done, skipped=skipped, left=left))
    return 0


def show(desk: Desk, waiting: Mapping[str, Any], number: int, count: int) -> None:
    """The row, the answer, and why it is here."""
    example = desk.question(waiting)
    print(f"\n[{number}/{count}]" + (say("  drawn by lot") if waiting["audited"] else ""))
    print(example.source[:MOST_SHOWN] + ("…" if len(example.source) > MOST_SHOWN else ""))
    if example.question:
        print(say("question: {text}", text=example.question))
    print(say("answer: {text}", text=waiting["answer"] or "–"))
    for reason in waiting["reasons"]:
        print(f"  {reason['text']}" + (f": {reason['evidence']}" if reason["evidence"] else ""))


def ask(desk: Desk, waiting: Mapping[str, Any]) -> tuple[str, str | None] | tuple[()] | None:
    """("accept", None), ("correct", right answer), () to skip, None to stop; the end of the input stops, too."""
    from treetune.workflow.review import check_correction

    while True:
        said = line(say("[a]ccept, [c]orrect, [s]kip, [q]uit: "))
        if said is None or said in ("q", "quit"):
            return None
        if said in ("s", "skip"):
            return ()
        if said in ("a", "accept"):
            return "accept", None
        if said in ("c", "correct"):
            right = line(say("the right answer: "))
            if right is None:
                return None
            refused = check_correction(desk, waiting, right)
            if refused is None:
                return "correct", right
            print(refused)
        else:
            print(say("type a, c, s or q"))


def line(prompt: str) -> str | None:
    """One line of the input without its end; None at its end."""
    sys.stdout.write(prompt)
    sys.stdout.flush()
    read = sys.stdin.readline()
    return read.strip() if read else None
