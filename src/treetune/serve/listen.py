"""The socket: bound before the models load, guarded against slow clients, and closed only when all are answered."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from treetune.core.errors import UsageError
from treetune.serve.desk import Desk
from treetune.serve.guard import Guard
from treetune.serve.limits import Limits

TICKS_PER_LOOK = 20  # of a tenth of a second
KEEP_ALIVE_SECONDS = 10


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet: who comes early is turned away, not kept waiting.

    Raises:
        UsageError: E2705 the address cannot be had.
    """
    plain = host.strip("[]")
    family = socket.AF_INET6 if ":" in plain else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((plain, port))
    except (OSError, OverflowError) as error:
        found.close()
        raise UsageError("E2705", "the server cannot have this address", where="--host, --port",
                         found=f"{host}:{port}: {error}", do="stop what uses it, or choose another --port") from error
    return found


def guarded_protocol(limits: Limits) -> type[H11Protocol]:
    """HTTP/1.1 with the two timeouts uvicorn lacks: for a header to arrive, and for an answer to be read."""

    class Guarded(H11Protocol):
        _arriving: asyncio.TimerHandle | None = None
        _unread: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._await_header()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is None or self.cycle.response_complete:
                self._await_header()
            else:
                self._header_came()

        def connection_lost(self, exc: Exception | None) -> None:
            self._header_came()
            self.resume_writing()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._unread = self.loop.call_later(limits.write_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            if self._unread is not None:
                self._unread.cancel()
                self._unread = None
            super().resume_writing()

        def _await_header(self) -> None:
            if self._arriving is None:
                self._arriving = self.loop.call_later(limits.header_seconds, self._header_late)

        def _header_came(self) -> None:
            if self._arriving is not None:
                self._arriving.cancel()
                self._arriving = None

        def _header_late(self) -> None:
            self._arriving = None
            if self.cycle is None or self.cycle.response_complete:
                self.transport.abort()

    return Guarded


class Server(uvicorn.Server):
    """Drains on the first signal, leaves on the second; looks for changed runs and a dead worker meanwhile."""

    def __init__(self, guard: Guard, desk: Desk, on_ready: Callable[[], None]) -> None:
        limits = desk.limits
        super().__init__(uvicorn.Config(
            guard, http=guarded_protocol(limits), ws="none", lifespan="off", loop="asyncio", log_config=None,
            access_log=False, server_header=False, proxy_headers=False, limit_concurrency=limits.connections,
            h11_max_incomplete_event_size=limits.header_bytes, timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=5,
        ))
        self.guard, self.desk, self.on_ready = guard, desk, on_ready
        self.leave_by = 0.0
        self._looking: asyncio.Future[Any] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say so once connections are taken."""
        await super().startup(sockets)
        self.on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop taking requests in; a second signal leaves at once."""
        if self.guard.draining:
            self.force_exit = self.should_exit = True
            return
        self.guard.draining = True
        self.leave_by = time.monotonic() + self.desk.limits.drain_seconds

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if self.guard.draining and not self.should_exit:
            late = time.monotonic() > self.leave_by
            if late:
                self.desk.worker.close()  # who still waits is told, and then gets the time to read it
            self.should_exit = late or (self.desk.worker.idle and self.desk.measures.num_open == 0)
        elif counter % TICKS_PER_LOOK == 0:
            self._look()
        return await super().on_tick(counter)

    def _look(self) -> None:
        if not self.desk.worker.alive and not self.guard.draining:
            self.desk.worker.restart()
            self.desk.measures.restarts.inc()
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(asyncio.to_thread(self._reload))

    def _reload(self) -> None:
        for name, result in self.desk.runs.reload_changed().items():
            self.desk.measures.reloads.labels(name, result).inc()
            logging.getLogger("treetune.serve").warning("run %s: %s", name, result)


def listen(found: socket.socket, guard: Guard, desk: Desk, on_ready: Callable[[], None]) -> None:
    """Serve until a signal comes and everything taken in is answered."""
    server = Server(guard, desk, on_ready)
    before = signal.getsignal(signal.SIGTERM)
    try:
        server.run(sockets=[found])
    finally:
        desk.worker.close()
        if before is not None:
            signal.signal(signal.SIGTERM, before)
