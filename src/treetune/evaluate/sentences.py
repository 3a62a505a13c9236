"""Where a sentence ends, for English, German and Chinese punctuation."""

from __future__ import annotations

import re

# A mark of Chinese punctuation ends a sentence wherever it stands; . ! ? … only before white space. Closing
# quotes and brackets belong to the sentence they close. A blank line always ends one.
_END = re.compile(
    r"""(?P<wide>(?:[。！？]|……|[!?]+(?=[\u3400-\u9fff]))+[”’」』）》]*)\s*"""
    r"""|(?P<narrow>(?<![.!?…])[.!?…]+["'”’“»«)\]]*)(?=\s|$)\s*"""
    r"""|\n\s*\n\s*"""
)
_ABBREVIATIONS = frozenset((
    "mr", "mrs", "ms", "dr", "prof", "st", "sr", "jr", "vs", "e.g", "i.e", "cf", "approx", "inc", "ltd",
    "corp", "u.s", "u.k", "gen", "gov", "sen", "rep", "bzw", "ca", "d.h", "evtl", "ggf", "inkl", "s.o", "s.u",
    "u.a", "vgl", "z.b", "z.t", "hrsg", "hl", "sog",
))
_BEFORE_NUMBER = frozenset((
    "no", "nr", "fig", "abb", "vol", "bd", "abs", "p", "pp", "s",
    "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec",
))
_GERMAN_MONTHS = re.compile("(?:Jan|Feb|März|Apr|Mai|Jun|Jul|Aug|Sep|Okt|Nov|Dez)")


def sentences_of(text: str) -> list[str]:
    """The sentences of a text, stripped, in order; joined they hold every character but outer white space.

    A dot does not end a sentence after a known abbreviation, a single capital letter (an initial) or a German
    day number before a month, nor before a lower-case letter.
    """
    found: list[str] = []
    start = 0
    for match in _END.finditer(text):
        if match["narrow"] and not _ends_here(text, match):
            continue
        found.append(text[start : match.end()].strip())
        start = match.end()
    return [sentence for sentence in [*found, text[start:].strip()] if sentence]


def _ends_here(text: str, match: re.Match[str]) -> bool:
    """Whether the mark found ends a sentence, by the word before and the character after."""
    following = text[match.end() : match.end() + 4]
    if following[:1].islower():
        return False
    if match["narrow"] != ".":
        return True
    before = re.search(r"\S*$", text[max(0, match.start() - 20) : match.start()])
    word = (before.group() if before else "").lstrip("\"'(„“”‘«»[")
    if word.lower() in _ABBREVIATIONS or (len(word) == 1 and word.isalpha() and word.isupper()):
        return not following
    if word.lower() in _BEFORE_NUMBER and following[:1].isdigit():
        return False
    return not (re.fullmatch(r"\d{1,2}", word) and _GERMAN_MONTHS.match(following))
