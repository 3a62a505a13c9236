"""Question answering: a context and a question in, the answer out. Given answers are checked spans."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from treetune.core.records import Example, OutputKind, PromptPart, Row
from treetune.tasks.contract import Column, TaskOptions, groups_of, prompt_language, row_error, text_of

NAME = "question_answering"
OUTPUT = OutputKind.TEXT
OTHER_OUTPUTS = (OutputKind.SPAN,)
COLUMNS = (
    Column("context", "the passage", aliases=("passage", "paragraph", "document", "上下文")),
    Column("question", "what is asked", aliases=("query", "问题")),
    Column("answers", "accepted answers; none means unanswerable", aliases=("answer", "答案")),
    Column("answer_start", "character where each answer starts", required=False),
    Column("is_impossible", "true when the context has no answer", required=False),
)
ANSWER_COLUMNS = ("answers",)
METRICS = ("f1", "exact_match")
BASELINES = ("first_sentence", "question_overlap_sentence")
MAX_NEW_TOKENS = 32

FRAMES = {"en": ("\nQuestion: ", "\nAnswer:"), "zh": ("\n问题：", "\n答案：")}
NUMBER = re.compile(r"(-?[0-9]+)(\.0)?")
NO_ANSWER = {"en": " unanswerable", "zh": "无法回答"}


def options_from_rows(rows: Sequence[Row], prompt_language: str) -> TaskOptions:
    """Nothing is learnt from the rows beforehand."""
    return TaskOptions((), prompt_language)


def answers_of(row: Row) -> tuple[str, ...]:
    """Accepted answers in order, each once; ``("",)`` if unanswerable, ``()`` where the column is absent.

    Raises:
        DataError: E1204 an answer that does not stand in the context (at its start, if given).
    """
    value: Any = row.values.get("answers")
    starts: Any = row.values.get("answer_start")
    if isinstance(value, Mapping):
        starts, value = value.get("answer_start", starts), value.get("text")
    if str(row.values.get("is_impossible")).strip().lower() in ("true", "1"):
        return ("",)
    if value is None:
        return ()
    texts = list(value) if isinstance(value, list | tuple) else [value]
    given = list(starts) if isinstance(starts, list | tuple) else [starts]
    context = str(row.values.get("context", ""))
    for place, text in enumerate(texts):
        number = NUMBER.fullmatch(str(given[place])) if place < len(given) else None
        start = int(number[1]) if number else None
        if not isinstance(text, str) or (text and not _stands(text, context, start)):
            first = max(0, start or 0)
            around = context[:60] if start is None else context[first : start + len(str(text))]
            raise row_error(row, "answers", "E1204", "the answer does not stand in its context",
                            found=repr(text)[:80], allowed=f"text of the context, e.g. {around!r}"[:160])
    return tuple(dict.fromkeys(text.strip() for text in texts)) or ("",)


def spans_of(row: Row, answers: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """(start, end) in the stripped context of every accepted answer: where its row says, else where it first stands."""
    context = str(row.values.get("context", ""))
    skipped = len(context) - len(context.lstrip())
    value: Any = row.values.get("answers")
    starts: Any = row.values.get("answer_start")
    if isinstance(value, Mapping):
        starts, value = value.get("answer_start", starts), value.get("text")
    texts = list(value) if isinstance(value, list | tuple) else [value]
    given = list(starts) if isinstance(starts, list | tuple) else [starts]
    said: dict[str, int] = {}
    for text, start in zip(texts, given, strict=False):
        if isinstance(text, str) and text.strip() and (number := NUMBER.fullmatch(str(start))):
            said.setdefault(text.strip(), int(number[1]) + len(text) - len(text.lstrip()))
    return tuple(
        (start - skipped, start - skipped + len(answer)) for answer in answers if answer
        for start in (said.get(answer, context.find(answer)),)
    )


def _stands(text: str, context: str, start: int | None) -> bool:
    return text in context if start is None else start >= 0 and context.startswith(text, start)


def example_from_row(row: Row, options: TaskOptions, *, with_answer: bool = True) -> Example:
    """Context first, so that questions on one passage share its tokens; then the question."""
    context, question = text_of(row, "context"), text_of(row, "question")
    answers = answers_of(row)
    if with_answer and not answers:
        raise row_error(row, "answers", "E1202", "the cell is empty or not text", found="nothing",
                        allowed="an answer, a list of answers, or an empty list")
    language = prompt_language(options, question)
    before, after = FRAMES[language]
    return Example(
        row=row.number, row_id=row.id, split=row.split,
        prompt=(PromptPart(context, cuttable=True), PromptPart(before), PromptPart(question),
                PromptPart(after)),
        completion=completion_of(answers[0], language) if answers else "", answers=answers, candidates={},
        source=context, language=language, groups=groups_of(row, {column.name: 0 for column in COLUMNS}),
        question=question, spans=spans_of(row, answers), instruction=options.instruction,
    )


def completion_of(answer: str, language: str) -> str:
    """How an answer is written; ``""``: that the context has none."""
    return ("" if language == "zh" else " ") + " ".join(answer.split()) if answer else NO_ANSWER[language]


def answer_from_text(text: str, example: Example) -> str:
    """The first line, white space squeezed; ``""`` when the model says there is no answer."""
    answer = " ".join(text.strip().split("\n")[0].split())
    return "" if answer in {words.strip() for words in NO_ANSWER.values()} else answer
