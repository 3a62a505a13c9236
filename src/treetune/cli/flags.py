"""Flags made from a settings schema, so that YAML, flags and Python calls cannot drift apart."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from treetune.core.errors import UsageError


def with_flags(settings: type[BaseModel], function: Callable[..., Any]) -> Callable[..., Any]:
    """``function(config, overrides, **own)`` as a command with one flag a field of ``settings``.

    Keyword-only parameters of ``function`` stay flags of their own. Fields that are lists of tables have no flag:
    they are written in YAML.
    """
    own = [each for each in _own_parameters(function) if each.kind is each.KEYWORD_ONLY]
    fields = {name: field for name, field in settings.model_fields.items() if _flag_type(field) is not None}

    def command(config: str | None = None, **given: Any) -> Any:
        overrides = {name: given.pop(name) for name in fields}
        if overrides.get("columns") is not None:
            overrides["columns"] = parse_columns(overrides["columns"]) or None
        return function(config, overrides, **given)

    parameters = [
        inspect.Parameter("config", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None,
                          annotation=Annotated[str | None, typer.Argument(help="YAML file with settings")]),
        *(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(name, field))
          for name, field in fields.items()),
        *own,
    ]
    return _shown_as(command, parameters, function)


def with_more_flags(settings: type[BaseModel], function: Callable[..., Any]) -> Callable[..., Any]:
    """``function(…, more={})`` as a command with its own flags and, in place of ``more``, one a field of ``settings``.

    Only fields that were given come in ``more``.
    """
    own = [each for each in _own_parameters(function) if each.name != "more"]

    def command(**given: Any) -> Any:
        more = {name: given.pop(name) for name in settings.model_fields}
        return function(**given, more={name: value for name, value in more.items() if value is not None})

    extra = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None,
                               annotation=_annotation(name, field)) for name, field in settings.model_fields.items()]
    return _shown_as(command, [*own, *extra], function)


def _own_parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """With their annotations as types: in the source they are texts."""
    hints = typing.get_type_hints(function, include_extras=True)
    return [each.replace(annotation=hints[each.name]) for each in inspect.signature(function).parameters.values()]


def _shown_as(
    command: Callable[..., Any], parameters: Sequence[inspect.Parameter], function: Callable[..., Any]
) -> Callable[..., Any]:
    """``command`` with these parameters for typer to read, and the help of ``function``."""
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    command.__doc__ = function.__doc__
    return command


def _flag_type(field: FieldInfo) -> Any:
    """The Python type of the flag; None for fields that only YAML can hold."""
    kind = field.annotation
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(each for each in get_args(kind) if each is not type(None))
    if get_origin(kind) is Literal:
        return str
    if get_origin(kind) is dict:
        return list[str]
    return kind if kind in (str, int, float, bool) else None


def _annotation(name: str, field: FieldInfo) -> Any:
    flag = "--" + name.replace("_", "-")
    names = (f"{flag}/--no-{flag[2:]}",) if _flag_type(field) is bool else (flag,)
    help_text = field.description or ""
    if not field.is_required() and field.default not in (None, ""):
        help_text += f" [default: {field.get_default(call_default_factory=True)}]"
    return Annotated[_flag_type(field) | None, typer.Option(*names, help=help_text, show_default=False)]


def parse_columns(words: list[str] | None) -> dict[str, str]:
    """``["text=review"]`` -> ``{"text": "review"}``.

    Raises:
        UsageError: E2006 when a word has no ``=``.
    """
    result = {}
    for word in words or []:
        name, equals, column = word.partition("=")
        if not equals or not name or not column:
            raise UsageError("E2006", "a column is given as NAME=YOURS", where="--columns", found=word,
                             allowed="e.g. text=review", do="write --columns text=review")
        result[name] = column
    return result
