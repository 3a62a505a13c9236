"""What the source denies the answer does not claim, and the other way round.

A summary's sentence is compared with the sentence of the document that shares most of its words, if it shares enough;
a translation with its source as a whole.
"""

from __future__ import annotations

import re
from functools import lru_cache

from treetune.core.language import say
from treetune.core.records import Example, Prediction, Reason
from treetune.decide.validators.words import HAN, main_code, sentences_in, units_of

NAME = "negation"
TASKS = ("translation", "summarization")
FLAG_ONLY = False
MIN_SHARED = 0.6
NEGATIONS = {
    "en": re.compile(r"\b(?:not|no|never|none|nobody|nothing|neither|nor|nowhere|cannot|without|hardly|barely|"
                     r"lacks?|fails?|failed|unable|impossible)\b|n['’]t\b", re.IGNORECASE),
    "de": re.compile(r"\b(?:nicht|kein|keine|keinen|keinem|keiner|keines|nie|niemals|niemand|nichts|ohne|weder|"
                     r"nirgends|kaum|unmöglich)\b", re.IGNORECASE),
    "fr": re.compile(r"\b(?:ne|n['’]\w+|pas|jamais|rien|personne|aucune?|sans|ni|non)\b", re.IGNORECASE),
    "zh": re.compile("不(?!仅|但|断|同|过|久|少|错|管|论|得不)|没有?|未(?!来|必)|无(?!论|线|机|人|数)|非(?!常|洲)"
                     "|否(?!则)|别(?!的|人|墅)|莫|勿|毋|難以|难以|從未|从未"),
}


def find(prediction: Prediction, example: Example) -> Reason | None:
    own_language = main_code(example.language) or ("zh" if HAN.search(prediction.answer) else "en")
    own = NEGATIONS.get(own_language)
    if own is None:
        return None
    if not example.prompt[0].cuttable:
        return _translation(prediction.answer, example.source, own)
    for sentence in sentences_in(prediction.answer):
        shared, nearest = _nearest(sentence, example.source)
        if shared >= MIN_SHARED and bool(own.search(sentence)) != bool(own.search(nearest)):
            denied = own.search(sentence)
            evidence = denied[0] if denied else sentence[:60]
            place = prediction.answer.find(evidence)
            return Reason(NAME, say("the document says the opposite: {sentence}", sentence=nearest[:120]), shared,
                          MIN_SHARED, evidence, (place, place + len(evidence)) if place >= 0 else None)
    return None


def _translation(answer: str, source: str, own: re.Pattern[str]) -> Reason | None:
    theirs = NEGATIONS["zh"] if HAN.search(source) else NEGATIONS["en"]
    denied, said = theirs.search(source), own.search(answer)
    if bool(denied) == bool(said) or not answer:
        return None
    if said:
        return Reason(NAME, say("the answer denies what the source does not"), 1.0, 0.0, said[0], said.span())
    assert denied
    return Reason(NAME, say("the source denies what the answer does not"), 1.0, 0.0, denied[0], denied.span(),
                  "source")


def _nearest(sentence: str, document: str) -> tuple[float, str]:
    """Share of the sentence's words in the document's sentence that has most of them."""
    words = set(units_of(sentence))
    if len(words) < 4:
        return 0.0, ""
    best, nearest = 0.0, ""
    for own, text in _sentences(document):
        shared = len(words & own) / len(words)
        if shared > best:
            best, nearest = shared, text
    return best, nearest


@lru_cache(maxsize=16)
def _sentences(document: str) -> tuple[tuple[frozenset[str], str], ...]:
    return tuple((frozenset(units_of(text)), text) for text in sentences_in(document))
