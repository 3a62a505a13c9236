"""docs/gate.md tells the truth: the command line knows its commands, and its table names the checks that there are."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from treetune.cli.app import build_app
from treetune.decide.validators.contract import validators_of
from treetune.tasks.contract import task_names

PAGE = (Path(__file__).parents[2] / "docs" / "gate.md").read_text("utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
COMMANDS = [line.rsplit("| ", 1)[-1] for block in BLOCKS for line in block.splitlines() if "treetune " in line]
INLINE = re.findall(r"`(treetune [a-z-]+ runs[^`]*)`", PAGE)


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 7
    assert INLINE


@pytest.mark.parametrize("line", [*COMMANDS, *INLINE])
def test_every_command_is_understood(line: str) -> None:
    verb, *words = shlex.split(line)[1:]
    group: Any = typer.main.get_command(build_app())
    assert verb in group.commands, line
    group.commands[verb].make_context(verb, words)


def test_every_check_is_in_the_table() -> None:
    for name in {each.NAME for task in task_names() for each in validators_of(task)}:
        assert f"`{name}`" in PAGE, name
