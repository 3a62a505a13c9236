"""Tiny tuned runs, and servers that really listen, in a thread of the test."""

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from treetune.cli.app import run
from treetune.data.sample import sample_path
from treetune.serve.access import Keys, host_names
from treetune.serve.app import build_app
from treetune.serve.desk import Desk
from treetune.serve.guard import Guard
from treetune.serve.limits import Limits
from treetune.serve.listen import Server, bind
from treetune.serve.runs import Runs
from treetune.workflow.decider import Recording

TASKS = ("sentiment", "question_answering", "translation")
WINDOW = 512
KEY = "a-key-of-forty-characters-for-the-tests!"


@pytest.fixture(autouse=True)
def always(one_thread_in_english: None) -> None:
    """For every test in this folder."""


@pytest.fixture(scope="session")
def made_runs(
    short_runs: Callable[..., dict[str, Path]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Task -> a run of two steps over a random model."""
    return short_runs(tmp_path_factory.mktemp("serve"), *TASKS)


@pytest.fixture(scope="session")
def gated_run(made_runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``accepts`` or ``holds`` -> a sentiment run whose gate accepts nearly everything, or nothing."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("gated") / kind
            shutil.copytree(made_runs["sentiment"], made[kind])
            promise = ("0.95", "0.2") if kind == "accepts" else ("0.001", "0.99")
            code = run(["gate", str(made[kind]), "--data", str(sample_path("sentiment", "test")), "--max-error",
                        promise[0], "--confidence", promise[1]], False, False)
            assert code == (0 if kind == "accepts" else 4)
        return made[kind]

    return get


@dataclass
class Live:
    """A server that listens."""

    address: str
    port: int
    desk: Desk
    guard: Guard
    server: Server
    app: Any
    http: httpx.Client

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return self.http.post(path, json=body, **options)


Starter = Callable[..., Live]


@pytest.fixture
def live() -> Iterator[Starter]:
    """(run folder by name, key, limits) -> a server; all are stopped at the end."""
    started: list[tuple[Live, threading.Thread]] = []

    def start(
        folders: dict[str, Path], key: str = "", recording: Recording = Recording(on=False),  # noqa: B008
        **limits: Any,
    ) -> Live:
        desk = Desk(Runs({name: str(path) for name, path in folders.items()}), Limits(**limits), recording)
        app, guard = build_app(desk, host_names("127.0.0.1", ()), Keys(key))
        found = bind("127.0.0.1", 0)
        ready = threading.Event()
        server = Server(guard, desk, ready.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [found]})
        thread.start()
        assert ready.wait(20)
        port = found.getsockname()[1]
        address = f"http://127.0.0.1:{port}"
        headers = {"authorization": f"Bearer {key}"} if key else {}
        one = Live(address, port, desk, guard, server, app,
                   httpx.Client(base_url=address, headers=headers, timeout=30, trust_env=False))
        started.append((one, thread))
        return one

    yield start
    for one, thread in started:
        one.http.close()
        one.server.should_exit = True
        one.desk.worker.close()
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture
def sentiment(live: Starter, made_runs: dict[str, Path]) -> Live:
    """A server of one run without a gate."""
    return live({"mood": made_runs["sentiment"]})


def eventually(holds: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether it comes true in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if holds():
            return True
        time.sleep(0.02)
    return holds()


@pytest.fixture(name="eventually")
def eventually_fixture() -> Callable[..., bool]:
    """See `eventually`."""
    return eventually


@pytest.fixture
def raw() -> Iterator[Callable[[int], socket.socket]]:
    """(port) -> a plain connection, closed at the end."""
    opened: list[socket.socket] = []

    def connect(port: int) -> socket.socket:
        opened.append(socket.create_connection(("127.0.0.1", port), timeout=10))
        return opened[-1]

    yield connect
    for each in opened:
        each.close()


@pytest.fixture
def environment() -> dict[str, str]:
    """For the command line in a process of its own."""
    source = Path(__file__).parents[3] / "src"
    return {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}
