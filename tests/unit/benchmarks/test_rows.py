"""The rows of benchmarks: sets with an instruction in front, and what is kept of rows between processes."""

from pathlib import Path
from typing import Any

import pytest

from treetune.models.gpt3 import train_tokenizer
from treetune.models.tokens import tokenize


@pytest.fixture
def rows(benchmark_module: Any) -> Any:
    return benchmark_module("rows")


def test_a_set_with_an_instruction_has_the_rows_of_the_set(rows: Any) -> None:
    plain, groups = rows.examples_of("sample/sentiment")
    told, same = rows.examples_of("sample/sentiment+alpaca")
    assert groups == same
    assert [each.row_text for each in plain] == [each.row_text for each in told]
    assert {each.instruction for each in plain} == {""}
    assert told[0].prompt_text == rows.INSTRUCTIONS["alpaca"] + plain[0].prompt_text
    assert all(label in rows.INSTRUCTIONS["alpaca"] for label in ("positive", "negative", "neutral"))


def test_every_instruction_has_a_set_and_every_set_its_instruction_and_file(rows: Any) -> None:
    named = {name.partition("+")[2] for name in rows.SETS}
    assert named == {"", *rows.INSTRUCTIONS}
    for name in rows.INSTRUCTIONS:
        assert rows.place_of(f"sentiment/sst3+{name}") == rows.place_of("sentiment/sst3")
        assert rows.instruction_of(f"sentiment/sst3+{name}") == rows.INSTRUCTIONS[name]


def test_rows_come_back_as_they_were_saved(rows: Any, tmp_path: Path) -> None:
    examples = rows.examples_of("sample/sentiment+alpaca")[0][:6]
    made = tokenize(examples, train_tokenizer([each.prompt_text for each in examples] * 5, 300, 512), 300)
    rows.save_rows(tmp_path / "rows.npz", made)
    back = rows.load_rows(str(tmp_path / "rows.npz"))
    assert [each.prompt_ids.tolist() for each in back] == [each.prompt_ids.tolist() for each in made]
    assert [each.completion_ids.tolist() for each in back] == [each.completion_ids.tolist() for each in made]
    assert [(each.num_cut, each.num_instruction) for each in back] == [
        (each.num_cut, each.num_instruction) for each in made]
    assert made[0].num_instruction > 20
