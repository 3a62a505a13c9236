"""What the server counts about itself, for Prometheus and for the page's live load."""

from __future__ import annotations

from collections import deque
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
ROWS = (1, 2, 4, 8, 16, 32, 64)
KEPT = 1000


class Measures:
    """Counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("treetune_requests", "requests by route and status", ["route", "status"],
                                registry=registry)
        self.seconds = Histogram("treetune_request_seconds", "from the request's first byte to the answer's last",
                                 ["route"], buckets=SECONDS, registry=registry)
        self.rows = Counter("treetune_rows", "answered rows by run and verdict", ["run", "verdict"], registry=registry)
        self.cancelled = Counter("treetune_cancelled_rows", "rows whose client left", registry=registry)
        self.batches = Histogram("treetune_batch_rows", "rows answered in one pass", buckets=ROWS, registry=registry)
        self.batch_seconds = Counter("treetune_busy_seconds", "time the model worked", registry=registry)
        self.waiting = Gauge("treetune_queue_rows", "rows waiting for the model", registry=registry)
        self.running = Gauge("treetune_running_rows", "rows in the model", registry=registry)
        self.open = Gauge("treetune_open_requests", "requests under way", registry=registry)
        self.reloads = Counter("treetune_reloads", "runs taken up anew, by result", ["run", "result"],
                               registry=registry)
        self.faults = Counter("treetune_faults", "errors nobody foresaw", registry=registry)
        self.restarts = Counter("treetune_worker_restarts", "workers that died and were replaced", registry=registry)
        self.lately: deque[float] = deque(maxlen=KEPT)
        self.num_open = 0

    def began(self) -> None:
        """A request is under way."""
        self.num_open += 1
        self.open.set(self.num_open)

    def ended(self, route: str, status: int, seconds: float, counted: bool = True) -> None:
        """A request is over; ``status`` 0: its client left. ``counted``: belongs to the latencies shown."""
        self.num_open -= 1
        self.open.set(self.num_open)
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)
        if counted and status < 400:
            self.lately.append(seconds)

    def batch(self, rows: int, seconds: float) -> None:
        """The model answered a batch."""
        self.batches.observe(rows)
        self.batch_seconds.inc(seconds)

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)

    def latencies(self) -> dict[str, Any]:
        """Of the last requests that were answered, seconds."""
        kept = sorted(self.lately)
        found = {f"p{share}": kept[min(len(kept) - 1, len(kept) * share // 100)] if kept else None
                 for share in (50, 95, 99)}
        return {"requests": len(kept), **{name: value and round(value, 4) for name, value in found.items()}}
