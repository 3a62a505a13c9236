"""Words, scripts and sentences as the checks see them, for texts with and without white space."""

from __future__ import annotations

import re

HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?|\d+", re.UNICODE)
SENTENCE = re.compile(r"[^。！？!?\n]+?(?:[。！？!?]+|(?<=[^\W\d]{2})\.(?=\s|$)|\n|$)")
WITHOUT_SPACES = ("zh", "ja", "th")


def main_code(language: str) -> str:
    """``zh`` of ``zh-CN`` and ``zh_Hans``."""
    return language.lower().replace("_", "-").split("-")[0]


def script_of(character: str) -> str:
    """``han``, ``kana``, ``hangul``, ``cyrillic``, ``arabic``, ``latin`` or ``other``; by code point."""
    code = ord(character)
    for name, low, high in SCRIPTS:
        if low <= code <= high:
            return name
    return "other"


SCRIPTS = (
    ("latin", 0x41, 0x24F), ("han", 0x4E00, 0x9FFF), ("cyrillic", 0x400, 0x52F), ("arabic", 0x600, 0x6FF),
    ("kana", 0x3040, 0x30FF), ("hangul", 0xAC00, 0xD7AF), ("han", 0x3400, 0x4DBF), ("greek", 0x370, 0x3FF),
    ("hebrew", 0x590, 0x5FF), ("thai", 0xE00, 0xE7F), ("devanagari", 0x900, 0x97F), ("latin", 0x1E00, 0x1EFF),
)


def units_of(text: str) -> list[str]:
    """Lower-cased words; Han characters one by one."""
    return [part for word in WORD.findall(text.lower())
            for part in (HAN.findall(word) if HAN.search(word) else [word])]


def sentences_in(text: str) -> list[str]:
    """Rough sentences: a mark of the end, and for the dot a word of two letters before it."""
    return [found.strip() for found in SENTENCE.findall(text) if found.strip()]
