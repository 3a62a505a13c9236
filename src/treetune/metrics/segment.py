"""Characters and words of Chinese and other text, as the metrics count them."""

from __future__ import annotations

import re

# CJK unified ideographs: extension A, the main block, compatibility, and extensions B and later.
HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
# Kana and Thai, too, are written without spaces between words.
UNSPACED = HAN + "\u3040-\u30ff\u0e00-\u0e7f"
CHINESE_CODES = frozenset({"zh", "zho", "chi", "cmn", "yue"})

_HAN = re.compile(f"[{HAN}]")
_WORDS = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+")
_ASCII_LETTERS = re.compile("[a-zA-Z]")


def is_chinese(language: str) -> bool:
    """Whether a language code (``zh``, ``zh-CN``, ``zh_Hans`` …) means Chinese."""
    return re.split("[-_]", language.lower())[0] in CHINESE_CODES


def is_han(character: str) -> bool:
    """Whether one character is a Han character."""
    return bool(_HAN.match(character))


def words(text: str) -> list[str]:
    """Lower-cased words of any script; each Han, kana or Thai character alone; punctuation dropped.

    ``"我用GPT-3写诗。"`` -> ``["我", "用", "gpt", "3", "写", "诗"]``.
    """
    return _WORDS.findall(text.lower())


def is_mostly_ascii(text: str) -> bool:
    """Whether at least half of the letters are a-z, as in English and German; true when there are none."""
    letters = sum(character.isalpha() for character in text)
    return 2 * len(_ASCII_LETTERS.findall(text)) >= letters
