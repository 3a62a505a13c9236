"""What the server takes and how long it waits. Everything a stranger can send is bounded before a token is made."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one server.

    Attributes:
        body_bytes: of a request. characters: of one text. rows: of one request. queue_rows: waiting for the model,
            in all; more are turned away. batch_rows: answered in one pass. connections: open at a time.
        header_seconds, body_seconds: until a request has arrived. write_seconds: a client may leave its answer unread.
        request_seconds: until an answer. drain_seconds: for requests under way when the server is told to stop.
    """

    body_bytes: int = 2 << 20
    header_bytes: int = 16 << 10
    characters: int = 50_000
    rows: int = 128
    queue_rows: int = 256
    batch_rows: int = 32
    connections: int = 512
    header_seconds: float = 10.0
    body_seconds: float = 20.0
    write_seconds: float = 20.0
    request_seconds: float = 60.0
    drain_seconds: float = 30.0
