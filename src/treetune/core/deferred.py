"""A library that others import and nobody here uses: something stands in for it until it is used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from threading import Lock
from types import FrameType, ModuleType
from typing import Any

GIVING_WAY = Lock()
"""One thread at a time takes a stand-in out of the way; not held while the module itself is imported."""


def import_when_used(wanted: str, importers: Sequence[str], errors: Sequence[str] = ()) -> None:
    """Let modules import the module ``wanted`` not when they are imported, but when they use what they took from it.

    Whoever else asks it for anything gets the module itself, and from then on so do the importers. Nothing changes
    where it has been imported before, or cannot be found.

    Args:
        wanted: a module's full name.
        importers: modules and packages that take functions from it, or classes that they call but neither inherit from
            nor test with.
        errors: exceptions that they take to catch them; until ``wanted`` comes, classes that nobody raises.
    """
    stand_in(ForImporters(wanted, importers, errors))


def stand_in(module: StandIn) -> None:
    """Have it found in the place of the module of its name, where that has not been imported and can be."""
    if module.__name__ not in sys.modules and module.__spec__ is not None:
        sys.modules[module.__name__] = module


def spec_of(name: str) -> ModuleSpec | None:
    """Where a module lies; without importing the packages it is in, as `importlib.util.find_spec` does."""
    package, _, _ = name.rpartition(".")
    if not package:
        return PathFinder.find_spec(name)
    around = spec_of(package)
    places = around.submodule_search_locations if around is not None else None
    return None if places is None else PathFinder.find_spec(name, places)


class StandIn(ModuleType):
    """Found in the place of a module, which it imports when it is asked for anything."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._spec = spec_of(name)

    @property
    def __spec__(self) -> ModuleSpec | None:  # type: ignore[override]
        """The module's. Python asks for it at every import, so this is when the package has to know of the module."""
        package, _, own = self.__name__.rpartition(".")
        if self.is_needed() and package:
            vars(importlib.import_module(package)).setdefault(own, self)
        return self._spec

    def __getattr__(self, name: str) -> Any:
        package = self._spec is not None and self._spec.submodule_search_locations is not None
        if name.startswith("__") and not (name == "__path__" and package):
            raise AttributeError(name)  # what Python's own tools ask of all modules
        return getattr(self.itself(), name)

    def is_needed(self) -> bool:
        """Whether the module itself has not been imported yet."""
        return sys.modules.get(self.__name__) is self

    def itself(self) -> Any:
        """The module, imported now if it was not."""
        with GIVING_WAY:
            first = self.is_needed()
            if first:
                del sys.modules[self.__name__]
        module = importlib.import_module(self.__name__)
        if first:
            self.has_come(module)
        return module

    def has_come(self, module: Any) -> None:
        """Called with the module itself when it has been imported."""


class ForImporters(StandIn):
    """Gives its importers something for each name they take, and all others the module itself."""

    def __init__(self, wanted: str, importers: Sequence[str], errors: Sequence[str]) -> None:
        super().__init__(wanted)
        self._importers = importers
        self._given: dict[str, Any] = {name: type(name, (Exception,), {"__module__": wanted}) for name in errors}
        self._takers: dict[str, dict[str, Any]] = {}

    def __getattr__(self, name: str) -> Any:
        asked_by = sys._getframe(1)
        if not (self.is_needed() and self._is_import(asked_by)):
            return super().__getattr__(name)
        if name.startswith("__"):
            raise AttributeError(name)
        self._takers[asked_by.f_globals["__name__"]] = asked_by.f_globals
        return self._given.setdefault(name, WhenUsed(self, name))

    def _is_import(self, frame: FrameType) -> bool:
        """Whether an importer asks as it is being imported; what its functions import, they use."""
        name = str(frame.f_globals.get("__name__"))
        ours = any(name == each or name.startswith(f"{each}.") for each in self._importers)
        return ours and frame.f_code.co_name == "<module>"

    def has_come(self, module: Any) -> None:
        """Give the importers what they would have had."""
        name_of = {id(given): name for name, given in self._given.items()}
        for variables in self._takers.values():
            own = {at: name_of[id(value)] for at, value in variables.items() if id(value) in name_of}
            variables.update({at: getattr(module, name) for at, name in own.items()})


class WhenUsed:
    """A function or class of a module that is imported when this is called, or asked for an attribute."""

    def __init__(self, module: StandIn, name: str) -> None:
        self._module, self._name = module, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(self._module.itself(), self._name)(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(getattr(self._module.itself(), self._name), name)
