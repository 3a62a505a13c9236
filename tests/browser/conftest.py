"""A real Chromium, and a server with two runs; without a Chromium the tests are skipped, saying so."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from treetune.cli.app import run
from treetune.data.sample import sample_path

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome")
                 if (path := shutil.which(name))), "")
SOURCE = Path(__file__).parents[2] / "src"
WINDOW = 512


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser."""
    if not CHROMIUM:
        pytest.skip("there is no chromium on this machine's PATH: the page was not tested")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: the page was not tested")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def two_runs(
    short_runs: Callable[..., dict[str, Path]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A sentiment run whose gate holds everything back, and a question answering run without a gate."""
    found = short_runs(tmp_path_factory.mktemp("page"), "sentiment", "question_answering")
    assert run(["gate", str(found["sentiment"]), "--data", str(sample_path("sentiment", "test")), "--max-error",
                "0.001"], False, False) == 4
    return found


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """(runs, key) -> address of ``treetune serve`` in a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(runs: dict[str, Path], key: str = "") -> str:
        environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}
        process = subprocess.Popen(
            [sys.executable, "-m", "treetune", "serve", *(f"{name}={path}" for name, path in runs.items()), "--port",
             "0", "--json", "--torch-threads", "1", "--audit-share", "1"],
            env=environment | ({"TREETUNE_API_KEY": key} if key else {}),
            stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        return str(json.loads(process.stdout.readline())["address"])

    yield start
    for process in started:
        process.terminate()
        process.communicate(timeout=30)
        assert process.returncode == 0


@pytest.fixture
def page(chromium: Any) -> Iterator[Callable[..., Any]]:
    """(address, width, locale) -> an open page that fails the test on any outside request or script error."""
    opened: list[tuple[Any, list[str]]] = []

    def go(address: str, width: int = 1000, locale: str = "en") -> Any:
        context = chromium.new_context(viewport={"width": width, "height": 800}, locale=locale)
        one = context.new_page()
        wrong: list[str] = []
        opened.append((context, wrong))
        one.on("request", lambda request: request.url.startswith((address, "data:")) or wrong.append(request.url))
        one.on("pageerror", lambda error: wrong.append(str(error)))
        one.on("console", lambda said: "Content Security Policy" in said.text and wrong.append(said.text))
        one.goto(address + "/")
        return one

    yield go
    for context, wrong in opened:
        context.close()
        assert not wrong
