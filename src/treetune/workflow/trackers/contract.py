"""What a file of this folder must offer, and how one is found. Its name is the tracker's, and that of its extra."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, cast

from treetune.core.errors import UsageError

# what a library may let out beside its own errors: disk and network, a state it cannot be in, a value it refuses
EXPECTED = (OSError, RuntimeError, ValueError, ImportError)


@dataclass(frozen=True, slots=True)
class Begin:
    """How a tracker begins, or goes on.

    Attributes:
        folder: where it may keep what it writes. name: of the run. id: under which it knew the run before, ""
        for a new one. settings: name -> number, text or truth value. kept_steps: numbers of later steps come again.
    """

    folder: Path
    name: str
    id: str
    settings: Mapping[str, Any]
    kept_steps: int


class Tracker(Protocol):
    """One run in one tracker. ``id`` finds it again."""

    id: str

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Numbers of a step, by names such as ``train/loss``."""
        ...

    def end(self, finished: bool) -> None:
        """Nothing more comes, at least for now; everything is to be written."""
        ...


class TrackerFile(Protocol):
    """A module in this folder. PACKAGES: what it imports."""

    PACKAGES: tuple[str, ...]

    def begin(self, how: Begin) -> Tracker:
        """A run that is ready to take numbers; nothing goes out of this machine unless the user set it up to."""
        ...

    def failures(self) -> tuple[type[Exception], ...]:
        """What the library lets out when it cannot do its work; asked only after `begin` could import it."""
        ...


def load_tracker(name: str) -> TrackerFile:
    """The file of that tracker."""
    return cast(TrackerFile, importlib.import_module(f"treetune.workflow.trackers.{name}"))


def require(names: Sequence[str]) -> None:
    """Refuse trackers whose packages are not installed, before anything is begun.

    Raises:
        UsageError: E2082.
    """
    for name in names:
        missing = [each for each in load_tracker(name).PACKAGES if find_spec(each) is None]
        if missing:
            raise UsageError("E2082", "this tracker is not installed", where=f"--report-to {name}", extra=name,
                             found="no " + ", ".join(missing), do="pip install 'treetune[{extra}]'")
