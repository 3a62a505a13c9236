"""Summarization: prompts in two languages, the summary on one line, and what is refused."""

from typing import Any

import pytest

from treetune.core.errors import DataError
from treetune.core.records import Row
from treetune.tasks import summarization
from treetune.tasks.contract import TaskOptions


def row(**values: Any) -> Row:
    return Row(values, "news.jsonl", 4, 3, "train")


def test_an_english_row_asks_in_english() -> None:
    example = summarization.example_from_row(row(document="A long story.", summary="A story."), TaskOptions())
    assert example.prompt_text == "A long story.\nSummary:"
    assert [part.cuttable for part in example.prompt] == [True, False]
    assert (example.completion, example.answers) == (" A story.", ("A story.",))
    assert (example.language, example.source, example.candidates) == ("en", "A long story.", {})


def test_a_chinese_row_asks_in_chinese() -> None:
    example = summarization.example_from_row(row(document="今天下雨了。", summary="下雨"), TaskOptions())
    assert example.prompt_text == "今天下雨了。\n摘要："
    assert (example.completion, example.language) == ("下雨", "zh")


@pytest.mark.parametrize(("language", "end"), [("en", "\nSummary:"), ("zh", "\n摘要：")])
def test_the_language_that_was_set_wins_over_the_script(language: str, end: str) -> None:
    for document in ("English text", "中文"):
        given = row(document=document, summary="s")
        example = summarization.example_from_row(given, TaskOptions((), language))
        assert example.prompt_text == document + end


@pytest.mark.parametrize("column", ["document", "summary"])
@pytest.mark.parametrize("value", ["", " \t", None, 7])
def test_an_empty_cell_is_refused(column: str, value: Any) -> None:
    with pytest.raises(DataError) as caught:
        summarization.example_from_row(row(**{"document": "d", "summary": "s", column: value}), TaskOptions())
    assert caught.value.code == "E1202"
    assert caught.value.where == f"news.jsonl, line 4, column {column!r}"


def test_rows_to_predict_need_no_summary_and_keep_one_they_have() -> None:
    bare = summarization.example_from_row(row(document="d"), TaskOptions(), with_answer=False)
    assert (bare.completion, bare.answers) == ("", ())
    known = summarization.example_from_row(row(document="d", summary="s"), TaskOptions(), with_answer=False)
    assert (known.completion, known.answers) == (" s", ("s",))
    with pytest.raises(DataError, match="E1202"):
        summarization.example_from_row(row(document="d", summary=7), TaskOptions(), with_answer=False)


def test_a_summary_may_be_longer_than_its_document() -> None:
    example = summarization.example_from_row(row(document="d", summary="much longer"), TaskOptions())
    assert example.answers == ("much longer",)


@pytest.mark.parametrize("summary", ["One line.", "Two\nlines  here.\n", "第一行\n第二行"])
def test_the_completion_is_read_back_as_the_summary_in_one_line(summary: str) -> None:
    example = summarization.example_from_row(row(document="d", summary=summary), TaskOptions())
    assert summarization.answer_from_text(example.completion, example) == " ".join(summary.split())
    assert "\n" not in example.completion


def test_nothing_is_learnt_from_rows_and_other_columns_are_groups() -> None:
    assert summarization.options_from_rows([], "zh") == TaskOptions((), "zh")
    example = summarization.example_from_row(row(document="d", summary="s", topic="sports"), TaskOptions())
    assert example.groups == {"topic": "sports"}
