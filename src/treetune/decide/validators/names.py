"""Names in the answer stand in the source: capitalised words inside a sentence, and in Chinese text what is set off.

German writes every noun with a capital, so German answers are left out; so are translations into another script or of
names that have their own form there, by comparing the first letters only.
"""

from __future__ import annotations

import re

from treetune.core.language import say
from treetune.core.records import Example, Prediction, Reason
from treetune.decide.validators.words import HAN, main_code

NAME = "names"
TASKS = ("translation", "summarization")
FLAG_ONLY = False
PREFIX = 4
LATIN_NAME = re.compile(r"(?<=[^\W_][,;:)]\s)\(?([A-Z][\w’'-]*[^\W\d_])|(?<=[^\W_]\s)\(?([A-Z][\w’'-]*[^\W\d_])")
IN_CHINESE = re.compile(r"[A-Za-z][A-Za-z0-9-]{2,}|[《“「]([^》”」]{2,20})[》”」]"
                        "|[\u4e00-\u9fff]{1,6}·[\u4e00-\u9fff]{1,6}")
SAME_EVERYWHERE = frozenset(["I", "I'm", "I've", "I'd", "I'll", "OK", "TV"])


def find(prediction: Prediction, example: Example) -> Reason | None:
    answer, language = prediction.answer, main_code(example.language)
    if language == "zh" or HAN.search(answer):
        found = [(match[1] or match[0], match.start()) for match in IN_CHINESE.finditer(answer)]
        if not example.prompt[0].cuttable:
            found = [each for each in found if each[0][0].isascii() and HAN.search(example.source) is None]
    elif language in ("en", "fr", "es", "it", "pt", "nl"):
        found = [(match[1] or match[2], match.start()) for match in LATIN_NAME.finditer(answer)]
    else:
        return None
    low = example.source.lower()
    for name, start in found:
        if name not in SAME_EVERYWHERE and not _stands(name, low, loose=not example.prompt[0].cuttable):
            return Reason(NAME, say("a name that the source does not have"), 1.0, 0.0, name, (start, start + len(name)))
    return None


def _stands(name: str, source: str, *, loose: bool) -> bool:
    own = name.lower().removesuffix("'s").removesuffix("’s")
    if own in source or all(part in source for part in re.split("[-’']", own) if len(part) > 1):
        return True
    if loose or len(own) > PREFIX + 2:
        return own[:PREFIX] in source
    return own.removesuffix("s") in source or _initials(own, source)


def _initials(own: str, source: str) -> bool:
    """An abbreviation made of the first letters of words that follow each other."""
    letters = "".join(word[0] for word in re.findall(r"[^\W\d_]+", source))
    return len(own) >= 2 and own in letters
