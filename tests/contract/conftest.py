"""What the tests of the pages share."""

import shlex
from collections.abc import Callable
from typing import Any

import pytest
import typer.main

from treetune.cli.app import build_app


@pytest.fixture(scope="session")
def verbs() -> Any:
    """All commands by name."""
    return typer.main.get_command(build_app()).commands  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def understand(verbs: Any) -> Callable[[str], Any]:
    """(line) -> its values, as the command line reads them, without running anything."""

    def parse(line: str) -> Any:
        verb, *words = shlex.split(line, comments=True)[1:]
        assert verb in verbs, line
        return verbs[verb].make_context(verb, words)

    return parse
