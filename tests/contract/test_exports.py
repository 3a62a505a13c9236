"""What ``from treetune import …`` offers."""

import pytest

import treetune


def test_names_are_sorted_and_stand_once() -> None:
    assert treetune.__all__ == sorted(set(treetune.__all__))
    assert dir(treetune) == treetune.__all__


@pytest.mark.parametrize("name", treetune.__all__)
def test_every_name_is_there_and_documented(name: str) -> None:
    value = getattr(treetune, name)
    assert value is not None
    if callable(value):
        assert value.__doc__


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        treetune.nothing  # noqa: B018
