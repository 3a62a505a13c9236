"""docs/large-models.md tells the truth: its commands are understood, and its numbers are those that they give."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from treetune.cli.app import build_app
from treetune.core.settings import TuneSettings, read_settings
from treetune.workflow.plan import ASSUMED, Question, plan

PAGE = (Path(__file__).parents[2] / "docs" / "large-models.md").read_text("utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]
INLINE = re.findall(r"`(treetune [a-z]+ (?:run\.yaml|--preset)[^`]*)`", PAGE)
SAID = re.compile(r"#(?: (?P<gigabytes>[\d.]+) GB,)? (?P<hours>[\d.]+) h$")


def context_of(line: str) -> Any:
    verb, *words = shlex.split(line, comments=True)[1:]
    group: Any = typer.main.get_command(build_app())
    assert verb in group.commands, line
    return group.commands[verb].make_context(verb, words)


def planned(line: str) -> dict[str, Any]:
    """What the plan of a command says, as a record."""
    given = {name: value for name, value in context_of(line).params.items() if value not in (None, ())}
    settings = {name: value for name, value in given.items() if name in TuneSettings.model_fields}
    sizes = {name: given[name] for name in ("layers", "width", "heads", "vocabulary")}
    return plan(read_settings(TuneSettings, None, {**ASSUMED, **settings}), Question(
        sizes, "", given["rows"], given["length"], given["answer_length"], given["device"], given["devices"]))


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 10
    assert len(INLINE) >= 2


@pytest.mark.parametrize("line", INLINE)
def test_every_command_in_the_text_is_understood(line: str) -> None:
    context_of(line)


@pytest.mark.parametrize("line", COMMANDS, ids=range(len(COMMANDS)))
def test_every_number_beside_a_command_is_what_it_says(line: str) -> None:
    said = SAID.search(line)
    assert said, line
    found = planned(line)
    assert found["time"]["total"]["expected"] / 3600 == pytest.approx(float(said["hours"]), rel=0.02)
    if said["gigabytes"]:
        assert "--devices" not in line  # a plan of several devices shards; treetune does not
        assert found["memory"]["peak"]["expected"] / 1e9 == pytest.approx(float(said["gigabytes"]), rel=0.02)
