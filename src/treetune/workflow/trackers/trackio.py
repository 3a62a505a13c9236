"""trackio: its local database (``TRACKIO_DIR``), unless ``TRACKIO_SPACE_ID`` or ``TRACKIO_SERVER_URL`` is set."""

from __future__ import annotations

import inspect
import sqlite3
import uuid
from collections.abc import Mapping
from typing import Any

from treetune.workflow.trackers.contract import EXPECTED, Begin

PACKAGES = ("trackio",)
PROJECT = "treetune"
SILENT = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}


class Trackio:
    """It knows a run by its name alone, so the name gets a few digits that no other run has."""

    def __init__(self, how: Begin) -> None:
        import trackio

        self.id = how.id or f"{how.name}-{uuid.uuid4().hex[:6]}"
        known = inspect.signature(trackio.init).parameters
        self.run: Any = trackio.init(project=PROJECT, name=self.id, config=dict(how.settings), resume="allow",
                                     **{name: value for name, value in SILENT.items() if name in known})
        self.finish = trackio.finish  # that of the run alone leaves it open for the end of the process

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        self.run.log(dict(values), step=step)

    def end(self, finished: bool) -> None:
        self.finish()


def begin(how: Begin) -> Trackio:
    """See the contract."""
    return Trackio(how)


def failures() -> tuple[type[Exception], ...]:
    """Its database, and the client of the hub where a Space was set."""
    from treetune.models.push import network_failures

    return (*EXPECTED, sqlite3.Error, *network_failures())
