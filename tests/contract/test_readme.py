"""The README tells the truth: its commands are known to the command line, its program runs."""

import re
import shlex
import warnings
from pathlib import Path
from typing import Any

import pytest
import typer.main

from treetune.cli.app import build_app
from treetune.models.embedded import folder

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
COMMANDS = [line for kind, block in BLOCKS if kind == "bash" for line in block.splitlines()
            if line.startswith("treetune ")]
INLINE = re.findall(r"`(treetune [a-z][^`]*)`", README)


def parse(line: str) -> None:
    """Have the command line read the words, without running anything."""
    verb, *words = shlex.split(line, comments=True)[1:]
    group: Any = typer.main.get_command(build_app())
    assert verb in group.commands, line
    group.commands[verb].make_context(verb, words)


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_understood(line: str) -> None:
    parse(line)


@pytest.mark.parametrize("line", INLINE)
def test_every_verb_named_in_the_text_is_there(line: str) -> None:
    group: Any = typer.main.get_command(build_app())
    assert line.split()[1] in group.commands


def test_a_command_that_is_not_understood_would_be_seen() -> None:
    with pytest.raises(Exception, match="learning-rat"):
        parse("treetune tune --learning-rat 1")


def test_the_program_runs_verbatim() -> None:
    if not (folder() / "config.json").is_file():
        pytest.skip("the shipped base is not in src/treetune/models/embedded/gpt3 yet")
    [program] = [block for kind, block in BLOCKS if kind == "python" and "from_pretrained('gpt3')" in block]
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(compile(program, "README.md", "exec"), names)
    assert float(names["loss"].detach()) > 0
