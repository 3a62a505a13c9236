"""An answer that is no text: empty, a loop, broken bytes, the prompt again, or a sentence cut in the middle."""

from __future__ import annotations

from collections import Counter

from treetune.core.language import say
from treetune.core.records import Example, Prediction, Reason
from treetune.decide.validators.words import units_of

NAME = "degenerate"
TASKS = ("translation", "summarization", "question_answering")
FLAG_ONLY = False
MAX_REPEATED = 0.34  # share of the word triples that stood before; of single words where there are few
FEW_UNITS = 8
MIN_FRAME = 3


def find(prediction: Prediction, example: Example) -> Reason | None:
    answer = prediction.answer
    if not answer.strip():
        if example.question:
            return None  # "there is no answer" is one
        return Reason(NAME, say("the answer is empty"), 0.0, 1.0)
    if (place := answer.find("\ufffd")) >= 0:
        return Reason(NAME, say("the answer holds broken characters"), 1.0, 0.0, answer[place], (place, place + 1))
    if not prediction.finished:
        last = answer[-40:]
        return Reason(NAME, say("the answer was cut off at the length limit"), float(len(prediction.token_log_probs)),
                      None, last, (len(answer) - len(last), len(answer)))
    return _loop(answer) or _prompt(answer, example)


def _loop(answer: str) -> Reason | None:
    units = units_of(answer)
    size = 3 if len(units) >= FEW_UNITS else 1
    grams = [tuple(units[place : place + size]) for place in range(len(units) - size + 1)]
    if len(grams) < 3:
        return None
    counts = Counter(grams)
    repeated = 1 - len(counts) / len(grams)
    if repeated <= (MAX_REPEATED if size == 3 else 0.5):
        return None
    gram, _ = counts.most_common(1)[0]
    evidence = " ".join(gram)
    place = answer.lower().find(gram[0])
    return Reason(NAME, say("the answer repeats itself"), repeated, MAX_REPEATED if size == 3 else 0.5, evidence,
                  (place, place + len(gram[0])) if place >= 0 else None)


def _prompt(answer: str, example: Example) -> Reason | None:
    """The frame of the prompt inside the answer: the model goes on asking instead of answering."""
    for part in example.pieces:
        frame = part.text.strip()
        if part.cuttable or len(frame) < MIN_FRAME or frame == example.question.strip():
            continue
        place = answer.find(frame)
        if place >= 0 and frame not in example.source:
            return Reason(NAME, say("the answer repeats the prompt"), 1.0, 0.0, frame, (place, place + len(frame)))
    return None
