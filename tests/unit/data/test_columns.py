"""Which column is which."""

from typing import Any

import pytest

from treetune.core.errors import DataError, UsageError
from treetune.data.columns import nearest_name, rename, resolve_columns

ALIASES = {"text": ("review", "sentence"), "label": ("sentiment",)}


def resolve(present: list[str], **options: Any) -> dict[str, str]:
    return resolve_columns(present, **({"aliases": ALIASES, "columns": {}, "where": "a.csv"} | options))


@pytest.mark.parametrize(("present", "columns", "renamed"), [
    (["text", "label"], {}, {}),
    (["review", "label"], {}, {"review": "text"}),
    (["sentence", "review", "label"], {}, {"review": "text"}),  # aliases in order of preference
    (["review", "text"], {}, {}),  # the exact name wins over an alias
    (["Text", "LABEL"], {}, {"Text": "text", "LABEL": "label"}),
    (["text", "Text"], {}, {}),
    ([" Review ", "Sentiment"], {}, {" Review ": "text", "Sentiment": "label"}),
    (["body", "label"], {"text": "body"}, {"body": "text"}),
    (["body", "review"], {"text": "body"}, {"body": "text"}),  # the user's word wins over an alias
    (["text", "review"], {"text": "review"}, {"review": "text", "text": "original_text"}),
    (["text", "label"], {"text": "label", "label": "text"}, {"label": "text", "text": "label"}),
    (["text", "original_text", "review"], {"text": "review"},
     {"review": "text", "text": "original_original_text"}),
    (["body", "sex"], {"gender": "sex"}, {"sex": "gender"}),  # a column of no task, for the audit
    (["example_id", "text"], {}, {"example_id": "id"}),
    (["id", "example_id"], {}, {}),
])
def test_columns_are_found(present: list[str], columns: dict[str, str], renamed: dict[str, str]) -> None:
    assert resolve(present, columns=columns) == renamed


def test_one_column_serves_one_name_only() -> None:
    renamed = resolve(["content"], aliases={"source": ("content",), "target": ("content",)})
    assert renamed == {"content": "source"}


def test_aliases_of_the_caller_go_over_the_defaults() -> None:
    assert resolve(["example_id", "key"], aliases={"id": ("key",)}) == {"key": "id"}


def test_renaming_keeps_every_value() -> None:
    renamed = resolve(["text", "review", "label"], columns={"text": "review"})
    record = rename({"text": "old", "review": "new", "label": "x"}, renamed)
    assert record == {"original_text": "old", "text": "new", "label": "x"}


def test_a_missing_column_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(DataError) as caught:
        resolve(["reveiw", "label", "stars"], required=["text", "label"])
    error = caught.value
    assert (error.code, error.exit_code, error.where) == ("E1112", 3, "a.csv")
    assert "no column 'text'" in str(error)
    assert error.found == "reveiw, label, stars"
    assert error.as_dict()["do"] == "--columns text=reveiw"


def test_a_missing_column_without_a_near_one_says_how_to_name_it() -> None:
    with pytest.raises(DataError) as caught:
        resolve(["x", "y"], required=["text"])
    assert caught.value.as_dict()["do"] == "name the column with --columns text=NAME"


def test_a_column_that_the_user_named_must_be_there() -> None:
    with pytest.raises(DataError) as caught:
        resolve(["body", "label"], columns={"text": "bodi"})
    assert (caught.value.code, caught.value.as_dict()["do"]) == ("E1112", "--columns text=body")
    assert "'bodi'" in str(caught.value)


def test_one_column_under_two_names_is_a_mistake_of_usage() -> None:
    with pytest.raises(UsageError) as caught:
        resolve(["body"], columns={"text": "body", "label": "body"})
    assert (caught.value.code, caught.value.exit_code) == ("E1115", 2)


def test_long_lists_of_columns_are_cut_and_safe_to_print() -> None:
    with pytest.raises(DataError) as caught:
        resolve([f"c{n}\x1b[31m" for n in range(99)], required=["text"])
    assert caught.value.found.endswith("c29\\x1b[31m, …")


@pytest.mark.parametrize(("wanted", "present", "near"), [
    (["text"], ["texts", "label"], "texts"), (["source", "src"], ["SRC ", "x"], "SRC "),
    (["text"], ["zzz"], ""), (["text"], [], ""), (["summary"], ["a", "Summarry"], "Summarry"),
])
def test_nearest_name(wanted: list[str], present: list[str], near: str) -> None:
    assert nearest_name(wanted, present) == near
