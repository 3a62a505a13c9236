"""What the routes work with: runs, worker, counters and review queues of one server, and how rows pass."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from treetune.core.errors import RunError, TreetuneError, UsageError
from treetune.core.language import language
from treetune.core.records import Row
from treetune.serve.answering import Answerer
from treetune.serve.limits import Limits
from treetune.serve.measures import Measures
from treetune.serve.refused import Refused, as_refused
from treetune.serve.reviews import settle, waiting_of
from treetune.serve.runs import Runs, Served
from treetune.serve.worker import Ticket, Worker
from treetune.workflow.decider import Recording

HEARTBEAT_SECONDS = 5.0


class Desk:
    """One server's state."""

    def __init__(
        self, runs: Runs, limits: Limits, recording: Recording = Recording(), *,  # noqa: B008
        on_fault: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self.runs, self.limits = runs, limits
        self.measures = Measures()
        self._on_fault = on_fault
        self._answerer = Answerer(recording)
        self._reviewing = asyncio.Lock()
        self.worker = Worker(self._answer, limits.queue_rows, limits.batch_rows, self.measures.batch, self._fault)
        self.measures.waiting.set_function(lambda: len(self.worker.waiting))
        self.measures.running.set_function(lambda: len(self.worker.running))

    def _fault(self, error: BaseException) -> None:
        self.measures.faults.inc()
        self._on_fault(error)

    def _answer(self, tickets: Sequence[Ticket]) -> list[dict[str, Any]]:
        """In the worker's thread: answers, logged before anybody gets them."""
        answers = self._answerer(tickets)
        for answer in answers if not tickets[0].explain else ():
            self.measures.rows.labels(answer["run"], answer["decision"]["verdict"]).inc()
        return answers

    def served(self, task: str, name: str | None) -> Served:
        """The run that answers.

        Raises:
            Refused: 404 E6003 no such run, or none for this task.
        """
        found = self.runs.find(name) if name else self.runs.of_task(task)
        if found is None or task != found.run.task.NAME:
            known = [each.name for each in self.runs.served.values() if task == each.run.task.NAME]
            raise Refused(404, UsageError("E6003", "no run of that name does this task here",
                                          allowed=", ".join(known)), param="run")
        return found

    def ticket(self, served: Served, values: Mapping[str, Any], **options: Any) -> Ticket:
        """A row as the task understands it, ready to queue.

        Raises:
            Refused: 422 when the task cannot use the row.
        """
        given = {name: value for name, value in values.items() if value is not None}
        row = Row(given, "request", 1, 0, "test")
        try:
            example = served.run.task.example_from_row(row, served.run.options, with_answer=False)
        except TreetuneError as error:
            raise as_refused(error) from error
        named = replace(example, row_id=f"answer-{uuid.uuid4().hex}")  # the answer's name, in the audit log, too
        return Ticket(served, named, row, language=language(), **options)

    def tickets(self, served: Served, rows: Sequence[Mapping[str, Any]]) -> list[Ticket]:
        """Several rows; a fault names the row."""
        made = []
        for place, values in enumerate(rows):
            try:
                made.append(self.ticket(served, values))
            except Refused as refusal:
                refusal.param = f"rows.{place}"
                raise
        return made

    async def ask(self, tickets: Sequence[Ticket], receive: Callable[[], Any]) -> list[dict[str, Any]]:
        """Answers to all tickets. A client that leaves, or an answer that takes too long, frees their places.

        Raises:
            Refused: 429 full, 503 stopping, 504 E6005 too slow; of a row's own fault 422.
        """
        self.worker.submit(tickets)
        waiting = [asyncio.wrap_future(ticket.future) for ticket in tickets]
        answers: asyncio.Future[Any] = asyncio.gather(*waiting)
        leaving: asyncio.Future[Any] = asyncio.ensure_future(_left(receive))
        try:
            done, _ = await asyncio.wait({answers, leaving}, timeout=self.limits.request_seconds,
                                         return_when=asyncio.FIRST_COMPLETED)
            if answers in done:
                name_faulty_row(waiting)
                return list(answers.result())
            if leaving in done:
                raise Refused(503, RunError("E6004", "the client left"))
            raise too_slow(self.limits)
        finally:
            leaving.cancel()
            self._forget(tickets)
            answers.cancel()
            with suppress(asyncio.CancelledError, Refused):
                await answers

    def _forget(self, tickets: Sequence[Ticket]) -> None:
        """Nobody waits for these any more."""
        left = sum(ticket.future.cancel() for ticket in tickets)
        if left:
            self.measures.cancelled.inc(left)

    async def watch(
        self, make: Callable[[Callable[[str], None]], Ticket]
    ) -> AsyncIterator[str | dict[str, Any] | None]:
        """Pieces of text while the answer is written (where no gate holds it back), None to keep the line alive, and
        last the answer. ``make``: the ticket, given where its pieces go.

        Raises:
            Refused: as `ask`; in the middle, too.
        """
        pieces: asyncio.Queue[str] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        ticket = make(lambda piece: _calmly(loop, pieces, piece))
        if ticket.served.gated:  # text may not go out before its decision
            ticket.on_text = None
        self.worker.submit([ticket])
        return self._pieces(ticket, pieces)

    async def _pieces(
        self, ticket: Ticket, pieces: asyncio.Queue[str]
    ) -> AsyncIterator[str | dict[str, Any] | None]:
        future: asyncio.Future[Any] = asyncio.wrap_future(ticket.future)
        until = asyncio.get_running_loop().time() + self.limits.request_seconds
        try:
            while True:
                getting: asyncio.Future[Any] = asyncio.ensure_future(pieces.get())
                await asyncio.wait({future, getting}, timeout=HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if getting.done():
                    yield getting.result()
                    continue
                getting.cancel()
                if future.done():
                    while not pieces.empty():
                        yield pieces.get_nowait()
                    yield future.result()
                    return
                if asyncio.get_running_loop().time() > until:
                    raise too_slow(self.limits)
                yield None
        finally:
            self._forget([ticket])
            if not future.done():
                future.cancel()

    async def reviews(self, served: Served, limit: int) -> dict[str, Any]:
        """The run's review queue."""
        async with self._reviewing:
            return await asyncio.to_thread(waiting_of, served, limit)

    async def settle(self, served: Served, key: str, right_answer: str | None) -> dict[str, Any]:
        """What a person said of a row; the counts after it."""
        async with self._reviewing:
            await asyncio.to_thread(settle, served, key, right_answer)
            return await asyncio.to_thread(waiting_of, served, 0)


def name_faulty_row(answers: Sequence[asyncio.Future[Any]]) -> None:
    """Of several rows a fault says which one it lies in."""
    for place, each in enumerate(answers if len(answers) > 1 else ()):
        fault = each.exception() if each.done() and not each.cancelled() else None
        if isinstance(fault, Refused):
            fault.param = f"rows.{place}"


async def _left(receive: Callable[[], Any]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _calmly(loop: asyncio.AbstractEventLoop, pieces: asyncio.Queue[str], piece: str) -> None:
    with suppress(RuntimeError):  # the loop may be gone by then
        loop.call_soon_threadsafe(pieces.put_nowait, piece)


def too_slow(limits: Limits) -> Refused:
    """No answer in time."""
    return Refused(504, RunError("E6005", "the answer took too long", allowed=f"{limits.request_seconds:g} s"),
                   retry_after=5)
