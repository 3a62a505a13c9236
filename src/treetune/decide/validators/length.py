"""A translation is about as long as its source; a summary is shorter than its document.

Limits are on the number of characters, a Han character counting as two and a half of an alphabet.
"""

from __future__ import annotations

from treetune.core.language import say
from treetune.core.records import Example, Prediction, Reason
from treetune.decide.validators.words import HAN, sentences_in

NAME = "length"
TASKS = ("translation", "summarization")
FLAG_ONLY = False
HAN_WEIGHT = 2.5
SHORTEST, LONGEST = 0.45, 2.2
SLACK = 12  # characters more or less say nothing in a short sentence


def find(prediction: Prediction, example: Example) -> Reason | None:
    answer = prediction.answer
    ratio = length_ratio(answer, example.source)
    if example.prompt[0].cuttable:
        if ratio <= 1 or not answer:
            return None
        return Reason(NAME, say("the summary is longer than its document"), ratio, 1.0, answer[:40],
                      (0, min(40, len(answer))))
    own, given = weight(answer), weight(example.source)
    if own < SHORTEST * given - SLACK * SHORTEST or _lost_sentence(answer, example.source, ratio):
        return Reason(NAME, say("the translation is too short for its source"), ratio, SHORTEST, answer[-40:],
                      (max(0, len(answer) - 40), len(answer)))
    if own > LONGEST * given + SLACK:
        return Reason(NAME, say("the translation is too long for its source"), ratio, LONGEST, answer[-40:],
                      (max(0, len(answer) - 40), len(answer)))
    return None


def weight(text: str) -> float:
    """Characters, in those of an alphabet."""
    return len(text) + (HAN_WEIGHT - 1) * len(HAN.findall(text))


def length_ratio(answer: str, source: str) -> float:
    """Weight of the answer over that of the source."""
    return weight(answer) / max(weight(source), 1.0)


def _lost_sentence(answer: str, source: str, ratio: float) -> bool:
    given = len(sentences_in(source))
    return given > 1 and len(sentences_in(answer)) < given and ratio < 0.8
