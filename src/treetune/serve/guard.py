"""Stands before every route: host names, origins, the key, sizes, time, and the headers of every answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from contextlib import suppress
from typing import Any

from treetune.core.errors import RunError, UsageError
from treetune.core.language import speaking
from treetune.serve.access import Keys, name_of_host
from treetune.serve.answering import to_json
from treetune.serve.limits import Limits
from treetune.serve.measures import Measures
from treetune.serve.refused import Refused, unexpected

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PUBLIC = ("/", "/health", "/page/{name}")  # routes that need no key: whether it lives, and a page without data
WATCHED = ("/health", "/ready", "/metrics", "/v1/load")  # answered while draining, and no part of the load
LINGER_SECONDS = 2.0
MOST_DISCARDED = 64 << 20
POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
          "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
HEADERS = (
    (b"content-security-policy", POLICY.encode()), (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"), (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"), (b"cache-control", b"no-store"),
)


class Guard:
    """Wraps the application.

    Args:
        names: hosts a request may name. keys: of the server; `PUBLIC` routes need none.
    """

    def __init__(self, app: App, names: frozenset[str], keys: Keys, limits: Limits, measures: Measures) -> None:
        self.app, self.names, self.keys, self.limits, self.measures = app, names, keys, limits, measures
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} is not spoken here")
        headers: dict[bytes, bytes] = dict(scope["headers"])
        began, seen = time.monotonic(), _Seen(send)
        self.measures.began()
        try:
            with speaking(_language(headers.get(b"accept-language", b""))):
                await self._pass(scope, headers, receive, seen)
        except Exception:  # noqa: BLE001 - the last door: the fault is counted, its text stays inside
            self.measures.faults.inc()
            if not seen.status:
                await answer(seen, unexpected())
        finally:
            route = getattr(scope.get("route"), "path", "") or "none"
            self.measures.ended(route, seen.status, time.monotonic() - began, counted=scope["path"] not in WATCHED)

    async def _pass(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        try:
            self._check(scope, headers)
            body = await self._read(scope, headers, receive)
        except Refused as refusal:
            await answer(send, refusal, self._discard(receive) if refusal.status == 413 else None)
            return
        except ConnectionError:  # left before it had asked
            return
        await self.app(scope, _replay(body, receive), send)

    def _check(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        if sum(len(name) + len(value) for name, value in scope["headers"]) > self.limits.header_bytes:
            raise Refused(431, UsageError("E6013", "the request is too large",
                                          allowed=f"{self.limits.header_bytes} bytes of headers"))
        host = headers.get(b"host", b"").decode("latin-1")
        if name_of_host(host) not in self.names:
            raise Refused(403, UsageError("E6010", "the request calls this server by a name it does not go by",
                                          found=repr(host[:80]), do="start it with --allowed-host NAME"))
        origin = headers.get(b"origin")
        if origin is not None and origin.decode("latin-1").lower() not in (f"http://{host}", f"https://{host}".lower()):
            raise Refused(403, UsageError("E6011", "pages of other sites may not ask this server"))
        path = scope["path"]
        if self.draining and path not in WATCHED:
            raise Refused(503, RunError("E6002", "the server is stopping or cannot answer now"), retry_after=5)
        if not self._is_public(path) and not self.keys.fits(headers.get(b"authorization", b"")):
            if scope["method"] == "GET" and self.keys.ticket_fits(path, _ticket(scope)):
                return
            raise Refused(401, UsageError("E6012", "the API key is missing or wrong",
                                          do="send it as: Authorization: Bearer KEY"))

    @staticmethod
    def _is_public(path: str) -> bool:
        return path in PUBLIC or (path.startswith("/page/") and path.count("/") == 2)

    async def _read(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """The whole body, bounded in size and time, before anything looks into it."""
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 12 or int(length) > self.limits.body_bytes:
            raise self._too_large()
        if scope["method"] in ("GET", "HEAD") and length == b"0" and b"transfer-encoding" not in headers:
            return b""
        try:
            return await asyncio.wait_for(self._all(receive), self.limits.body_seconds)
        except TimeoutError:
            raise Refused(408, UsageError("E6014", "the request took too long to arrive",
                                          allowed=f"{self.limits.body_seconds:g} s")) from None

    async def _discard(self, receive: Receive) -> None:
        """What a client still sends after it was told that it is too much: read past, so that it sees the answer."""
        left = MOST_DISCARDED
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while left > 0 and (message := await receive()).get("more_body", False):
                    left -= len(message.get("body", b""))

    async def _all(self, receive: Receive) -> bytes:
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError
            body += message.get("body", b"")
            if len(body) > self.limits.body_bytes:
                raise self._too_large()
            if not message.get("more_body", False):
                return bytes(body)

    def _too_large(self) -> Refused:
        return Refused(413, UsageError("E6013", "the request is too large", allowed=f"{self.limits.body_bytes} bytes",
                                       do="send fewer rows at a time"))


class _Seen:
    """Sends on, adds the headers every answer has, and remembers the status."""

    def __init__(self, send: Send) -> None:
        self.send, self.status = send, 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = {name for name, _ in message.get("headers", ())}
            message = {**message, "headers": [*message.get("headers", ()),
                                              *(pair for pair in HEADERS if pair[0] not in own)]}
        await self.send(message)


def _replay(body: bytes, receive: Receive) -> Receive:
    """What was read already, then whatever comes (only that the client left can)."""
    left = [body]

    async def again() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return again


async def answer(send: Send, refusal: Refused, afterwards: Coroutine[Any, Any, None] | None = None) -> None:
    """A refusal as a whole answer; the connection goes on only after ``afterwards``."""
    body = to_json(refusal.body()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.encode(), value.encode()) for name, value in refusal.headers.items()]
    if refusal.status in (408, 413, 503):  # what else comes on this connection is of no use
        headers.append((b"connection", b"close"))
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": afterwards is not None})
    if afterwards is not None:
        await afterwards
        await send({"type": "http.response.body", "body": b""})


def _language(header: bytes) -> str:
    """``zh-CN,en;q=0.8`` -> ``zh``; "" for what we do not speak."""
    first = header[:64].decode("latin-1").split(",")[0].strip().lower()
    return next((name for name in ("zh", "en") if first.startswith(name)), "")


def _ticket(scope: Scope) -> str:
    query: bytes = scope.get("query_string", b"")
    return query.decode("latin-1").removeprefix("ticket=")
