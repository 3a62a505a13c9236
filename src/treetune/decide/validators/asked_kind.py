"""The answer is of the kind the question asks for: a number for "how many", a time for "when", a name for "who".

A check by words: an amount needs a number with its unit or a word of amount, a time a date or a word of time, and a
person is anything but an amount or a time alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from treetune.core.language import say
from treetune.core.records import Example, Prediction, Reason
from treetune.decide.validators.quantities import DIGITS, WORDS
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
MONTHS = ("january|february|march|april|may|june|july|august|september|october|november|december|monday|tuesday|"
          "wednesday|thursday|friday|saturday|sunday")
AMOUNT_WORDS = re.compile(r"\b(?:half|twice|once|dozens?|hundreds?|thousands?|millions?|billions?|several|many|few|"
                          r"most|all|none|no|single|double|triple|quarter|majority|long|years?|days?|hours?|minutes?|"
                          r"weeks?|months?|every|unlimited|more|less|lots?|percent)\b|[数半多每]|几(?!乎)",
                          re.IGNORECASE)
TIME_WORDS = re.compile(rf"\b(?:{MONTHS}|spring|summer|autumn|fall|winter|century|centuries|today|yesterday|tomorrow|"
                        r"now|recently|morning|evening|night|noon|midnight|after|before|during|when|until|since|early|"
                        r"late|mid|years?|months?|days?|weeks?|decades?|eras?|periods?|war|age|time|once|every|upon|"
                        r"following|while|prior|ago|within|currently|later)\b|世纪|年代|时代|时期|时候|期间|战争|战后|"
                        r"之后|之前|以后|以前|后来|当时|目前|[早晚]上|[上中下]午|午夜|凌晨|黎明|傍晚|[春夏秋冬][天季]|"
                        r"[今昨明]天|[今去明]年|[元宋明清唐汉]朝|[初末]年|[上中下]旬", re.IGNORECASE)
CHINESE_NUMBER = "[零〇一二两三四五六七八九十百千万亿]+"
CHINESE_AMOUNT = re.compile(rf"(?:{CHINESE_NUMBER}|[数几半])[多余几]?(?:[个名位次条种只座岁号世代元人米度倍届层间部家]|"
                            rf"[所户张本件辆艘支场集期章亩吨斤年月日天时分秒点成]|公里)|^{CHINESE_NUMBER}$|"
                            rf"{CHINESE_NUMBER}分之")
COUNTED = re.compile(f"{CHINESE_NUMBER}[年月日天个次条座倍元米度点]")  # 二世 and 三毛 are people
MOST_LEFT = 2  # Han characters that may stand beside a date or an amount: the name of an era, a unit
PEOPLE = re.compile(r"\b(?:people|men|women|man|woman|king|queen|team|students?|players?|members?|government|company|"
                    r"group|children|child|scientists?|workers?|army|church|owners?|he|she|they|the|everyone|anyone|"
                    r"nobody|officers?|citizens?|doctors?|pharmacists?|teachers?)\b|\w+(?:ers|ors|ists|ians|men)\b",
                    re.IGNORECASE)
SMALL_WORDS = (
    "in on at by from to of the and or about around over under nearly almost more less than between until since early "
    "late mid bc ad bce ce am pm th st nd rd s per cent percent a an year years month months day days week weeks hour "
    "hours minute minutes second seconds century centuries decade decades hundred thousand million billion trillion "
    "spring summer autumn fall winter morning evening night noon midnight mile miles km metres meters feet kg pounds "
    "dollars euros acres times approximately roughly")
BESIDE = frozenset((*MONTHS.split("|"), *SMALL_WORDS.split()))
CHINESE_BESIDE = re.compile(
    "[年月日号时分秒点世纪代初中末底前后约近超过大多余公元人民币港美镑英尺米里顷平方千瓦吨度]|"
    "[个名位次条种座岁届层间部家所户张本件辆艘支场集期章倍％%第至到从的春夏秋冬天季上下午早晚凌晨左右以来之]|[\\s\\W]")


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
    return bool(DIGITS.search(answer) or CHINESE_AMOUNT.search(answer) or words & set(WORDS)
                or AMOUNT_WORDS.search(answer))


def _time(answer: str) -> bool:
    return bool(DIGITS.search(answer) or CHINESE_AMOUNT.search(answer) or TIME_WORDS.search(answer))


def _person(answer: str) -> bool:
    if _only_amount_or_time(answer):
        return False
    return bool(HAN.search(answer) or any(word[0].isupper() for word in WORD.findall(answer) if word[0].isalpha())
                or PEOPLE.search(answer))


def _only_amount_or_time(answer: str) -> bool:
    """Whether nothing is left of it without numbers, dates, units and small words."""
    if HAN.search(answer):
        left = CHINESE_BESIDE.sub("", re.sub(CHINESE_NUMBER, "", DIGITS.sub("", answer)))
        return bool(DIGITS.search(answer) or COUNTED.search(answer)) and len(left) <= MOST_LEFT
    words = [word.lower() for word in WORD.findall(answer)]
    left_over = [word for word in words if not word.isdigit() and word not in BESIDE and word not in WORDS]
    return not left_over and any(word.isdigit() or word in WORDS or word in MONTHS for word in words)


LOOKS_RIGHT: dict[str, Callable[[str], bool]] = {"how_many": _number, "when": _time, "who": _person}
