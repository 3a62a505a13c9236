"""Characters and words."""

import pytest

from treetune.metrics.segment import is_chinese, is_han, is_mostly_ascii, words


@pytest.mark.parametrize(("text", "expected"), [
    ("The cat's hat.", ["the", "cat", "s", "hat"]),
    ("我用GPT-3写诗。", ["我", "用", "gpt", "3", "写", "诗"]),
    ("Straße nach Köln", ["straße", "nach", "köln"]),
    ("Привет, мир!", ["привет", "мир"]),
    ("カタ仮名", ["カ", "タ", "仮", "名"]),
    ("snake_case", ["snake", "case"]),
    ("𠀀字", ["𠀀", "字"]),
    ("。，!?", []),
])
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_language_codes() -> None:
    assert all(map(is_chinese, ("zh", "zh-CN", "zh_Hans", "ZH", "cmn")))
    assert not any(map(is_chinese, ("en", "", "zhx", "ja")))


def test_scripts() -> None:
    assert is_han("字")
    assert not any(map(is_han, ("a", "。", "カ", "1")))
    assert is_mostly_ascii("Öl und Wasser")
    assert is_mostly_ascii("42")
    assert not is_mostly_ascii("Привет, world of мир и труд")
