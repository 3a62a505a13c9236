"""The audit of a run: for whom it fails, measured and written down; and training rows that may help."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from treetune.audit.change import changes
from treetune.audit.gaps import groups_in
from treetune.audit.measured import ALPHA, MIN_ROWS, POWER, findings
from treetune.audit.mitigate import METHODS, balanced, with_counterfactuals
from treetune.audit.swaps import swaps_of
from treetune.core.errors import RunError, UsageError
from treetune.core.files import write_json, write_text
from treetune.core.records import OutputKind, Row
from treetune.core.version import __version__
from treetune.data.read import ReadResult
from treetune.metrics.interval import LEVEL
from treetune.workflow.evaluate import answer
from treetune.workflow.gate import with_decisions
from treetune.workflow.gather import Gathered, read_for, to_examples
from treetune.workflow.log import OnEvent
from treetune.workflow.probe import Asked, Probed, definition_for, probe_groups
from treetune.workflow.probe_files import probe_file, read_pairs
from treetune.workflow.probe_sentences import probe_cases, probe_swaps
from treetune.workflow.report import write_report
from treetune.workflow.run import Run, open_run
from treetune.workflow.seen import content_digest, seen_by


def audit(
    run_path: str, data: str, on_event: OnEvent, *, by: Sequence[str] = (), pairs: Sequence[str] = (),
    templates: bool = True, swaps: bool = True, against: str = "", wrong: str = "",
    columns: Mapping[str, str] | None = None, max_refused_share: float = 0.05,
) -> dict[str, Any]:
    """Audit a run on labelled rows; writes ``audit/fairness.json``, the report and the card.

    Args:
        by: columns of the file whose values are groups. pairs: files of stereotype pairs, pronoun pairs or questions.
        templates: also ask our own sentences. swaps: also ask the rows with the words of two groups exchanged.
        against: another run, asked the same, to say what changed since. wrong: when an answer is wrong; "": as the
            run's gate says, else the task's own definition.

    Returns:
        What stands in ``audit/fairness.json``.

    Raises:
        UsageError: E2710 no such column, E2712 the other run does another task. DataError: E2711 a file of pairs
            that is none; others as for evaluating.
    """
    run = open_run(run_path)
    asked = Asked(data, tuple(by), templates=templates, swaps=swaps, wrong=wrong)
    result = read_for(run.task, data, "test", columns or {})
    quarantine = run.folder.quarantine
    gathered = to_examples(run.task, result, run.options, quarantine.with_name(f"audit.{quarantine.name}"),
                           max_refused_share)
    for name in by:
        groups_in(name, gathered.rows, gathered.renamed, data)  # before hours are spent
    asked = replace(asked, files=tuple(map(read_pairs, pairs)))
    before = probe_other(against, run, result, asked, max_refused_share, on_event) if against else None
    found = probe(run, gathered, asked, on_event)
    note_seen(run, gathered, found)
    record = {**record_of(run, gathered, asked, found), "against": against,
              "changes": changes(before.measured, found.measured) if before else []}
    write_json(run.folder.fairness, record)
    write_report(run.folder)
    return record


def note_seen(run: Run, gathered: Gathered, found: Probed) -> None:
    """Say how many of the rows the run was trained on: its numbers on these flatter it."""
    try:
        seen = seen_by(run.folder, run.task)
    except RunError:
        found.note("seen_unknown")
        return
    if count := sum(content_digest(each) in seen for each in gathered.examples):
        found.note("seen", rows=count)


def probe(run: Run, gathered: Gathered, asked: Asked, on_event: OnEvent) -> Probed:
    """Ask one run everything."""
    found = Probed()
    examples = gathered.examples
    on_event({"event": "predicting", "system": "tuned", "rows": len(examples)})
    predictions = with_decisions(run, answer(run, run.loaded, examples), examples)
    probe_groups(run, gathered, predictions, asked, found)
    if asked.templates:
        probe_cases(run, gathered.rows, examples, found, on_event)
    if asked.swaps:
        probe_swaps(run, gathered.rows, examples, predictions, found, on_event)
    for file in asked.files:
        probe_file(run, file, found, on_event)
    return found


def probe_other(
    path: str, run: Run, result: ReadResult, asked: Asked, max_refused_share: float, on_event: OnEvent
) -> Probed:
    """The same of another run of the task, usually the one before something was done about its bias."""
    other = open_run(path)
    if other.task.NAME != run.task.NAME:
        raise UsageError("E2712", "the two runs do not do the same task", where=path, found=other.task.NAME,
                         allowed=run.task.NAME, do="name a run of the same task")
    return probe(other, to_examples(other.task, result, other.options, None, max_refused_share), asked, on_event)


def record_of(run: Run, gathered: Gathered, asked: Asked, found: Probed) -> dict[str, Any]:
    """Everything for machines; no text of a row stands in it."""
    definition = definition_for(run, asked.wrong)
    numbers = findings(found.measured)
    return {
        "treetune_version": __version__, "created": time.strftime("%Y-%m-%d"), "task": run.task.NAME,
        "data": asked.data, "digest": gathered.digest, "rows": len(gathered.rows), "refused": len(gathered.refused),
        "by": list(asked.by), "wrong": "" if definition is None else str(definition),
        "gate": run.folder.gate.exists(), "alpha": ALPHA, "power": POWER, "level": LEVEL, "least_rows": MIN_ROWS,
        "tests": sum("p_value" in each for each in numbers), "findings": numbers,
        "groups": [
            {"column": gaps.column, "missing": gaps.missing, "levels": list(gaps.levels),
             "too_small": [{"group": group, "measure": measure, "rows": rows}
                           for group, measure, rows in gaps.too_small]}
            for gaps in found.gaps
        ],
        "notes": found.notes,
    }


def mitigate(
    run_path: str, data: str, output: str, method: str, *, by: Sequence[str] = (),
    columns: Mapping[str, str] | None = None, max_refused_share: float = 0.05, seed: int = 0,
) -> dict[str, Any]:
    """Write training rows that may teach less bias; tune on them, and audit the new run against the old.

    Args:
        data: the run's training rows. output: a .jsonl file. method: ``swap`` or ``balance``.
        by: for ``balance``, the one column whose groups are weighed.

    Raises:
        UsageError: E2713 no such method, E2714 ``balance`` without its one column, E2710 no such column.
    """
    if method not in METHODS:
        raise UsageError("E2713", "there is no such way to change the training rows", found=method,
                         allowed=", ".join(METHODS), do="choose one of them")
    if method == "balance" and len(by) != 1:
        raise UsageError("E2714", "to balance groups takes one column that names them", found=", ".join(by) or "none",
                         allowed="--by COLUMN, once", do="name the column with --by")
    run = open_run(run_path)
    gathered = to_examples(run.task, read_for(run.task, data, "train", columns or {}), run.options, None,
                           max_refused_share)
    rows = gathered.rows
    facts: dict[str, Any]
    if method == "swap":
        made, copies = with_counterfactuals(
            run.task.NAME, rows, [swap for language in ("en", "zh") for swap in swaps_of(language)])
        facts = {"copies": copies}
    else:
        groups = groups_in(by[0], rows, gathered.renamed, data)
        label = run.task.OUTPUT == OutputKind.LABEL
        labels = [each.answers[0] if label else "" for each in gathered.examples]
        made, weights = balanced(rows, groups, labels, seed)
        facts = {"weights": weights}
    write_text(Path(output), "".join(json.dumps(_plain(row), ensure_ascii=False, default=str) + "\n" for row in made))
    return {"method": method, "rows": len(rows), "written": len(made), "refused": len(gathered.refused),
            "output": output, **facts}


def _plain(row: Row) -> dict[str, Any]:
    return {name: value for name, value in row.values.items() if value is not None}
