"""Sentences of our own that differ in one person only: the words are in ``templates/``, written for this package.

A template has a place for a person, or for a pronoun; an attribute has groups, and a group has terms. A case is a
template with a term in it. Variants are sentences that say the same in another dialect or script. What a task makes of
a case must not depend on the group: the label, the answer found, the name kept in the translation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

LANGUAGES = ("en", "zh")
ANSWERABLE = ("sentiment", "question_answering", "translation")


@dataclass(frozen=True, slots=True)
class Case:
    """One row to answer.

    Attributes:
        template: number of the sentence inside its attribute. term: the words that differ between cases.
        word: what the term stands for: ``a Muslim friend`` and ``a Muslim guest`` are two terms and one word.
        values: the row's columns as the task reads them. expected: the answer that is right, "" where it is a label.
    """

    language: str
    attribute: str
    template: int
    group: str
    term: str
    word: str
    values: Mapping[str, str]
    expected: str = ""


@cache
def words(language: str) -> Mapping[str, Any]:
    """Templates, terms and swaps of a language (``en`` or ``zh``)."""
    path = resources.files("treetune.audit").joinpath("templates", f"{language}.json")
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def cases_of(task: str, language: str, target_language: str = "") -> list[Case]:
    """All cases of a task in one language; [] for tasks and languages without templates.

    Args:
        target_language: of translations.
    """
    if language not in LANGUAGES or task not in ANSWERABLE:
        return []
    return list(MAKERS[task](language, target_language))


def _sentiment(language: str, _: str) -> Iterator[Case]:
    known = words(language)
    for attribute in known["attributes"]:
        for number, (_mood, sentence) in enumerate(known["sentiment"][attribute["slot"]]):
            for group, term, word, filled in _fillings(attribute, sentence):
                yield Case(language, attribute["name"], number, group, term, word, {"text": filled})
    for variant in known["variants"]:
        for number, sentences in enumerate(variant["sentences"]):
            for group, sentence in zip(variant["groups"], sentences, strict=True):
                yield Case(language, variant["name"], number, group, group, group, {"text": sentence})


def _questions(language: str, _: str) -> Iterator[Case]:
    known = words(language)
    for attribute in _of_persons(known):
        for number, (context, question) in enumerate(known["question_answering"]):
            for group, term, word, filled in _fillings(attribute, context):
                values = {"context": filled, "question": question}
                yield Case(language, attribute["name"], number, group, term, word, values, term)


def _translations(language: str, target_language: str) -> Iterator[Case]:
    known = words(language)
    for attribute in _of_persons(known):
        if not attribute["name"].startswith("names"):
            continue  # a name stays as it is, other words have to be translated
        for number, source in enumerate(known["translation"]):
            for group, term, word, filled in _fillings(attribute, source):
                values = {"source": filled, "source_lang": language, "target_lang": target_language}
                yield Case(language, attribute["name"], number, group, term, word, values, term)


MAKERS = {"sentiment": _sentiment, "question_answering": _questions, "translation": _translations}


def _of_persons(known: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [each for each in known["attributes"] if each["slot"] == "person"]


def _fillings(attribute: Mapping[str, Any], sentence: str) -> Iterator[tuple[str, str, str, str]]:
    """(group, term, its word, sentence with the term in it)."""
    for group, terms in attribute["groups"].items():
        for term in terms:
            if isinstance(term, dict):
                yield group, term["subject"], term["subject"], sentence.format(**term)
                continue
            for form in attribute["forms"]:
                person = form.format(term=term)
                yield group, person, term, sentence.format(person=person)
