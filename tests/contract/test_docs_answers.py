"""The pages on answers and on pretraining tell the truth: commands are understood, settings are as they say."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from treetune.cli.app import build_app
from treetune.core.settings import PretrainSettings, TuneSettings

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {name: (DOCS / name).read_text("utf-8") for name in ("answers.md", "pretraining.md")}
COMMANDS = [line for page in PAGES.values() for line in re.findall(r"^treetune .*$", page, flags=re.MULTILINE)]
DEFAULTS = re.findall(r"^\| `--([a-z-]+)` \| `?([^`|]+?)`? \|", PAGES["answers.md"], flags=re.MULTILINE)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_understood(line: str) -> None:
    verb, *words = shlex.split(line)[1:]
    group: Any = typer.main.get_command(build_app())
    group.commands[verb].make_context(verb, words)


def test_defaults_are_those_of_the_schema() -> None:
    assert (len(COMMANDS), len(DEFAULTS)) == (5, 3)
    for flag, said in DEFAULTS:
        value = TuneSettings.model_fields[flag.replace("-", "_")].default
        assert said == "by task" if flag == "max-new-tokens" else str(value) == said


def test_the_file_of_settings_is_one() -> None:
    [text] = re.findall(r"^```yaml\n(.*?)^```$", PAGES["pretraining.md"], flags=re.MULTILINE | re.DOTALL)
    settings = PretrainSettings.model_validate(yaml.safe_load(text))
    assert (settings.init_from, settings.total_tokens) == (None, 100_000)
