"""Looking at the data before anything is spent: counts, faults, leaks, lengths, cut-offs, rendered examples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from treetune.core.language import say
from treetune.core.records import Example
from treetune.core.settings import TuneSettings
from treetune.data.check import DataReport, inspect, lengths_of
from treetune.models.family import head_for, load_head, refuse_unread
from treetune.tasks.contract import Task, TaskOptions, load_task
from treetune.workflow.gather import Gathered, cut_report, gather_training


def check(settings: TuneSettings, *, with_tokens: bool = True) -> dict[str, Any]:
    """What ``treetune tune`` would see, without writing anything.

    Args:
        with_tokens: load the tokenizer and measure lengths in tokens and cut-offs.

    Returns:
        ``report`` (see `DataReport`), ``refused`` (all refusals as dicts), ``renamed``, ``cut`` by split,
        ``rendered``: two examples as (prompt, completion).
    """
    task = load_task(settings.task)
    head = head_for(settings.model, task, revision=settings.revision)
    refuse_unread(settings, head)
    training, validation, options = gather_training(settings.model_copy(update={"max_refused_share": 1.0}), task, None)
    splits = {"train": training, "validation": validation}
    report = inspect_splits(task, splits, options)
    cut: dict[str, dict[str, int]] = {}
    if with_tokens:
        lengths, cut = token_lengths(settings, splits)
        report = replace(report, token_lengths=lengths, num_cut={name: each["examples"] for name, each in cut.items()})
    return {
        "report": report.as_dict(), "renamed": dict(training.renamed), "labels": list(options.labels), "cut": cut,
        "refused": [{"file": r.file, "line": r.line, "field": r.field, "code": r.code, "why": r.why}
                    for each in splits.values() for r in each.refused],
        "rendered": [rendered(example, head) for example in training.examples[:2]],
    }


def inspect_splits(task: Task, splits: dict[str, Gathered], options: TaskOptions) -> DataReport:
    """The check of the rows alone: what they are compared by are the task's input columns."""
    names = [column.name for column in task.COLUMNS if column.required and column.name not in task.ANSWER_COLUMNS]
    return inspect(
        {name: each.rows for name, each in splits.items()}, text_columns=names,
        label_column=task.ANSWER_COLUMNS[0] if options.labels else None,
        refused={name: each.refused for name, each in splits.items()},
    )


def token_lengths(settings: TuneSettings, splits: dict[str, Gathered]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Lengths in tokens of whole rows as they will be trained on, and what is cut, by split."""
    from treetune.models.load import load_tokenizer

    head = load_head(head_for(settings.model, load_task(settings.task), revision=settings.revision))
    tokenizer, window = load_tokenizer(settings.model, revision=settings.revision)
    max_length = min(settings.max_length or head.MAX_LENGTH or window, window)
    lengths, cut = {}, {}
    for name, gathered in splits.items():
        tokens = head.encode(gathered.examples, tokenizer, max_length)
        if tokens:
            lengths[name] = lengths_of([each.num_tokens for each in tokens])
        cut[name] = cut_report([t.num_cut for t in tokens])
    return lengths, cut


def rendered(example: Example, head: str = "causal") -> dict[str, str]:
    """What the model reads, and what it learns to write or, for an encoder, to name or to point at."""
    if head == "classes":
        return {"prompt": example.source + "\n", "completion": "".join(example.answers)}
    if head == "spans":
        places = [f"{example.source[start:end]} [{start}:{end}]" for start, end in example.spans[:1]]
        return {"prompt": f"{example.question}\n{example.source}\n", "completion": "".join(places) or say("no answer")}
    return {"prompt": example.prompt_text, "completion": example.completion + "<end>"}
