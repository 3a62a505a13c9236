"""Setting a gate on labelled rows the run has not seen, and holding later answers to it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from treetune.core.errors import DataError, UsageError
from treetune.core.files import model_digest, value_digest, write_json
from treetune.core.records import Example, OutputKind, Prediction
from treetune.core.settings import EvidenceSettings, read_settings
from treetune.core.version import __version__
from treetune.data.split import same_text
from treetune.decide.drift import ALARM_CHANCE, reference_of
from treetune.decide.evidence import limits_of
from treetune.decide.gate import Gate, fit_gate, sealed
from treetune.decide.judged import Judged, joined, one_per_group, split_judged
from treetune.decide.sequence import Promise
from treetune.decide.support import with_text_scores
from treetune.decide.validators.contract import all_findings, validators_of
from treetune.decide.wrong import Wrong, check_wrong, known_metrics
from treetune.evaluate.score import METRICS, statistics_of
from treetune.metrics.selective import BoolArray
from treetune.tasks.contract import Task
from treetune.workflow.decider import Decider, Recording
from treetune.workflow.engines import engine_for, refuse_kept_back
from treetune.workflow.evidence import (
    Evidence,
    WithEvidence,
    asked_for,
    evidence_record,
    needed_names,
)
from treetune.workflow.gather import Gathered, read_for, to_examples
from treetune.workflow.log import OnEvent
from treetune.workflow.report import write_report
from treetune.workflow.review import reviewed_rows
from treetune.workflow.run import Run, open_run
from treetune.workflow.scope import scope_of
from treetune.workflow.seen import content_digest, seen_by

if TYPE_CHECKING:
    from treetune.predict.engines.contract import Engine

REVIEWED = ("sample", "others")
DEFAULT_WRONG = {"sentiment": "label differs", "question_answering": "f1<0.5"}


def gate(
    run_path: str, data: str, on_event: OnEvent, *, max_error: float = 0.05, confidence: float = 0.95, wrong: str = "",
    tune_data: str = "", columns: Mapping[str, str] | None = None, max_refused_share: float = 0.05,
    every_row: bool = False, by: str = "", with_reviews: bool = False, engine: str = "", engine_model: str = "",
    **evidence: Any,
) -> dict[str, Any]:
    """Set a run's gate on labelled rows; writes ``gate.json``, what drift is measured against, the report, the card.

    Args:
        data: "": what reviewers have said is all there is. max_error: share of the accepted answers that may be wrong.
        confidence: chance that the gate keeps to it. wrong: when an answer is wrong, e.g. ``f1<0.5``; "": the task's
            own definition, where it has one.
        tune_data: rows that choose score and thresholds; "": two fifths of ``data``, by source.
        max_refused_share: rows that may be left out because they cannot be read or were in training.
        every_row: count rows that share a source as independent. by: column; the bound then holds in every group.
        with_reviews: also use the outcomes of ``treetune review``.
        engine, engine_model: what answers, see `treetune.workflow.engines.engine_for`; the gate is void on any other.
        evidence: scores that cost more, see `treetune.core.settings.EvidenceSettings`.

    Returns:
        What stands in ``gate.json``; its ``threshold`` is None when nothing can be accepted.

    Raises:
        UsageError: E2501 promise out of range, E2502 to E2505 definition of wrong, E2507 no rows at all, E2508 no such
            column; others as `asked_for`. DataError: E1501 rows were in training, E1502 a row in both files, E1504 too
            few rows. RunError: E5501 training rows are not known.
    """
    promise, wanted = checked_promise(max_error, confidence), read_settings(EvidenceSettings, None, evidence)
    run = open_run(run_path)
    definition = definition_of(run.task, wrong)
    plain = engine_for(run, engine, engine_model)
    answers = WithEvidence(plain, asked_for(run, wanted, plain.identity))
    seen = seen_by(run.folder, run.task)
    sample, others, waiting = reviewed_rows(run.folder) if with_reviews else (None, None, 0)
    paths = {"tune": tune_data, "data": data, "sample": str(sample or ""), "others": str(others or "")}
    if not data and not sample:
        raise UsageError("E2507", "there are no rows to set a gate on", where="--data", found="none",
                         do="give --data FILE, or review the random sample first: treetune review RUN")
    parts = {name: gather_unseen(run, path, seen, (columns or {}) if name in ("tune", "data") else {},
                                 max_refused_share, reviewed=name in REVIEWED)
             for name, path in paths.items() if path}
    on_event({"event": "predicting", "system": "tuned", "rows": sum(len(own) for own, _ in parts.values())})
    judged = {name: judge(run, examples, definition, by, answers) for name, (examples, _) in parts.items()}
    tune, calibration = sides(judged)
    if by and not any([*tune.parts, *calibration.parts]):
        raise UsageError("E2508", "no row has a value in the column {column!r}", column=by, where="--by", found=by,
                         do="name a column of the file with few words in each cell")
    checks = validators_of(run.task.NAME)
    fitted = fit_gate(tune, calibration, promise, every_row=every_row, by=by, checks=[each.NAME for each in checks],
                      flag_only=[each.NAME for each in checks if each.FLAG_ONLY])
    made = _evidence(answers.evidence, fitted, tune, judged.values(), on_event)
    reference = reference_for(fitted, tune, calibration, {
        id(own): each for name, (examples, _) in parts.items()
        for own, each in zip(judged[name].predictions, examples, strict=True)})
    record = sealed({
        "treetune_version": __version__, "created": time.strftime("%Y-%m-%d"), "task": run.task.NAME,
        "wrong": str(definition), **fitted, "left_out": [left_out for _, left_out in parts.values()],
        "reviews": {"sample": len(judged["sample"]) if sample else 0, "others": len(judged["others"]) if others else 0,
                    "waiting": waiting} if with_reviews else None,
        "drift": {"alarm_chance": ALARM_CHANCE, "reference": value_digest(reference)},
        "evidence": made, "scope": scope_of(run, answers.identity) | {
            name: made[name]["identity"] for name in needed_names({"evidence": made})},
        "files": model_digest(run.folder.model),
    })
    write_json(run.folder.trust / "reference.json", reference)
    write_json(run.folder.gate, record)
    write_report(run.folder)
    return record


def _evidence(
    evidence: Evidence, fitted: Mapping[str, Any], tune: Judged, judged: Iterable[Judged], on_event: OnEvent
) -> dict[str, Any]:
    """What was tried, whether the score uses it, and what it took: said, and kept in the record."""
    seconds = sum(each.seconds for own in judged for each in own.predictions)
    made = evidence_record(evidence, Gate.score_of(fitted).evidence, limits_of(tune.predictions), seconds)
    for name, own in made.items():
        on_event({"event": "evidence", "name": name, **own})
    return made


def sides(judged: Mapping[str, Judged]) -> tuple[Judged, Judged]:
    """(tune, calibration). Reviewed rows of the random sample calibrate, the other reviewed ones only tune; of a
    source that a reviewed row brings to both sides the tune side loses its rows.
    """
    if "tune" in judged:
        tune, first = judged["tune"], [judged["data"]] if "data" in judged else []
    else:
        tune, own = split_judged(judged["data"] if "data" in judged else judged["sample"])
        first = [own]
    sampled = "sample" in judged and ("tune" in judged or "data" in judged)
    calibration = joined([*first, *([judged["sample"]] if sampled else [])])
    brought = set(judged["sample"].groups) if sampled else set()
    kept = tune.take([place for place, group in enumerate(tune.groups) if group not in brought])
    known = set(calibration.groups)
    others = [each.take([place for place, group in enumerate(each.groups) if group not in known])
              for name, each in judged.items() if name == "others"]
    return joined([kept, *others]), calibration


def reference_for(
    fitted: Mapping[str, Any], tune: Judged, calibration: Judged, examples: Mapping[int, Example]
) -> dict[str, Any]:
    """What later rows are compared with, one row a source; ``examples`` by the id of their prediction."""
    used = one_per_group(calibration)
    scores = Gate.score_of(fitted).values(used.predictions).tolist()
    return reference_of([examples[id(each)] for each in one_per_group(tune).predictions],
                        [examples[id(each)] for each in used.predictions], scores).as_dict()


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
    run: Run, data: str, seen: frozenset[str], columns: Mapping[str, str], max_refused_share: float,
    *, reviewed: bool = False,
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
    if not reviewed and trained > max_refused_share * len(gathered.examples):
        raise DataError("E1501", "these rows were in training, so they say nothing of the answers to come", where=data,
                        found=f"{trained} of {len(gathered.examples)} rows",
                        allowed=f"{max_refused_share:.0%} (--max-refused-share)",
                        do="give labelled rows that were kept out of tuning")
    return kept, _left_out(data, gathered, trained, len(kept))


def _left_out(data: str, gathered: Gathered, trained: int, kept: int) -> dict[str, Any]:
    return {"data": data, "digest": gathered.digest, "read": len(gathered.rows) + len(gathered.refused),
            "refused": len(gathered.refused), "in_training": trained,
            "repeated": len(gathered.examples) - trained - kept, "used": kept}


def judge(
    run: Run, examples: Sequence[Example], definition: Wrong, by: str = "", answers: Engine | None = None
) -> Judged:
    """Answer the examples, find out which answers are wrong and what the checks say.

    Args:
        by: column of the parts. answers: what answers; None: the run's own model.
    """
    found = (answers or engine_for(run)).predict(examples)
    refuse_kept_back(found)
    predictions = with_text_scores(run.task.NAME, found, examples)
    label = run.task.OUTPUT == OutputKind.LABEL
    return Judged(tuple(predictions), wrong_answers(predictions, examples, definition),
                  tuple(same_text(each.source) or each.row_id for each in examples),
                  tuple(each.answers[0] if label else "" for each in examples),
                  all_findings(run.task.NAME, predictions, examples),
                  tuple(each.groups.get(by, "") for each in examples) if by else ())


def wrong_answers(
    predictions: Sequence[Prediction], examples: Sequence[Example], definition: Wrong
) -> BoolArray:
    """(N,) whether the metric of each answer by itself is below the limit.

    Raises:
        DataError: E1401 a row without reference, E1402 no rows.
    """
    statistics = statistics_of(definition.metric, [each.answer for each in predictions], examples)
    return np.asarray(statistics.score(statistics.rows) < definition.limit)


def with_decisions(
    run: Run, predictions: Sequence[Prediction], examples: Sequence[Example], *, changed: Sequence[str] | None = None
) -> list[Prediction]:
    """The predictions with a decision each, where the run has a gate; under a void gate all go to review.

    Nothing is recorded and drift is not looked at: who answers a stream of rows keeps a `Decider` instead.

    Args:
        changed: what of the gate's scope has changed, where the caller has looked (a server looks once a load).
    """
    if not run.folder.gate.exists():
        return list(predictions)
    return Decider(run, Recording(on=False), changed=changed).decide(predictions, examples)
