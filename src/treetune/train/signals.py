"""Stopping politely: the first SIGINT, SIGTERM or SIGUSR1 asks for a stop, a second SIGINT leaves at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], str]]:
    """Inside, the yielded function gives the name of the signal that asked for a stop, or ``""``.

    Outside the main thread no handler can be set; then it always gives ``""``.
    """
    asked: list[str] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(signal.Signals(number).name)

    before: dict[signal.Signals, Any] = {}
    try:
        for number in ASKING:
            before[number] = signal.signal(number, ask)
    except ValueError:
        pass  # not the main thread
    try:
        yield lambda: asked[0] if asked else ""
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
