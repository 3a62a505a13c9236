"""Flags from a schema: names, types, and what is passed on."""

from typing import Annotated, Any, Literal

import pytest
import typer
import typer.main
from pydantic import BaseModel, Field

from treetune.cli.flags import parse_columns, with_flags
from treetune.core.errors import UsageError


class Sample(BaseModel):
    """A schema of every kind of field."""

    name: str = Field(description="a text")
    kind: Literal["a", "b"] = Field("a", description="one of two")
    learning_rate: float = Field(0.5, description="a number")
    count: int | None = Field(None, description="may be left out")
    bf16: bool = Field(False, description="a switch")
    columns: dict[str, str] = Field(default_factory=dict, description="pairs")
    tables: list[BaseModel] = Field(default_factory=list, description="only in YAML")


def call(*words: str) -> tuple[str | None, dict[str, Any], dict[str, Any]]:
    seen: list[Any] = []

    def verb(
        config: str | None, overrides: dict[str, Any], *,
        loud: Annotated[bool, typer.Option("--loud", help="a flag of its own")] = False,
    ) -> int:
        """Help of the verb."""
        seen.extend([config, overrides, {"loud": loud}])
        return 0

    app = typer.Typer()
    app.command()(with_flags(Sample, verb))
    assert typer.main.get_command(app)(list(words), standalone_mode=False) == 0
    return seen[0], seen[1], seen[2]


def test_nothing_given_is_none() -> None:
    config, overrides, own = call()
    assert config is None
    assert set(overrides) == {"name", "kind", "learning_rate", "count", "bf16", "columns"}
    assert all(value is None for value in overrides.values())
    assert own == {"loud": False}


def test_values_have_their_types() -> None:
    config, overrides, own = call("run.yaml", "--name", "x", "--kind", "b", "--learning-rate", "1e-3", "--count", "3",
                                  "--bf16", "--columns", "text=review", "--columns", "label=stars", "--loud")
    assert config == "run.yaml"
    assert overrides == {"name": "x", "kind": "b", "learning_rate": 1e-3, "count": 3, "bf16": True,
                         "columns": {"text": "review", "label": "stars"}}
    assert own == {"loud": True}


def test_a_switch_has_its_opposite() -> None:
    assert call("--no-bf16")[1]["bf16"] is False


@pytest.mark.parametrize(
    ("words", "message"),
    [(("--tables", "x"), "--tables"), (("--count", "many"), "valid integer|'many'"),
     (("--learning_rate", "1"), "--learning_rate")],
)
def test_what_is_no_flag_is_refused(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(Exception, match=message):
        call(*words)


def test_columns_are_pairs() -> None:
    assert parse_columns(None) == {}
    assert parse_columns(["a=b", "c=d=e"]) == {"a": "b", "c": "d=e"}


@pytest.mark.parametrize("word", ["text", "=x", "x=", ""])
def test_other_columns_are_refused(word: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_columns([word])
    assert caught.value.code == "E2006"
