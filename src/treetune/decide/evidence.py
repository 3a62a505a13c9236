"""Scores that cost more than the answer itself: asked for by name, candidates like the others, never verdicts.

| score | what | higher |
|---|---|---|
| ``agreement`` | similarity of drawn answers to the one given | surer |
| ``near_training`` | minus the relative Mahalanobis distance from the training rows | nearer |
| ``entailment`` | how far the source bears out the least supported sentence, by a model of the user's | better |
| ``quality`` | what a model of the user's says of source and answer | better |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from treetune.core.language import say
from treetune.core.records import Prediction, Reason

AGREEMENT, NEAR_TRAINING, ENTAILMENT, QUALITY = "agreement", "near_training", "entailment", "quality"
EVIDENCE = (AGREEMENT, NEAR_TRAINING, ENTAILMENT, QUALITY)
BY_MODELS = (ENTAILMENT, QUALITY)  # of the user's: their numbers stand beside every answer, whatever the gate's score
LIKELY = 0.5  # an entailment below it is noted beside the answer
LOW_SHARE = 0.05  # and a quality below that of this share of the tune rows


def used_by(names: Iterable[str]) -> tuple[str, ...]:
    """Which of these scores are evidence."""
    return tuple(name for name in names if name in EVIDENCE)


def limits_of(predictions: Sequence[Prediction]) -> dict[str, float]:
    """By name the value below which a model's number is noted beside the answer; from the tune rows."""
    found: dict[str, float] = {}
    for name in BY_MODELS:
        values = [each.scores[name] for each in predictions if name in each.scores]
        if values:
            found[name] = LIKELY if name == ENTAILMENT else float(np.quantile(values, LOW_SHARE))
    return found


def notes_of(prediction: Prediction, evidence: Mapping[str, Any]) -> tuple[Reason, ...]:
    """What the models' numbers say against the answer: flags, which change nothing.

    Args:
        evidence: of a gate's record, by name, with the ``limit`` of each.
    """
    found = []
    for name in BY_MODELS:
        limit, value = evidence.get(name, {}).get("limit"), prediction.scores.get(name)
        if limit is None or value is None or value >= limit:
            continue
        start, end = (int(prediction.scores.get(f"{name}:{place}", default))
                      for place, default in (("start", 0), ("end", len(prediction.answer))))
        text = (say("a model finds this not borne out by the source") if name == ENTAILMENT
                else say("a model finds the answer worse than most"))
        found.append(Reason(name, text, value, limit, prediction.answer[start:end], (start, end)))
    return tuple(found)
