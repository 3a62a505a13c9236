"""Stopping politely: the first SIGINT, SIGTERM or SIGUSR1 asks for a stop, a second SIGINT leaves at once.

SIGUSR1 is the early warning of a batch system (Slurm's ``--signal=USR1@120``): save and leave, to be started again.
SIGUSR2 asks for a checkpoint now and goes on.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
SAVING = signal.SIGUSR2


@dataclass(slots=True)
class Asked:
    """What signals have asked for. Called: the name of the signal that asked for a stop, or ``""``."""

    stops: list[str] = field(default_factory=list)
    save: bool = False

    def __call__(self) -> str:
        return self.stops[0] if self.stops else ""


@contextmanager
def stop_on_signal() -> Iterator[Asked]:
    """Inside, signals are noted and not obeyed at once. Outside the main thread none can be noted."""
    asked = Asked()

    def ask(number: int, frame: FrameType | None) -> None:
        if number == SAVING:
            asked.save = True
            return
        if asked.stops and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.stops.append(signal.Signals(number).name)

    before: dict[signal.Signals, Any] = {}
    try:
        for number in (*ASKING, SAVING):
            before[number] = signal.signal(number, ask)
    except ValueError:
        pass  # not the main thread
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
