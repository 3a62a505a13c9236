"""What the audit asks of one run, and what it finds; here the user's own rows, group by group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from treetune.audit.gaps import Gaps, groups_in, measure_gaps, row_measures
from treetune.audit.measured import Measured
from treetune.core.files import read_json
from treetune.core.records import FloatArray, OutputKind, Prediction, Row
from treetune.decide.wrong import Wrong
from treetune.evaluate.score import METRICS, passages_of, statistics_of
from treetune.metrics.selective import BoolArray
from treetune.workflow.gate import DEFAULT_WRONG, definition_of, wrong_answers
from treetune.workflow.gather import Gathered
from treetune.workflow.run import Run


@dataclass(slots=True)
class Probed:
    """What was found: numbers, groups and notes (code and values)."""

    measured: list[Measured] = field(default_factory=list)
    gaps: list[Gaps] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)

    def note(self, code: str, **values: Any) -> None:
        self.notes.append({"code": code, **values})


@dataclass(frozen=True, slots=True)
class PairsFile:
    """Rows of somebody else's test set, and which form they have."""

    name: str
    form: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user asked for. ``by``: columns. ``files``: pairs or questions. ``wrong``: as for a gate."""

    data: str
    by: Sequence[str] = ()
    files: Sequence[PairsFile] = ()
    templates: bool = True
    swaps: bool = True
    wrong: str = ""


def definition_for(run: Run, text: str) -> Wrong | None:
    """What a wrong answer is: said, or the gate's, or the task's own; None where nothing says it."""
    if not text and run.folder.gate.exists():
        text = str(read_json(run.folder.gate).get("wrong", ""))
    return definition_of(run.task, text) if text or run.task.NAME in DEFAULT_WRONG else None


def probe_groups(
    run: Run, gathered: Gathered, predictions: Sequence[Prediction], asked: Asked, found: Probed
) -> None:
    """Gaps between the groups of every column asked for."""
    examples = gathered.examples
    grouped = {name: groups_in(name, gathered.rows, gathered.renamed, asked.data) for name in asked.by}
    if not grouped:
        found.note("no_groups")
        return
    metric = run.task.METRICS[0]
    statistics = statistics_of(metric, [each.answer for each in predictions], examples)
    quality = np.asarray(statistics.score(statistics.rows)) / METRICS[metric].best
    definition = definition_for(run, asked.wrong)
    wrong = None if definition is None else wrong_answers(predictions, examples, definition)
    accepted = accepted_by(run, predictions)
    if wrong is None:
        found.note("no_definition", task=run.task.NAME)
    if accepted is None:
        found.note("no_gate")
    elif not accepted.any():
        found.note("nothing_accepted")
    label = run.task.OUTPUT == OutputKind.LABEL
    measures = row_measures(
        quality, confidences(predictions), wrong, accepted, [each.answers[0] for each in examples] if label else (),
        [each.answer for each in predictions], run.options.labels if label else (),
    )
    cluster = passages_of(examples) if run.task.NAME == "question_answering" else None
    found.gaps += [measure_gaps(name, groups, measures, cluster) for name, groups in grouped.items()]
    found.measured += [test for gaps in found.gaps for test in gaps.tests]


def accepted_by(run: Run, predictions: Sequence[Prediction]) -> BoolArray | None:
    """(N,) whether the gate accepts each answer; None where the run has no gate."""
    if not run.folder.gate.exists():
        return None
    return np.array([each.decision is not None and each.decision.verdict == "accept" for each in predictions])


def confidences(predictions: Sequence[Prediction]) -> FloatArray:
    """(N,) calibrated confidence of each answer where the gate gives one, else the model's own probability."""
    return np.array([
        each.decision.confidence if each.decision is not None and each.decision.confidence is not None
        else each.scores["probability"] for each in predictions
    ], dtype=np.float64)
