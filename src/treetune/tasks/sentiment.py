"""Sentiment: positive, negative or neutral, answered by scoring the label words."""

from __future__ import annotations

from collections.abc import Sequence

from treetune.core.errors import DataError
from treetune.core.records import Example, OutputKind, PromptPart, Row
from treetune.tasks.contract import Column, TaskOptions, groups_of, prompt_language, row_error, text_of

NAME = "sentiment"
OUTPUT = OutputKind.LABEL
COLUMNS = (
    Column("text", "what is judged", aliases=("review", "sentence", "content", "comment", "评论", "文本")),
    Column("label", "positive, negative or neutral",
           aliases=("sentiment", "target", "class", "rating_label", "情感", "标签")),
)
ANSWER_COLUMNS = ("label",)
METRICS = ("accuracy", "macro_f1")
BASELINES = ("majority",)
MAX_NEW_TOKENS = 8

LABELS = ("positive", "negative", "neutral")
SPELLINGS = {
    "positive": "positive", "pos": "positive", "正面": "positive", "积极": "positive",
    "negative": "negative", "neg": "negative", "负面": "negative", "消极": "negative",
    "neutral": "neutral", "neu": "neutral", "中性": "neutral", "中立": "neutral",
}
WORDS = {
    "en": {"positive": " positive", "negative": " negative", "neutral": " neutral"},
    "zh": {"positive": "正面", "negative": "负面", "neutral": "中性"},
}
FRAMES = {"en": ("Review: ", "\nSentiment:"), "zh": ("评论：", "\n情感：")}


def label_of(row: Row) -> str:
    """The row's label by its standard name, ``""`` where the column is absent.

    Raises:
        DataError: E1203 for any other value.
    """
    value = row.values.get("label")
    if value is None:
        return ""
    label = SPELLINGS.get(str(value).strip().lower(), "")
    if not label:
        raise row_error(row, "label", "E1203", "the label is not in the set", found=repr(value),
                        allowed=", ".join(LABELS))
    return label


def options_from_rows(rows: Sequence[Row], prompt_language: str) -> TaskOptions:
    """Two or three labels, as the training rows have them."""
    found = {label_of(row) for row in rows} - {""}
    if len(found) < 2:
        raise DataError("E1201", "the rows have one label only; there is nothing to learn",
                        where=rows[0].file if rows else "", found=", ".join(found) or "no label",
                        allowed="at least two of " + ", ".join(LABELS), do="add rows with another label")
    return TaskOptions(tuple(label for label in LABELS if label in found), prompt_language)


def example_from_row(row: Row, options: TaskOptions, *, with_answer: bool = True) -> Example:
    """``Review: …\\nSentiment:`` and one label word, or the same in Chinese."""
    text = text_of(row, "text")
    label = label_of(row)
    labels = options.labels or LABELS
    if (with_answer or label) and label not in labels:
        raise row_error(row, "label", "E1203", "the label is not in the set", found=repr(label),
                        allowed=", ".join(labels))
    language = prompt_language(options, text)
    before, after = FRAMES[language]
    words = {name: WORDS[language][name] for name in labels}
    return Example(
        row=row.number, row_id=row.id, split=row.split,
        prompt=(PromptPart(before), PromptPart(text, cuttable=True), PromptPart(after)),
        completion=words.get(label, ""), answers=(label,) if label else (), candidates=words, source=text,
        language=language, groups=groups_of(row, {"text": 0, "label": 0}), instruction=options.instruction,
    )


def answer_from_text(text: str, example: Example) -> str:
    """The label whose word was written; ``""`` for anything else."""
    names = {word.strip(): name for name, word in example.candidates.items()}
    return names.get(text.strip(), "")
