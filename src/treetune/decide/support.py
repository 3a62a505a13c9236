"""Scores that need no model: how much of an answer its source supports, and how well their lengths fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise

from treetune.core.records import Example, Prediction
from treetune.decide.validators.length import length_ratio
from treetune.decide.validators.quantities import quantities_in, values_in
from treetune.decide.validators.words import units_of

SUPPORT, LENGTH_FIT, NUMBERS_KEPT = "source_support", "length_fit", "numbers_kept"
TEXT_SCORES = (SUPPORT, LENGTH_FIT, NUMBERS_KEPT)


def text_scores(task: str, prediction: Prediction, example: Example) -> dict[str, float]:
    """By name, higher is surer: share of the answer's word pairs that stand in the source (summaries, answers to
    questions); minus the distance of the translation's length from its source's, in log; share of the source's
    numbers that a translation keeps. {} for labels.
    """
    if task in ("summarization", "question_answering"):
        return {SUPPORT: _supported(prediction.answer, example.source)}
    if task != "translation":
        return {}
    asked = [each.value for each in quantities_in(example.source)]
    kept = values_in(prediction.answer) if asked else set()
    return {LENGTH_FIT: -abs(math.log(max(length_ratio(prediction.answer, example.source), 1e-3))),
            NUMBERS_KEPT: sum(value in kept for value in asked) / len(asked) if asked else 1.0}


def with_text_scores(
    task: str, predictions: Sequence[Prediction], examples: Sequence[Example]
) -> list[Prediction]:
    """The predictions with these scores among theirs."""
    return [replace(own, scores={**own.scores, **found}) if (found := text_scores(task, own, row)) else own
            for own, row in zip(predictions, examples, strict=True)]


def _supported(answer: str, source: str) -> float:
    units, pairs = units_of(answer), _pairs(source)
    if len(units) < 2:
        return float(not units or units[0] in pairs)
    return sum(pair in pairs for pair in pairwise(units)) / (len(units) - 1)


@lru_cache(maxsize=32)
def _pairs(source: str) -> frozenset[str | tuple[str, str]]:
    units = units_of(source)
    return frozenset(units) | frozenset(pairwise(units))
