"""Pages that stand in English and in Chinese say the same: commands, programs, measured numbers."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAIRS = [("README.md", "README.zh.md")]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`(treetune [^`]+|--[a-z][^`]*)`")
COMMENT = re.compile(r"\s+# .*$", re.MULTILINE)
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def page(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def shown(text: str) -> list[tuple[str, str]]:
    """Its blocks in their order, without comments."""
    return [(kind, COMMENT.sub("", block)) for kind, block in BLOCK.findall(text)]


def commands_in_sentences(text: str) -> set[str]:
    return set(INLINE.findall(BLOCK.sub("", text)))


def table_rows(text: str) -> list[list[str]]:
    """Numbers of each line of a table that has any."""
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [NUMBER.findall(line) for line in lines]


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_both_show_the_same_commands_and_programs(english: str, chinese: str) -> None:
    assert shown(page(chinese)) == shown(page(english))
    assert commands_in_sentences(page(chinese)) == commands_in_sentences(page(english))


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_both_have_the_same_measured_numbers(english: str, chinese: str) -> None:
    assert table_rows(page(chinese)) == table_rows(page(english))


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_each_leads_to_the_other_and_one_is_chinese(english: str, chinese: str) -> None:
    assert f"]({Path(chinese).name})" in page(english)
    assert f"]({Path(english).name})" in page(chinese)
    hanzi = len(re.findall("[一-鿿]", page(chinese)))
    assert hanzi > 0.25 * len(BLOCK.sub("", page(chinese)))
    assert not re.search("[一-鿿]", BLOCK.sub("", page(english)).replace("[中文]", ""))
