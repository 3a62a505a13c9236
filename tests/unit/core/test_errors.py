"""Every error says what, where, found, allowed and what to do."""

import pickle

import pytest

from treetune.core import errors
from treetune.core.errors import DataError, Interrupted, ModelError, RunError, TrainingError, TreetuneError, UsageError
from treetune.core.language import choose_language


@pytest.fixture(autouse=True)
def english():
    choose_language("en")
    yield
    choose_language("")


def full() -> DataError:
    return DataError("E1102", "no column {column!r}", where="a.csv", found="text, lable", allowed="text, label",
                     do="rename {column}", column="label")


def test_the_message_holds_code_what_where_found_allowed_and_do_in_this_order() -> None:
    assert str(full()).split("\n") == [
        "E1102: no column 'label'", "  where: a.csv", "  found: text, lable", "  allowed: text, label",
        "  do: rename label",
    ]


def test_what_is_empty_is_left_out() -> None:
    assert str(RunError("E5001", "the disk is full")) == "E5001: the disk is full"


def test_braces_in_what_was_found_are_shown_as_they_are() -> None:
    assert "{not a field}" in str(DataError("E1", "bad {x}", found="{not a field}", x=1))


def test_machines_get_the_same_fields() -> None:
    assert full().as_dict() == {
        "code": "E1102", "what": "no column 'label'", "where": "a.csv", "found": "text, lable",
        "allowed": "text, label", "do": "rename label",
    }


@pytest.mark.parametrize(
    ("kind", "code"),
    [(TreetuneError, 1), (UsageError, 2), (ModelError, 2), (DataError, 3), (RunError, 1), (TrainingError, 1),
     (Interrupted, 75)],
)
def test_exit_codes_are_stable(kind: type[TreetuneError], code: int) -> None:
    assert kind("E1", "x").exit_code == code


def test_python_users_may_catch_the_usual_kinds() -> None:
    assert issubclass(UsageError, ValueError)
    assert issubclass(DataError, ValueError)
    assert issubclass(RunError, RuntimeError)
    assert issubclass(ModelError, UsageError)
    assert errors.EXIT_GATE_REFUSED == 4


def test_an_error_crosses_a_process_border_unharmed() -> None:
    assert str(pickle.loads(pickle.dumps(full()))) == str(full())
