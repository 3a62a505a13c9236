"""Numbers in running text as values: digits with separators, words of four languages, Chinese numerals.

A value is written in one canonical form, so that ``1,200``, ``1.200``, ``1200`` and ``一千二百`` are the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

DIGITS = re.compile(r"(?<![\w.])[-−]?\d+(?:[.,\u2009\u202f' ]\d{3})+(?:[.,]\d+)?(?![\d])|[-−]?\d+(?:[.,]\d+)*")
CHINESE = re.compile("[零〇一二两三四五六七八九十百千万亿]+")
CHINESE_DIGITS = {name: value for value, name in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
CHINESE_UNITS = {"十": 10, "百": 100, "千": 1000}
CHINESE_LARGE = {"万": 10**4, "亿": 10**8}
WORD = re.compile(r"[^\W\d_]+", re.UNICODE)
FULL_WIDTH = str.maketrans("０１２３４５６７８９．，", "0123456789.,")
SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "tausend": 10**3, "millionen": 10**6,
          "milliarden": 10**9, "mille": 10**3, "millions": 10**6, "milliards": 10**9, "万": 10**4, "亿": 10**8,
          "千": 10**3, "百": 100}
WORDS: dict[str, int] = {
    name: value for language in (
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
         "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
        ("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf", "zwölf",
         "dreizehn", "vierzehn", "fünfzehn", "sechzehn", "siebzehn", "achtzehn", "neunzehn", "zwanzig"),
        ("zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf", "dix", "onze", "douze",
         "treize", "quatorze", "quinze", "seize", "dix-sept", "dix-huit", "dix-neuf", "vingt"),
    ) for value, name in enumerate(language)
} | {"thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90, "hundred": 100,
     "dreißig": 30, "vierzig": 40, "fünfzig": 50, "sechzig": 60, "siebzig": 70, "achtzig": 80, "neunzig": 90,
     "hundert": 100, "trente": 30, "quarante": 40, "cinquante": 50, "soixante": 60, "cent": 100, "ein": 1, "eine": 1,
     "einen": 1, "einem": 1, "einer": 1, "une": 1, "dozen": 12, "dutzend": 12, "first": 1, "second": 2, "third": 3,
     "both": 2, "beide": 2, "pair": 2, "couple": 2, "half": 2}


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number written in digits: its value in canonical form, as written, and where."""

    value: str
    text: str
    start: int
    end: int


def quantities_in(text: str) -> list[Quantity]:
    """The numbers written in digits, left to right."""
    return [Quantity(value_of(match[0]), match[0], match.start(), match.end())
            for match in DIGITS.finditer(text.translate(FULL_WIDTH))]


def values_in(text: str) -> set[str]:
    """Every value that the text may be said to state, in digits, words or Chinese numerals, with its scale applied."""
    found: set[str] = set()
    for each in quantities_in(text):
        found.add(each.value)
        after = WORD.match(text, each.end) or WORD.match(text, each.end + 1)
        scale = SCALES.get(after[0].lower()) or SCALES.get(after[0][0]) if after else None
        if scale:
            found.add(canonical(float(each.value) * scale))
    found |= {canonical(WORDS[word]) for word in map(str.lower, WORD.findall(text)) if word in WORDS}
    for match in CHINESE.finditer(text):
        found.add(canonical(chinese_value(match[0])))
    return found


def value_of(written: str) -> str:
    """``1,200.50`` and ``1.200,5`` -> ``1200.5``: the last mark is decimal unless three digits follow it."""
    text = written.replace("−", "-").replace("\u2009", "").replace("\u202f", "").replace("'", "").replace(" ", "")
    marks = [place for place, mark in enumerate(text) if mark in ".,"]
    if not marks:
        return canonical(float(text))
    last = marks[-1]
    grouped = len(text) - last == 4 and len({text[place] for place in marks}) == 1 and text[:last].lstrip("-") != "0"
    whole, part = (text, "") if grouped else (text[:last], text[last + 1 :])
    return canonical(float(re.sub("[.,]", "", whole) + ("." + part if part else "")))


def canonical(value: float) -> str:
    """Without a sign that marks a range, without needless zeros."""
    return f"{abs(value):.10g}"


def chinese_value(text: str) -> float:
    """``一千二百三十`` -> 1230; ``二〇一九`` -> 2019."""
    if not any(mark in CHINESE_UNITS or mark in CHINESE_LARGE for mark in text):
        return float("".join(str(CHINESE_DIGITS[mark]) for mark in text))
    total = section = digit = 0
    for mark in text:
        if mark in CHINESE_DIGITS:
            digit = CHINESE_DIGITS[mark]
        elif mark in CHINESE_UNITS:
            section += (digit or 1) * CHINESE_UNITS[mark]
            digit = 0
        else:
            total = (total + section + digit) * CHINESE_LARGE[mark] if total + section + digit else CHINESE_LARGE[mark]
            section = digit = 0
    return float(total + section + digit)
