"""docs/audit.md tells the truth: its commands are understood."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from treetune.cli.app import build_app

PAGE = (Path(__file__).parents[2] / "docs" / "audit.md").read_text("utf-8")
COMMANDS = list(re.findall(r"(?:^|`)(treetune [a-z]+ [^`\n]+)", PAGE, flags=re.MULTILINE))


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 6


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_understood(line: str) -> None:
    verb, *words = shlex.split(line)[1:]
    group: Any = typer.main.get_command(build_app())
    group.commands[verb].make_context(verb, words)
