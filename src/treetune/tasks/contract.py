"""What a task file must offer, and how one is found. A fifth task is one more file in this folder.

A task knows its columns, turns a row into an example, and reads an answer back from generated text. It knows
nothing of tokens, models or training.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from treetune.core.errors import DataError, UsageError
from treetune.core.records import Example, OutputKind, Row

SHORT_NAMES = {"qa": "question_answering"}


@dataclass(frozen=True, slots=True)
class Column:
    """One column a task reads. ``aliases`` are other names found in the wild, tried in order."""

    name: str
    meaning: str
    required: bool = True
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """What was learnt from the training rows or set by the user, and must be the same at prediction time.

    Attributes:
        labels: label names in a fixed order, for LABEL tasks. prompt_language: ``auto``, ``en`` or ``zh``.
        instruction: stands in front of every prompt; a task hands it on to its examples.
    """

    labels: tuple[str, ...] = ()
    prompt_language: str = "auto"
    instruction: str = ""


class Task(Protocol):
    """A module in this folder. All names below are module-level.

    Attributes:
        OUTPUT: kind of answer; OTHER_OUTPUTS, where a task has them: kinds that do as well. COLUMNS: what it reads.
        ANSWER_COLUMNS: those that rows to predict may lack. METRICS: names known to `treetune.evaluate`, the first
        decides. BASELINES: honest baselines known to `treetune.evaluate`. MAX_NEW_TOKENS: default length limit of an
        answer.
    """

    NAME: str
    OUTPUT: OutputKind
    COLUMNS: tuple[Column, ...]
    ANSWER_COLUMNS: tuple[str, ...]
    METRICS: tuple[str, ...]
    BASELINES: tuple[str, ...]
    MAX_NEW_TOKENS: int

    def options_from_rows(self, rows: Sequence[Row], prompt_language: str) -> TaskOptions:
        """Fix labels and language from the training rows.

        Raises:
            DataError: E1201 when the rows cannot teach the task (e.g. only one label).
        """
        ...

    def example_from_row(self, row: Row, options: TaskOptions, *, with_answer: bool = True) -> Example:
        """One example. ``with_answer=False`` for rows to predict, where the answer column may be absent.

        Raises:
            DataError: E12xx naming file, line, column, what was found and what is allowed.
        """
        ...

    def answer_from_text(self, text: str, example: Example) -> str:
        """The answer as a user should see it, from what the model wrote (white space stripped …)."""
        ...


def task_names() -> list[str]:
    """Names of all task files in this folder, sorted."""
    import treetune.tasks as folder

    return sorted(module.name for module in pkgutil.iter_modules(folder.__path__) if module.name != "contract")


def load_task(name: str) -> Task:
    """The task of that name (``qa`` is short for question_answering).

    Raises:
        UsageError: E2010 for an unknown name, with the nearest known one.
    """
    name = SHORT_NAMES.get(name, name)
    known = task_names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        raise UsageError("E2010", "there is no task {name!r}", found=name, name=name,
                         allowed=", ".join(known), do=f"--task {near[0]}" if near else "choose one of them")
    return cast(Task, importlib.import_module(f"treetune.tasks.{name}"))


def outputs_of(task: Task) -> tuple[OutputKind, ...]:
    """Every kind of answer that does the task, the task's own first: questions are answered in text or by a span."""
    return (task.OUTPUT, *getattr(task, "OTHER_OUTPUTS", ()))


def is_extractive(task: Task) -> bool:
    """Whether its answers are pieces of its source, or that there is none; such a task has `completion_of`."""
    return hasattr(task, "completion_of")


def written_as(task: Task, answer: str, language: str) -> str:
    """The completion that says ``answer`` in an extractive task; of ``""``: that there is none."""
    return str(getattr(task, "completion_of")(answer, language))  # noqa: B009  (mypy: not every task has it)


def text_of(row: Row, column: str) -> str:
    """A required text cell, stripped.

    Raises:
        DataError: E1202 when it is missing, not text, or empty.
    """
    value = row.values.get(column)
    if not isinstance(value, str) or not value.strip():
        raise row_error(row, column, "E1202", "the cell is empty or not text", found=repr(value),
                        allowed="text of at least one character")
    return value.strip()


def row_error(row: Row, column: str, code: str, what: str, *, found: str, allowed: str, do: str = "") -> DataError:
    """A DataError that leads to the cell."""
    return DataError(code, what, where=f"{row.file}, line {row.line}, column {column!r}", found=found,
                     allowed=allowed, do=do or "correct the row or remove it")


def has_chinese(text: str) -> bool:
    """Whether at least a fifth of the letters are Han characters."""
    letters = [character for character in text if character.isalpha()]
    han = sum("\u4e00" <= character <= "\u9fff" or "\u3400" <= character <= "\u4dbf" for character in letters)
    return bool(letters) and han * 5 >= len(letters)


def prompt_language(options: TaskOptions, text: str) -> str:
    """``en`` or ``zh``: as set, or by the script of the row's own text."""
    if options.prompt_language != "auto":
        return options.prompt_language
    return "zh" if has_chinese(text) else "en"


def groups_of(row: Row, known: Mapping[str, object]) -> dict[str, str]:
    """Extra text columns with few words: attributes the audit can group by."""
    return {
        name: value for name, value in row.values.items()
        if name not in known and name != "id" and isinstance(value, str) and 0 < len(value) <= 40
    }
