"""How much drawn answers agree with the one given, 0-1: a model that is sure writes the same again and again.

| task | similarity of a drawn answer to the one given |
|---|---|
| question answering | F1 of their words (of their runs of characters in Chinese) |
| translation | chrF of the sentence, over 100 |
| summarization | ROUGE-L |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from treetune.core.records import FloatArray
from treetune.metrics.segment import is_chinese
from treetune.metrics.span import f1
from treetune.metrics.text import chrf_statistics, rouge_statistics

MEASURES: Mapping[str, str] = {"question_answering": "f1", "translation": "chrf", "summarization": "rougeL"}


def agreement(measure: str, answers: Sequence[str], drawn: Sequence[Sequence[str]],
              languages: Sequence[str]) -> list[float]:
    """Mean similarity of the drawn answers of each row to the one given; 1 where all are that answer.

    Args:
        measure: of ``MEASURES``. drawn: at least one a row.
    """
    pairs = [(own, answer, language) for own_row, answer, language in zip(drawn, answers, languages, strict=True)
             for own in own_row]
    values = np.array([float(own == answer) for own, answer, _ in pairs])  # a text without words is itself, too
    others = [place for place, value in enumerate(values) if not value]
    if others:
        values[others] = similarities(measure, [pairs[place] for place in others])
    ends = np.cumsum([len(own) for own in drawn])
    return [float(part.mean()) for part in np.split(values, ends[:-1])]


def similarities(measure: str, pairs: Sequence[tuple[str, str, str]]) -> FloatArray:
    """(N,) of drawn answer, answer given, language."""
    drawn, answers, languages = ([pair[place] for pair in pairs] for place in range(3))
    if measure == "f1":
        return np.array([f1(own, answer, is_chinese(code)) for own, answer, code in pairs])
    references = [[answer] for answer in answers]
    found = (chrf_statistics(drawn, references) if measure == "chrf"
             else rouge_statistics(drawn, references, languages, kind=measure))
    best = 100.0 if measure == "chrf" else 1.0
    return np.clip(found.score(found.rows) / best, 0.0, 1.0)
