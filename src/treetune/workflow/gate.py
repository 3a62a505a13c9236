"""Setting a gate on labelled rows the run has not seen, and holding later answers to it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from treetune import __version__
from treetune.core.errors import DataError, TreetuneError, UsageError
from treetune.core.files import read_json, write_json
from treetune.core.records import Example, OutputKind, Prediction
from treetune.data.split import same_text
from treetune.decide.decision import decide, void_decisions
from treetune.decide.gate import Gate, Judged, fit_gate, sealed, split_judged
from treetune.decide.sequence import Promise
from treetune.decide.wrong import Wrong, check_wrong, known_metrics
from treetune.evaluate.score import METRICS, statistics_of
from treetune.metrics.selective import BoolArray
from treetune.tasks.contract import Task
from treetune.workflow.evaluate import answer, shown_examples
from treetune.workflow.gather import Gathered, read_for, to_examples
from treetune.workflow.log import OnEvent
from treetune.workflow.report import write_report
from treetune.workflow.run import Run, open_run
from treetune.workflow.scope import changed_in, scope_of
from treetune.workflow.seen import content_digest, seen_by

DEFAULT_WRONG = {"sentiment": "label differs", "question_answering": "f1<0.5"}


def gate(
    run_path: str, data: str, on_event: OnEvent, *, max_error: float = 0.05, confidence: float = 0.95, wrong: str = "",
    tune_data: str = "", columns: Mapping[str, str] | None = None, max_refused_share: float = 0.05,
    every_row: bool = False,
) -> dict[str, Any]:
    """Set a run's gate on labelled rows; writes ``gate.json``, the report and the card.

    Args:
        max_error: share of the accepted answers that may be wrong. confidence: chance that the gate keeps to it.
        wrong: when an answer is wrong, e.g. ``f1<0.5``; "": the task's own definition, where it has one.
        tune_data: rows that choose score and thresholds; "": two fifths of ``data``, by source.
        max_refused_share: rows that may be left out because they cannot be read or were in training.
        every_row: count rows that share a source as independent.

    Returns:
        What stands in ``gate.json``; its ``threshold`` is None when nothing can be accepted.

    Raises:
        UsageError: E2501 promise out of range, E2502 to E2505 definition of wrong. DataError: E1501 rows were in
            training, E1502 a row in both files, E1504 too few rows. RunError: E5501 training rows are not known.
    """
    promise = checked_promise(max_error, confidence)
    run = open_run(run_path)
    definition = definition_of(run.task, wrong)
    seen = seen_by(run.folder, run.task)
    parts = [gather_unseen(run, path, seen, columns or {}, max_refused_share)
             for path in (tune_data, data) if path]
    on_event({"event": "predicting", "system": "tuned", "rows": sum(len(examples) for examples, _ in parts)})
    judged = [judge(run, examples, definition) for examples, _ in parts]
    tune, calibration = judged if tune_data else split_judged(judged[0])
    record = sealed({
        "treetune_version": __version__, "created": time.strftime("%Y-%m-%d"), "task": run.task.NAME,
        "wrong": str(definition), **fit_gate(tune, calibration, promise, every_row=every_row),
        "left_out": [left_out for _, left_out in parts], "scope": scope_of(run),
    })
    write_json(run.folder.gate, record)
    write_report(run.folder, shown_examples(parts[-1][0], judged[-1].predictions))
    return record


def checked_promise(max_error: float, confidence: float) -> Promise:
    """Both between 0 and 1.

    Raises:
        UsageError: E2501.
    """
    if not 0 < max_error < 1 or not 0 < confidence < 1:
        raise UsageError("E2501", "a gate cannot promise this", found=f"max_error {max_error}, confidence {confidence}",
                         allowed="both above 0 and below 1, e.g. 0.05 and 0.95", do="write 5 % as 0.05")
    return Promise(max_error, confidence)


def definition_of(task: Task, text: str) -> Wrong:
    """What is wrong for this task."""
    best = {name: metric.best for name, metric in METRICS.items()}
    return check_wrong(text, task.NAME, known_metrics(task.METRICS, best), DEFAULT_WRONG.get(task.NAME, ""))


def gather_unseen(
    run: Run, data: str, seen: frozenset[str], columns: Mapping[str, str], max_refused_share: float
) -> tuple[list[Example], dict[str, Any]]:
    """Examples the run was not trained on, each content once, and the count of those left out.

    Raises:
        DataError: E1501 when more than ``max_refused_share`` were in training; others as in `to_examples`.
    """
    result = read_for(run.task, data, "calibration", columns)
    quarantine = run.folder.quarantine
    gathered = to_examples(run.task, result, run.options, quarantine.with_name(f"gate.{quarantine.name}"),
                           max_refused_share)
    fresh: dict[str, Example] = {}
    for each in gathered.examples:
        fresh.setdefault(content_digest(each), each)  # of equal rows the first stays
    kept = [each for digest, each in fresh.items() if digest not in seen]
    trained = sum(content_digest(each) in seen for each in gathered.examples)
    if trained > max_refused_share * len(gathered.examples):
        raise DataError("E1501", "these rows were in training, so they say nothing of the answers to come", where=data,
                        found=f"{trained} of {len(gathered.examples)} rows",
                        allowed=f"{max_refused_share:.0%} (--max-refused-share)",
                        do="give labelled rows that were kept out of tuning")
    return kept, _left_out(data, gathered, trained, len(kept))


def _left_out(data: str, gathered: Gathered, trained: int, kept: int) -> dict[str, Any]:
    return {"data": data, "digest": gathered.digest, "read": len(gathered.rows) + len(gathered.refused),
            "refused": len(gathered.refused), "in_training": trained,
            "repeated": len(gathered.examples) - trained - kept, "used": kept}


def judge(run: Run, examples: Sequence[Example], definition: Wrong) -> Judged:
    """Answer the examples and find out which answers are wrong."""
    predictions = answer(run, run.loaded, examples)
    label = run.task.OUTPUT == OutputKind.LABEL
    return Judged(tuple(predictions), wrong_answers(predictions, examples, definition),
                  tuple(same_text(each.source) or each.row_id for each in examples),
                  tuple(each.answers[0] if label else "" for each in examples))


def wrong_answers(
    predictions: Sequence[Prediction], examples: Sequence[Example], definition: Wrong
) -> BoolArray:
    """(N,) whether the metric of each answer by itself is below the limit.

    Raises:
        DataError: E1401 a row without reference, E1402 no rows.
    """
    statistics = statistics_of(definition.metric, [each.answer for each in predictions], examples)
    return np.asarray(statistics.score(statistics.rows) < definition.limit)


def with_decisions(run: Run, predictions: Sequence[Prediction]) -> list[Prediction]:
    """The predictions with a decision each, where the run has a gate; under a void gate all go to review."""
    if not run.folder.gate.exists():
        return list(predictions)
    try:
        own = Gate.from_record(read_json(run.folder.gate))
    except (TreetuneError, ValueError, KeyError, TypeError):  # broken or edited: a gate nobody can vouch for
        decisions = void_decisions(predictions, [run.folder.gate.name])
    else:
        decisions = decide(own, predictions, changed_in(own.scope, run))
    return [replace(each, decision=decision) for each, decision in zip(predictions, decisions, strict=True)]
