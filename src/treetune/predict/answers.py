"""Predictions of a task: the model's head and the kind of answer decide how."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from treetune.core.records import Example, OutputKind, Prediction
from treetune.models.family import kind_of
from treetune.models.load import LoadedModel
from treetune.predict.classes import predict_classes
from treetune.predict.draw import Draw
from treetune.predict.generate import generate_answers
from treetune.predict.labels import score_labels
from treetune.predict.seq2seq import score_candidates, write_answers
from treetune.predict.spans import predict_spans
from treetune.predict.watch import OnToken
from treetune.tasks.contract import Task


@dataclass(frozen=True, slots=True)
class How:
    """Settings of one call, see `predict_answers`."""

    max_length: int
    max_new_tokens: int
    layout: str
    rows_per_pass: int
    on_token: OnToken | None = None
    answers_from: str = "anything"
    no_repeat_ngram_size: int = 0
    draw: Draw | None = None


Predictor = Callable[[LoadedModel, Task, Sequence[Example], How], list[Prediction]]


def predict_answers(
    loaded: LoadedModel, task: Task, examples: Sequence[Example], *, max_length: int, max_new_tokens: int,
    layout: str = "tree", rows_per_pass: int = 32, on_token: OnToken | None = None,
    answers_from: str = "anything", no_repeat_ngram_size: int = 0, draw: Draw | None = None,
) -> list[Prediction]:
    """One prediction an example, in the order given.

    Args:
        max_length: tokens of prompt and answer together; longer prompts lose cuttable text, counted.
        max_new_tokens: tokens a generated answer may have. layout: how the rows of a pass are laid out, as the proof
            found it exact: ``tree``, ``packed`` or ``padded``.
        answers_from: ``source`` for generated answers that are pieces of the source, where the task's answers are.
        no_repeat_ngram_size: no run of this many tokens comes twice in a generated answer; 0: it may.
        draw: how tokens of generated answers are drawn; None: each is the likeliest.
        on_token: told of every generated token, and may stop a row; labels and spans have none.
    """
    if not examples:
        return []
    how = How(max_length, max_new_tokens, layout, rows_per_pass, on_token, answers_from, no_repeat_ngram_size, draw)
    return PREDICTORS[loaded.head, kind_of(loaded.head, task)](loaded, task, examples, how)


PREDICTORS: Mapping[tuple[str, OutputKind], Predictor] = {
    ("causal", OutputKind.LABEL): lambda loaded, task, examples, how: score_labels(
        loaded, examples, max_length=how.max_length, layout=how.layout, rows_per_pass=how.rows_per_pass),
    ("causal", OutputKind.TEXT): lambda loaded, task, examples, how: generate_answers(
        loaded, task, examples, max_length=how.max_length, max_new_tokens=how.max_new_tokens,
        rows_per_pass=how.rows_per_pass, layout=how.layout, on_token=how.on_token, answers_from=how.answers_from,
        no_repeat_ngram_size=how.no_repeat_ngram_size, draw=how.draw),
    ("classes", OutputKind.LABEL): lambda loaded, task, examples, how: predict_classes(
        loaded, examples, max_length=how.max_length, rows_per_pass=how.rows_per_pass, layout=how.layout),
    ("spans", OutputKind.SPAN): lambda loaded, task, examples, how: predict_spans(
        loaded, examples, max_length=how.max_length, max_new_tokens=how.max_new_tokens,
        rows_per_pass=how.rows_per_pass, layout=how.layout),
    ("seq2seq", OutputKind.LABEL): lambda loaded, task, examples, how: score_candidates(
        loaded, examples, max_length=how.max_length, rows_per_pass=how.rows_per_pass),
    ("seq2seq", OutputKind.TEXT): lambda loaded, task, examples, how: write_answers(
        loaded, task, examples, max_length=how.max_length, max_new_tokens=how.max_new_tokens,
        rows_per_pass=how.rows_per_pass, on_token=how.on_token,
        no_repeat_ngram_size=how.no_repeat_ngram_size, draw=how.draw),
}
