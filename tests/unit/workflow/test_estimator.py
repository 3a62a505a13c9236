"""What counts as rows of a task."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treetune.core.errors import DataError
from treetune.workflow.estimator import rows_of

COLUMNS = st.dictionaries(st.sampled_from(["context", "question", "id"]), st.lists(st.text(), min_size=3, max_size=3),
                          min_size=1)


@given(COLUMNS)
def test_a_dict_of_columns_and_a_list_of_dicts_say_the_same(columns: dict[str, list[str]]) -> None:
    listed = [{name: values[place] for name, values in columns.items()} for place in range(3)]
    assert rows_of(columns, ("context", "question")) == listed == rows_of(listed, ("context", "question"))


@given(st.lists(st.text()))
def test_texts_are_rows_of_a_task_with_one_column(texts: list[str]) -> None:
    assert rows_of(texts, ("text",)) == [{"text": each} for each in texts]


@pytest.mark.parametrize("given_rows", [
    ["a", "b"], {"context": ["a"], "question": ["b", "c"]}, "a text", [1, 2], ["a", {"context": "b"}],
    {"context": "a", "question": "b"}])
def test_anything_else_is_refused(given_rows: Any) -> None:
    with pytest.raises(DataError, match="E1208"):
        rows_of(given_rows, ("context", "question"))
