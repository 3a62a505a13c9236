"""Words never break a token or a character, cover every token, and stand in order."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from treetune.explain.subject import offsets_of
from treetune.explain.words import words_of
from treetune.models.load import LoadedModel

TEXTS = ["It isn't a well-made film, 不好看!", "  two  spaces ", "漢字と仮名 mixed 中文text", "😀😀 ok", "."]


def spans(text: str, offsets: list[tuple[int, int]]) -> list[str]:
    return [word.text for word in words_of(text, np.array(offsets), range(len(offsets)), "source")]


def test_words_and_chinese_characters_are_units() -> None:
    text = "a well-made 电影!"
    assert spans(text, [(place, place + 1) for place in range(len(text))]) == ["a", "well-made", "电", "影", "!"]


def test_a_token_over_several_units_joins_them_and_bytes_of_a_character_join() -> None:
    assert spans("电影很好", [(0, 2), (2, 3), (2, 3), (2, 3), (3, 4)]) == ["电影", "很", "好"]


def test_white_space_tokens_go_with_what_follows() -> None:
    [first, second] = words_of("a  b", np.array([(0, 1), (1, 2), (2, 4)]), range(3), "source")
    assert (first.tokens, second.tokens) == ((0,), (1, 2))


def check(loaded: LoadedModel, text: str) -> None:
    ids, offsets = offsets_of(loaded.tokenizer, text)
    words = words_of(text, offsets, range(len(ids)), "source")
    tokens = [token for word in words for token in word.tokens]
    assert tokens == list(range(len(ids))) or not words
    assert all(one.end <= other.start for one, other in pairwise(words))
    assert all(text[word.start : word.end] == word.text and word.text.strip() for word in words)


def test_every_token_is_in_one_word(decoder: LoadedModel) -> None:
    for text in TEXTS:
        check(decoder, text)

    @given(st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=30))
    def law(text: str) -> None:
        check(decoder, text)

    law()
