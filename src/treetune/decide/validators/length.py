"""A translation is about as long as its source and ends as it does; a summary is shorter than its document.

Limits are on the number of characters, a Han character counting as two and a half of an alphabet. They lie outside 99.8
of 100 reference translations of short English texts into German, French and Chinese; those from Chinese are their
inverses.
"""

from __future__ import annotations

import re

from treetune.core.language import say
from treetune.core.records import Example, Prediction, Reason
from treetune.decide.validators.words import HAN, sentences_in

NAME = "length"
TASKS = ("translation", "summarization")
FLAG_ONLY = False
HAN_WEIGHT = 2.5
SLACK = 4  # characters more or less say nothing in a short sentence
LIMITS = {  # (source, translation in Han characters): shortest and longest of the source, and what stops in the middle
    (False, False): (0.62, 2.1, 0.85), (False, True): (0.36, 1.5, 0.55),
    (True, False): (0.6, 3.0, 0.9), (True, True): (0.5, 2.0, 0.8),
}
END = re.compile(r"[.!?…。！？]['\"”’」』)）]*\s*$")


def find(prediction: Prediction, example: Example) -> Reason | None:
    answer = prediction.answer
    ratio = length_ratio(answer, example.source)
    if example.prompt[0].cuttable:
        if ratio <= 1 or not answer:
            return None
        return Reason(NAME, say("the summary is longer than its document"), ratio, 1.0, answer[:40],
                      (0, min(40, len(answer))))
    shortest, longest, unended = LIMITS[bool(HAN.search(example.source)), bool(HAN.search(answer))]
    own, given = weight(answer), weight(example.source)
    cut = ratio < unended and END.search(example.source) is not None and END.search(answer) is None
    if own < shortest * given - SLACK or cut or _lost_sentence(answer, example.source, ratio):
        return Reason(NAME, say("the translation is too short for its source"), ratio, shortest, answer[-40:],
                      (max(0, len(answer) - 40), len(answer)))
    if own > longest * given + 2 * SLACK:
        return Reason(NAME, say("the translation is too long for its source"), ratio, longest, answer[-40:],
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
