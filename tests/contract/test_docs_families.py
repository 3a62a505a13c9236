"""The pages on families and adapters tell the truth: commands and flags are known, names of their programs exist."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from treetune.cli.app import build_app

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {name: (DOCS / name).read_text("utf-8") for name in ("families.md", "adapters.md")}
FENCED = re.compile(r"^```\w*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCKS = [block for page in PAGES.values() for block in FENCED.findall(page)]
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.startswith("treetune ")]
IMPORTS = [line for block in BLOCKS for line in block.splitlines() if line.startswith("from ")]
FLAGS = sorted({flag for page in PAGES.values() for flag in re.findall(r"`(--[a-z0-9-]+)", page)})


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_understood(line: str) -> None:
    verb, *words = shlex.split(line, comments=True)[1:]
    group: Any = typer.main.get_command(build_app())
    group.commands[verb].make_context(verb, words)


def test_every_flag_and_name_is_there() -> None:
    group: Any = typer.main.get_command(build_app())
    known = {option for command in group.commands.values() for each in command.params for option in each.opts}
    assert set(FLAGS) <= known, set(FLAGS) - known
    assert len(COMMANDS) >= 5
    assert IMPORTS
    for line in IMPORTS:
        exec(line, {})
