"""Months and days of the week in the answer stand in the source, in any of four languages; a translation loses none."""

from __future__ import annotations

import re

from treetune.core.language import say
from treetune.core.records import Example, Prediction, Reason

NAME = "dates"
TASKS = ("translation", "summarization")
FLAG_ONLY = False
MONTHS = (
    "january|januar|jänner|janvier", "february|februar|février", "march|märz|mars", "april|avril", "may|mai",
    "june|juni|juin", "july|juli|juillet", "august|août", "september|septembre", "october|oktober|octobre",
    "november|novembre", "december|dezember|décembre",
)
DAYS = (
    "monday|montag|lundi|[星礼]期一|[星礼]拜一|周一", "tuesday|dienstag|mardi|[星礼]期二|礼拜二|周二",
    "wednesday|mittwoch|mercredi|[星礼]期三|礼拜三|周三", "thursday|donnerstag|jeudi|[星礼]期四|礼拜四|周四",
    "friday|freitag|vendredi|[星礼]期五|礼拜五|周五", "saturday|samstag|sonnabend|samedi|[星礼]期六|礼拜六|周六",
    "sunday|sonntag|dimanche|[星礼]期[日天]|礼拜[日天]|周日",
)
CHINESE_MONTHS = ("一", "二", "三", "四", "五", "六", "七", "八", "九", "十", "十一", "十二")
AMBIGUOUS = ("may", "march", "mars")  # a verb, a planet: a month only with a capital and a number or "in" beside it
NAMED = {
    **{f"month {number}": re.compile(
        rf"\b(?:{names})\b|(?<!\d)0?{number}\s*月|(?<![一二三四五六七八九十])"
        rf"{CHINESE_MONTHS[number - 1]}月", re.IGNORECASE) for number, names in enumerate(MONTHS, 1)},
    **{f"day {number}": re.compile(rf"(?:\b(?:{names})s?\b|{names.split('|', 3)[3]})", re.IGNORECASE)
       for number, names in enumerate(DAYS, 1)},
}
ANY = re.compile("|".join(each.pattern for each in NAMED.values()), re.IGNORECASE)
SURE = re.compile(r"(?:\b(?:in|on|of|since|until|by|early|late|mid|im|am|en|de)\s+|\d\.?\s+)$", re.IGNORECASE)


def find(prediction: Prediction, example: Example) -> Reason | None:
    answer, source = prediction.answer, example.source
    own = _dates(answer) if ANY.search(answer) else {}
    given = _dates(source, unsure=True) if own or (not example.prompt[0].cuttable and ANY.search(source)) else {}
    for name, (start, end) in own.items():
        if name not in given:
            return Reason(NAME, say("a date that the source does not have"), 1.0, 0.0, answer[start:end], (start, end))
    if example.prompt[0].cuttable or example.question:
        return None
    kept = _dates(answer, unsure=True) if given else {}
    for name, (start, end) in (_dates(source) if given else {}).items():
        if name not in kept:
            return Reason(NAME, say("a date of the source is missing"), 1.0, 0.0, source[start:end], (start, end),
                          "source")
    return None


def _dates(text: str, *, unsure: bool = False) -> dict[str, tuple[int, int]]:
    """Name -> where it first stands; ``unsure``: also words that may be something else."""
    found: dict[str, tuple[int, int]] = {}
    for name, pattern in NAMED.items():
        for match in pattern.finditer(text):
            if unsure or match[0].lower() not in AMBIGUOUS or (
                match[0][0].isupper() and (SURE.search(text[: match.start()]) or text[match.end() :][1:2].isdigit())
            ):
                found.setdefault(name, match.span())
                break
    return found
