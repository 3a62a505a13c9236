"""The answer is of the kind the question asks for: a number for "how many", a time for "when", a name for "who"."""

from __future__ import annotations

import re
from collections.abc import Callable

from treetune.core.language import say
from treetune.core.records import Example, Prediction, Reason
from treetune.decide.validators.quantities import CHINESE, DIGITS, WORDS
from treetune.decide.validators.words import HAN, WORD

NAME = "asked_kind"
TASKS = ("question_answering",)
FLAG_ONLY = False

QUESTIONS = {
    "how_many": re.compile(r"\bhow (?:many|much|old|tall|long|far|large|big|often|wide|deep|high|fast)\b"
                           r"|\bwhat (?:percentage|percent|number|age|population)\b"
                           r"|多少|几(?!乎)|哪一?年|多[大长高远久]"),
    "when": re.compile(r"^\W*(?:(?:in|on|at|by|since|until|from|during) )?(?:when\b|(?:what|which) (?:year|month|day|"
                       r"date|decade|century|time)\b)|\bwhen (?:did|was|were|is|are|does|do|will)\b|何时|什么时候|"
                       r"什么时间|哪一?年|哪一?天|几月|几号"),
    "who": re.compile(r"^\W*(?:who|whom|whose)\b(?! (?:is|are) (?:responsible|eligible|able))|谁"),
}
MEASURE = re.compile(r"\b(?:half|twice|once|dozens?|hundreds?|thousands?|millions?|billions?|several|many|few|most|all|"
                     r"none|no|a|an|single|double|triple|quarter|majority|long|years?|days?|every|unlimited|more|less)\b"
                     r"|[数半多几每]|[年月日天世代]", re.IGNORECASE)
TIME = re.compile(r"\b(?:january|february|march|april|may|june|july|august|september|october|november|december|monday|"
                  r"tuesday|wednesday|thursday|friday|saturday|sunday|spring|summer|autumn|fall|winter|century|centuries|"
                  r"today|yesterday|tomorrow|now|recently|morning|evening|night|noon|midnight|after|before|during|when|"
                  r"until|since|early|late|mid|year|years|month|day|days|week|era|period|war|age|time|once|every|upon|"
                  r"following|while|prior|ago|within|currently|later)\b|[年月日时代初末朝期前后晚早晨午夜春夏秋冬天岁]|"
                  r"世纪|战争|之后|以前", re.IGNORECASE)
PEOPLE = re.compile(r"\b(?:people|men|women|man|woman|king|queen|team|students?|players?|members?|government|company|"
                    r"group|children|child|scientists?|workers?|army|church|owners?|he|she|they|the|everyone|anyone|"
                    r"nobody|officers?|citizens?|doctors?|pharmacists?|teachers?)\b|\w+(?:ers|ors|ists|ians|men)\b",
                    re.IGNORECASE)


def find(prediction: Prediction, example: Example) -> Reason | None:
    answer, question = prediction.answer, example.question.lower()
    if not answer or not question:
        return None
    for kind, asked in QUESTIONS.items():
        if asked.search(question) and not LOOKS_RIGHT[kind](answer):
            text = {"how_many": say("a number was asked for"), "when": say("a time was asked for"),
                    "who": say("a person was asked for")}[kind]
            return Reason(NAME, text, 0.0, 1.0, answer[:60], (0, min(60, len(answer))))
    return None


def _number(answer: str) -> bool:
    words = {word.lower() for word in WORD.findall(answer)}
    return bool(DIGITS.search(answer) or CHINESE.search(answer) or words & set(WORDS) or MEASURE.search(answer))


def _time(answer: str) -> bool:
    return bool(DIGITS.search(answer) or CHINESE.search(answer) or TIME.search(answer))


def _person(answer: str) -> bool:
    if DIGITS.fullmatch(answer.strip()):
        return False
    named = any(word[0].isupper() for word in WORD.findall(answer) if word[0].isalpha())
    return bool(named or PEOPLE.search(answer) or (HAN.search(answer) and not _only_time(answer)))


def _only_time(answer: str) -> bool:
    left = DIGITS.sub("", CHINESE.sub("", answer))
    return not re.sub("[年月日时分秒世纪约公元前后号点%％个万亿元人米\\s]", "", left)


LOOKS_RIGHT: dict[str, Callable[[str], bool]] = {"how_many": _number, "when": _time, "who": _person}
