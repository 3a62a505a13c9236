"""What the tasks share: finding one, reading cells, choosing a language, groups."""

from typing import Any

import pytest

from treetune.core.errors import DataError, UsageError
from treetune.core.records import Row
from treetune.core.settings import TASK_NAMES
from treetune.tasks import question_answering
from treetune.tasks.contract import (
    TaskOptions,
    groups_of,
    has_chinese,
    load_task,
    prompt_language,
    row_error,
    task_names,
    text_of,
)


def row(**values: Any) -> Row:
    return Row(values, "f.csv", 3, 1, "train")


def test_the_folder_is_the_registry_and_the_settings_know_all_of_it() -> None:
    assert task_names() == sorted(TASK_NAMES)


def test_a_task_is_loaded_by_name_or_short_name() -> None:
    assert [load_task(name).NAME for name in task_names()] == task_names()
    assert load_task("qa") is question_answering  # type: ignore[comparison-overlap]


@pytest.mark.parametrize(("name", "advice"), [("sentimant", "--task sentiment"),
                                              ("xyz", "choose one of them")])
def test_an_unknown_task_is_refused_with_the_nearest_name(name: str, advice: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_task(name)
    assert caught.value.code == "E2010"
    assert caught.value.allowed == ", ".join(task_names())
    assert caught.value.do == advice


def test_the_contract_itself_is_no_task() -> None:
    with pytest.raises(UsageError, match="E2010"):
        load_task("contract")


def test_a_cell_is_stripped_text() -> None:
    assert text_of(row(a="  x y\n"), "a") == "x y"


@pytest.mark.parametrize("values", [{}, {"a": None}, {"a": ""}, {"a": "\u3000 "}, {"a": 1}, {"a": ["x"]}])
def test_an_empty_cell_is_refused_by_place(values: dict[str, Any]) -> None:
    with pytest.raises(DataError) as caught:
        text_of(row(**values), "a")
    assert (caught.value.code, caught.value.where) == ("E1202", "f.csv, line 3, column 'a'")
    assert caught.value.found == repr(values.get("a"))


def test_an_error_of_a_row_advises_to_correct_it_unless_told_otherwise() -> None:
    assert row_error(row(), "a", "E1202", "w", found="", allowed="").do == "correct the row or remove it"
    assert row_error(row(), "a", "E1202", "w", found="", allowed="", do="x").do == "x"


@pytest.mark.parametrize(("text", "chinese"), [
    ("", False), ("123 !?", False), ("hello", False), ("你好", True), ("㐀", True), ("你abcd", True),
    ("你abcde", False), ("これはペンです", False), ("iPhone 手机很好", True),
])
def test_a_fifth_of_han_letters_is_chinese(text: str, chinese: bool) -> None:
    assert has_chinese(text) is chinese
    assert prompt_language(TaskOptions(), text) == ("zh" if chinese else "en")
    assert prompt_language(TaskOptions((), "zh"), text) == "zh"
    assert prompt_language(TaskOptions((), "en"), text) == "en"


def test_groups_are_short_text_columns_that_the_task_does_not_read() -> None:
    given = row(text="t", id="1", a="x", b="y" * 40, c="z" * 41, d="", e=4, f=None)
    assert groups_of(given, {"text": 0}) == {"a": "x", "b": "y" * 40}
