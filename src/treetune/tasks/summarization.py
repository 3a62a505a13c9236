"""Summarization: a document in, a short summary out."""

from __future__ import annotations

from collections.abc import Sequence

from treetune.core.records import Example, OutputKind, PromptPart, Row
from treetune.tasks.contract import Column, TaskOptions, groups_of, prompt_language, text_of

NAME = "summarization"
OUTPUT = OutputKind.TEXT
COLUMNS = (
    Column("document", "what is summarized", aliases=("article", "text", "dialogue", "正文")),
    Column("summary", "its summary", aliases=("highlights", "target", "title", "摘要")),
)
ANSWER_COLUMNS = ("summary",)
METRICS = ("rougeL", "rouge1", "rouge2")
BASELINES = ("lead_sentence", "lead_3")
MAX_NEW_TOKENS = 96

FRAMES = {"en": "\nSummary:", "zh": "\n摘要："}


def options_from_rows(rows: Sequence[Row], prompt_language: str) -> TaskOptions:
    """Nothing is learnt from the rows beforehand."""
    return TaskOptions((), prompt_language)


def example_from_row(row: Row, options: TaskOptions, *, with_answer: bool = True) -> Example:
    """The document, then ``Summary:`` (or ``摘要：``) and the summary."""
    document = text_of(row, "document")
    summary = text_of(row, "summary") if with_answer or row.values.get("summary") is not None else ""
    language = prompt_language(options, document)
    lead = "" if language == "zh" else " "
    return Example(
        row=row.number, row_id=row.id, split=row.split,
        prompt=(PromptPart(document, cuttable=True), PromptPart(FRAMES[language])),
        completion=lead + " ".join(summary.split()) if summary else "",
        answers=(summary,) if summary else (), candidates={}, source=document, language=language,
        groups=groups_of(row, {"document": 0, "summary": 0}), instruction=options.instruction,
    )


def answer_from_text(text: str, example: Example) -> str:
    """All lines in one, white space squeezed."""
    return " ".join(text.split())
