"""torch's compiler, imported when something is compiled.

transformers and torch's optimizers import ``torch._dynamo`` to say what it must leave alone. With all that it imports
in turn, that is 25 MB and half a second of every command; nothing is compiled here but attention on a GPU (`flex`).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from treetune.core.deferred import StandIn, stand_in


def import_compiler_when_used() -> None:
    """Let something stand in for it that can be told what to leave alone, until more is asked of it."""
    stand_in(Compiler("torch._dynamo"))


class Compiler(StandIn):
    """What it is told, the compiler is told when it comes."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._told: list[tuple[str, Callable[..., Any]]] = []

    def has_come(self, module: Any) -> None:
        """Tell it what was told before."""
        for what, fn in self._told:
            getattr(module, what)(fn)

    def graph_break(self, msg: str = "") -> None:
        """Nothing, where nothing is compiled."""
        if not self.is_needed():
            self.itself().graph_break(msg)

    def assume_constant_result(self, fn: Callable[..., Any]) -> Any:
        """The same function."""
        return self._tell("assume_constant_result", fn)

    def allow_in_graph(self, fn: Callable[..., Any]) -> Any:
        """The same function."""
        return self._tell("allow_in_graph", fn)

    def _tell(self, what: str, fn: Callable[..., Any]) -> Any:
        if not (self.is_needed() and inspect.isfunction(fn)):
            return getattr(self.itself(), what)(fn)
        self._told.append((what, fn))
        return fn

    def disable(self, fn: Any = None, recursive: bool = True, **kwargs: Any) -> Any:
        """The function, to be left alone by the compiler once that is there."""
        if fn is None:
            return functools.partial(self.disable, recursive=recursive, **kwargs)
        if not (self.is_needed() and inspect.isfunction(fn)):
            return self.itself().disable(fn, recursive, **kwargs)
        left_alone = functools.cache(lambda: self.itself().disable(fn, recursive, **kwargs))

        @functools.wraps(fn)
        def run(*args: Any, **named: Any) -> Any:
            return (fn if self.is_needed() else left_alone())(*args, **named)

        return run
