"""Rows to examples: read, refused rows set aside and counted, split, turned into a task's examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from treetune.core.errors import DataError
from treetune.core.records import Example, Row
from treetune.core.settings import TuneSettings
from treetune.data.read import ReadResult, read_rows, stop_if_too_many
from treetune.data.refusals import Refusal, refuse, write_quarantine
from treetune.data.split import split_off
from treetune.data.walk import Source, open_source
from treetune.tasks.contract import Task, TaskOptions


@dataclass(frozen=True, slots=True)
class Gathered:
    """Examples of one data argument and what was refused on the way. ``digest``: sha256 of the data."""

    rows: tuple[Row, ...]
    examples: tuple[Example, ...]
    refused: tuple[Refusal, ...]
    renamed: Mapping[str, str]
    digest: str


def read_for(task: Task, path: str, split: str, columns: Mapping[str, str], *, with_answer: bool = True) -> ReadResult:
    """The rows of a file under the task's column names."""
    return read_rows(path, split=split, aliases=aliases_of(task), columns=columns,
                     required=required_of(task, with_answer))


def source_for(task: Task, path: str, split: str, columns: Mapping[str, str], *, with_answer: bool = True) -> Source:
    """The same rows, to be read one after the other."""
    return open_source(path, split=split, aliases=aliases_of(task), columns=columns,
                       required=required_of(task, with_answer))


def aliases_of(task: Task) -> dict[str, Sequence[str]]:
    """Column -> other names it may have."""
    return {column.name: column.aliases for column in task.COLUMNS}


def required_of(task: Task, with_answer: bool) -> list[str]:
    """Columns that a file must have."""
    pairs = {"source", "target"} if task.NAME == "translation" else set()  # {"translation": {...}} has neither
    return [
        column.name for column in task.COLUMNS
        if column.required and column.name not in pairs and (with_answer or column.name not in task.ANSWER_COLUMNS)
    ]


def to_examples(
    task: Task, result: ReadResult, options: TaskOptions, quarantine: Path | None, max_refused_share: float,
    *, with_answer: bool = True,
) -> Gathered:
    """Examples of all rows the task can use; the others are refused, written to ``quarantine`` and counted.

    Raises:
        DataError: E1120 more refused than ``max_refused_share``. RunError: E5001 to E5003 when the disk refuses.
    """
    rows: list[Row] = []
    examples: list[Example] = []
    refused = list(result.refused)
    for row in result.rows:
        try:
            examples.append(task.example_from_row(row, options, with_answer=with_answer))
            rows.append(row)
        except DataError as error:
            refused.append(refuse(error, row.file, row.line, dict(row.values)))
    seen = replace(result, rows=tuple(rows), refused=tuple(refused))
    if quarantine and (refused or quarantine.exists()):
        write_quarantine(quarantine, refused)
    stop_if_too_many(seen, max_refused_share, quarantine)
    return Gathered(tuple(rows), tuple(examples), tuple(refused), result.renamed, result.digest)


def gather_training(
    settings: TuneSettings, task: Task, quarantine: Path | None
) -> tuple[Gathered, Gathered, TaskOptions]:
    """Training and validation examples, and what the task learnt from the training rows."""
    training = read_for(task, settings.data, "train", settings.columns)
    if settings.validation_data:
        validation = read_for(task, settings.validation_data, "validation", settings.columns)
    else:
        kept, held_out = split_off(training.rows, settings.validation_share, settings.seed, group_of(task))
        validation = replace(training, rows=tuple(held_out), refused=(), num_read=len(held_out))
        training = replace(training, rows=tuple(kept))
    share = settings.max_refused_share
    usable = to_examples(task, training, TaskOptions(), quarantine, share).rows  # whatever the label set will be
    options = replace(task.options_from_rows(usable, settings.prompt_language), instruction=settings.instruction)
    return (
        to_examples(task, training, options, quarantine, share),
        to_examples(task, validation, options,
                    quarantine and quarantine.with_name(f"validation.{quarantine.name}"), share),
        options,
    )


def group_of(task: Task) -> Callable[[Row], str]:
    """What belongs together when rows are split: the first required column (passage, document, text, source)."""
    column = task.COLUMNS[0].name
    return lambda row: str(row.values.get(column, row.id))


def cut_report(num_cut: Sequence[int]) -> dict[str, int]:
    """How many examples lost prompt tokens, and how many tokens."""
    return {"examples": sum(count > 0 for count in num_cut), "tokens": sum(num_cut)}
