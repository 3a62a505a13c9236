"""One thread that answers: a bounded queue, rows that share a beginning batched together, nothing lost in silence."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from treetune.core.errors import RunError, TreetuneError
from treetune.core.records import Example, Row
from treetune.serve.refused import Refused, as_refused, unexpected
from treetune.serve.runs import Served

SMOOTHING = 0.2
MAX_RETRY_SECONDS = 60


@dataclass(slots=True, eq=False)
class Ticket:
    """One row on its way through the model. Cancelling ``future`` is how a client that left is noticed.

    Attributes:
        served: the state of the run it was taken in under. language: of what is said about it.
        on_text: given every new piece of the answer while it is written. explain: not the answer but why.
    """

    served: Served
    example: Example
    row: Row
    language: str = ""
    on_text: Callable[[str], None] | None = None
    count_tokens: bool = False
    explain: bool = False
    future: Future[dict[str, Any]] = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)

    @property
    def gone(self) -> bool:
        return self.future.cancelled()


Answering = Callable[[Sequence[Ticket]], list[dict[str, Any]]]


class Worker:
    """Takes tickets in, answers them batch by batch.

    Args:
        answer: tickets of one served state -> one answer each. on_batch: told rows and seconds of each batch.
        queue_rows, batch_rows: see `treetune.serve.limits.Limits`.
    """

    def __init__(
        self, answer: Answering, queue_rows: int, batch_rows: int,
        on_batch: Callable[[int, float], None] = lambda rows, seconds: None,
        on_fault: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self.answer, self.queue_rows, self.batch_rows = answer, queue_rows, batch_rows
        self.on_batch, self.on_fault = on_batch, on_fault
        self.waiting: deque[Ticket] = deque()
        self.running: list[Ticket] = []
        self.row_seconds = 0.0
        self.restarts = 0
        self._changed = threading.Condition()
        self._closed = False
        self._thread = self._start()

    def _start(self) -> threading.Thread:
        thread = threading.Thread(target=self._loop, name="treetune-worker", daemon=True)
        thread.start()
        return thread

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, tickets: Sequence[Ticket]) -> None:
        """Take all of them in, or none.

        Raises:
            Refused: 429 E6001 no room, with the seconds until there should be; 503 E6002 stopped or dead.
        """
        with self._changed:
            if self._closed or not self.alive:
                raise stopped()
            if len(self.waiting) + len(tickets) > self.queue_rows:
                raise Refused(429, RunError("E6001", "the server has as much to do as it can hold",
                                            found=f"{len(self.waiting)} rows", allowed=f"{self.queue_rows} rows"),
                              retry_after=self.seconds_to_room(len(tickets)))
            self.waiting.extend(tickets)
            self._changed.notify()

    def seconds_to_room(self, rows: int) -> int:
        """Whole seconds until ``rows`` more should fit, as fast as it went lately."""
        over = len(self.waiting) + len(self.running) + rows - self.queue_rows
        return min(MAX_RETRY_SECONDS, max(1, math.ceil(over * self.row_seconds)))

    @property
    def idle(self) -> bool:
        return not self.waiting and not self.running

    def close(self) -> None:
        """Answer nothing more; whoever still waits is told."""
        with self._changed:
            self._closed = True
            left = list(self.waiting)
            self.waiting.clear()
            self._changed.notify()
        for ticket in [*left, *self.running]:
            fail(ticket, stopped())

    def restart(self) -> None:
        """A new thread in place of a dead one; what the dead one held is told so, what waits goes on."""
        with self._changed:
            if self._closed or self.alive:
                return
            lost, self.running = self.running, []
            self.restarts += 1
            self._thread = self._start()
        for ticket in lost:
            fail(ticket, stopped())

    def _loop(self) -> None:
        while batch := self._take():
            began = time.monotonic()
            try:
                self._settle(batch)
            except BaseException as error:  # the thread ends: nobody may wait for ever
                self.on_fault(error)
                for ticket in batch:
                    fail(ticket, stopped())
                raise
            finally:
                with self._changed:
                    self.running = []
            seconds = time.monotonic() - began
            pace = seconds / len(batch)
            self.row_seconds = pace if not self.row_seconds else (
                SMOOTHING * pace + (1 - SMOOTHING) * self.row_seconds)
            self.on_batch(len(batch), seconds)

    def _take(self) -> list[Ticket]:
        """The next batch; [] when closed. The oldest row always goes, first with those that share its source."""
        with self._changed:
            while True:
                self.waiting = deque(each for each in self.waiting if not each.gone)
                if self._closed:
                    return []
                if self.waiting:
                    break
                self._changed.wait()
            oldest = self.waiting[0]
            same = [each for each in self.waiting
                    if each.served is oldest.served and each.explain == oldest.explain]
            same.sort(key=lambda each: each.example.source != oldest.example.source)  # stable: else by arrival
            batch = same[: self.batch_rows]
            taken = set(map(id, batch))
            self.waiting = deque(each for each in self.waiting if id(each) not in taken)
            self.running = batch
            return batch

    def _settle(self, batch: Sequence[Ticket]) -> None:
        """Answer a batch; where it fails as a whole, each row by itself, so that one cannot spoil the others."""
        try:
            for ticket, answer in zip(batch, self.answer(batch), strict=True):
                with suppress(InvalidStateError):
                    ticket.future.set_result(answer)
        except Exception as error:  # noqa: BLE001 - a row's fault is that row's answer
            if len(batch) == 1:
                fail(batch[0], refusal_for(error))
                if not isinstance(error, TreetuneError | Refused):
                    self.on_fault(error)
                return
            for ticket in batch:
                if not ticket.future.done():
                    self._settle([ticket])


def refusal_for(error: Exception) -> Refused:
    """What the client is told."""
    if isinstance(error, Refused):
        return error
    return as_refused(error) if isinstance(error, TreetuneError) else unexpected()


def stopped() -> Refused:
    """The server is going, or its worker died."""
    return Refused(503, RunError("E6002", "the server is stopping or cannot answer now"), retry_after=5)


def fail(ticket: Ticket, refusal: Refused) -> None:
    """Tell whoever waits, if anybody does."""
    with suppress(InvalidStateError):
        ticket.future.set_exception(refusal)
