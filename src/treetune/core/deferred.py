"""A library that another one imports for a function nobody here calls, imported when that function is called."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any


def import_when_called(importer: str, wanted: str) -> None:
    """Let functions that the module ``importer`` takes from the module ``wanted`` import it when they are called.

    What else asks for ``wanted`` gets it at once. Nothing changes where either has been imported before. Constants and
    classes cannot be had that way: only for a module that takes functions.
    """
    if importer not in sys.modules:
        sys.meta_path.insert(0, _Finder(importer, wanted))


class _Finder(MetaPathFinder):
    def __init__(self, importer: str, wanted: str) -> None:
        self.importer, self.wanted = importer, wanted

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's own spec, its code to be run while the functions stand in; None for every other module."""
        if fullname != self.importer:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self.wanted)
        return spec


class _Loader(Loader):
    def __init__(self, own: Loader, wanted: str) -> None:
        self.own, self.wanted = own, wanted

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the module's own loader does it."""
        return self.own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run its code; afterwards it has its own loader, as if this one had never been."""
        assert module.__spec__ is not None, "import sets it"
        module.__loader__ = module.__spec__.loader = self.own
        with _stand_in(self.wanted):
            self.own.exec_module(module)


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def when_called(*args: Any, **kwargs: Any) -> Any:
            return getattr(importlib.import_module(self.__name__), name)(*args, **kwargs)

        return when_called


@contextmanager
def _stand_in(wanted: str) -> Iterator[None]:
    if wanted in sys.modules:
        yield
        return
    stand_in = sys.modules[wanted] = _StandIn(wanted)
    try:
        yield
    finally:
        if sys.modules.get(wanted) is stand_in:
            del sys.modules[wanted]
