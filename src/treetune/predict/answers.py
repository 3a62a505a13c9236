"""Predictions of a task: its output kind decides how."""

from __future__ import annotations

from collections.abc import Sequence

from treetune.core.records import Example, OutputKind, Prediction
from treetune.models.load import LoadedModel
from treetune.predict.generate import generate_answers
from treetune.predict.labels import score_labels
from treetune.tasks.contract import Task


def predict_answers(
    loaded: LoadedModel, task: Task, examples: Sequence[Example], *, max_length: int, max_new_tokens: int,
    layout: str = "tree", rows_per_pass: int = 32,
) -> list[Prediction]:
    """One prediction an example, in the order given.

    Args:
        max_length: tokens of prompt and answer together; longer prompts lose cuttable text, counted.
        max_new_tokens: tokens a generated answer may have. layout: how label candidates are laid out.
    """
    if not examples:
        return []
    if task.OUTPUT == OutputKind.LABEL:
        return score_labels(loaded, examples, max_length=max_length, layout=layout, rows_per_pass=rows_per_pass)
    return generate_answers(loaded, task, examples, max_length=max_length, max_new_tokens=max_new_tokens,
                            rows_per_pass=rows_per_pass)
