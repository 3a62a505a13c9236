"""The review queue: what a person should see, what the person said, and the rows that come of it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treetune.core.errors import DataError, UsageError
from treetune.core.files import RunFolder, read_json, write_text
from treetune.core.records import Example, OutputKind, Row
from treetune.decide.wrong import parse_wrong
from treetune.evaluate.score import statistics_of
from treetune.tasks.contract import Task, TaskOptions, load_task
from treetune.workflow.decider import append_lines, queue_path, read_lines, reviews_path
from treetune.workflow.run import options_of


@dataclass(frozen=True, slots=True)
class Desk:
    """A run as a reviewer needs it: no model is loaded. ``definition``: of wrong, as the gate has it."""

    folder: RunFolder
    task: Task
    options: TaskOptions
    definition: str

    def pending(self) -> list[dict[str, Any]]:
        """What waits, each answer once: the random sample first, because the promise is watched by it."""
        done = {line["key"] for line in read_lines(reviews_path(self.folder))}
        waiting = {line["key"]: line for line in read_lines(queue_path(self.folder)) if line["key"] not in done}
        return sorted(waiting.values(), key=lambda each: not each["audited"])

    def reviewed(self) -> list[dict[str, Any]]:
        """Every outcome, oldest first."""
        return read_lines(reviews_path(self.folder))

    def question(self, waiting: Mapping[str, Any]) -> Example:
        """The row as the task understands it, without an answer."""
        return self.task.example_from_row(_row(waiting["row"]), self.options, with_answer=False)

    def record(self, waiting: Mapping[str, Any], right_answer: str | None = None, reviewer: str = "") -> dict[str, Any]:
        """Write down an outcome.

        Args:
            right_answer: None: the answer is right as it stands.

        Raises:
            DataError: E12xx the right answer is none that the task knows, e.g. no label, not in its passage.
        """
        said = waiting["answer"] if right_answer is None else right_answer
        values = {**waiting["row"], **answer_columns(self.task, said)}
        example = self.task.example_from_row(_row(values), self.options)
        outcome = {
            "key": waiting["key"], "gate": waiting["gate"], "audited": waiting["audited"],
            "verdict": waiting["verdict"], "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "reviewer": reviewer, "outcome": "accepted" if right_answer is None else "corrected",
            "wrong": right_answer is not None and self._is_wrong(waiting["answer"], example),
            "answer": waiting["answer"], "row": values,
        }
        append_lines(reviews_path(self.folder), [outcome])
        return outcome

    def _is_wrong(self, answer: str, example: Example) -> bool:
        wrong = parse_wrong(self.definition)
        statistics = statistics_of(wrong.metric, [answer], [example])
        return bool(statistics.score(statistics.rows)[0] < wrong.limit)


def open_desk(run_path: str | Path) -> Desk:
    """The desk of a run.

    Raises:
        UsageError: E2030 no such run, E2031 not finished, E2506 no gate, so nothing was queued.
    """
    folder = RunFolder(Path(run_path))
    if not folder.is_complete():
        raise UsageError("E2031" if folder.root.is_dir() else "E2030", "there is no finished run {name!r}",
                         name=str(run_path), where=str(run_path), do="check the path")
    if not folder.gate.exists():
        raise UsageError("E2506", "this run has no gate, so nothing waits for a person", where=str(run_path),
                         do="run treetune gate, then treetune predict")
    facts = read_json(folder.model / "treetune.json")
    return Desk(folder, load_task(facts["task"]), options_of(facts), read_json(folder.gate)["wrong"])


def answer_columns(task: Task, answer: str) -> dict[str, Any]:
    """The answer as cells of a row."""
    if task.NAME == "question_answering":
        return {"answers": [answer] if answer else [], "answer_start": None, "is_impossible": not answer}
    return {task.ANSWER_COLUMNS[0]: answer}


def reviewed_rows(folder: RunFolder) -> tuple[Path | None, Path | None, int]:
    """(file of the random sample, file of the others, how many of the sample still wait).

    Only the sample stands for the rows that come in: it was drawn without looking at score or verdict. The others were
    chosen because they looked doubtful; they may help to choose score and thresholds, never to test them.
    """
    outcomes = {line["key"]: line for line in read_lines(reviews_path(folder))}
    waiting = {line["key"] for line in read_lines(queue_path(folder)) if line["audited"]} - set(outcomes)
    files: list[Path | None] = []
    for audited, name in ((True, "reviewed_sample.jsonl"), (False, "reviewed_others.jsonl")):
        rows = [line["row"] for line in outcomes.values() if line["audited"] == audited]
        path = folder.trust / name
        if rows:
            write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        files.append(path if rows else None)
    return files[0], files[1], len(waiting)


def check_correction(desk: Desk, waiting: Mapping[str, Any], answer: str) -> DataError | None:
    """Why the task does not take this answer for the row; None when it does."""
    try:
        desk.task.example_from_row(_row({**waiting["row"], **answer_columns(desk.task, answer)}), desk.options)
    except DataError as error:
        return error
    if desk.task.OUTPUT == OutputKind.LABEL and answer not in desk.options.labels:
        return DataError("E1505", "this is none of the labels", found=answer, allowed=", ".join(desk.options.labels),
                         do="write one of them")
    return None


def _row(values: Mapping[str, Any]) -> Row:
    return Row(values, "review", 1, 0, "calibration")
