"""The units an explanation speaks of: words, and single characters of Chinese and Japanese, never half a token."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SOURCE, QUESTION, INSTRUCTION = "source", "question", "instruction"
ALONE = "[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
UNIT = re.compile(rf"{ALONE}|(?:(?!{ALONE})[^\W_])+(?:['’-](?:(?!{ALONE})[^\W_])+)*|[^\w\s]|_")


@dataclass(frozen=True, slots=True)
class Word:
    """One unit of the input.

    Attributes:
        text: as it stands in its part. part: ``source``, ``question`` or ``instruction``.
        start, end: characters in the part's text. tokens: places in the model's input.
    """

    text: str
    part: str
    start: int
    end: int
    tokens: tuple[int, ...]


def words_of(text: str, offsets: NDArray[np.int64], places: Sequence[int], part: str) -> list[Word]:
    """The units of ``text`` that its tokens cover, in order.

    A token that covers several units joins them, and a character that several tokens spell (the bytes of a Chinese
    character) joins these, so that taking a word out never leaves half of a token or of a character. Tokens of white
    space alone go with what follows them.

    Args:
        offsets: (N, 2) characters of each token. places: where each token stands in the model's input.
    """
    spans = [_without_space(text, int(start), int(end)) for start, end in offsets]
    inside = np.zeros(len(text) + 1, dtype=bool)  # positions at which no word may end
    for start, end in [*spans, *(match.span() for match in UNIT.finditer(text))]:
        inside[start + 1 : end] = True
    pieces: dict[tuple[int, int], list[int]] = {}
    blank: list[int] = []
    for (start, end), place in zip(spans, places, strict=True):
        if start == end:
            blank.append(place)
            continue
        while inside[start]:
            start -= 1
        while end < len(text) and inside[end]:
            end += 1
        pieces.setdefault((start, end), []).extend([*blank, place])
        blank = []
    if blank and pieces:
        pieces[next(reversed(pieces))] += blank
    return [Word(text[start:end], part, start, end, tuple(tokens)) for (start, end), tokens in pieces.items()]


def _without_space(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def sums_of_words(words: Sequence[Word], by_token: NDArray[np.float64]) -> NDArray[np.float64]:
    """(W,) what each word's tokens add up to. by_token: (L,)."""
    return np.array([by_token[list(word.tokens)].sum() for word in words], dtype=np.float64)
