"""Every page tells the truth: each command shown in it is understood by the command line."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FILES = (ROOT / "README.md", ROOT / "README.zh.md", *sorted((ROOT / "docs").glob("*.md")))
PAGES = {path.name: path.read_text("utf-8") for path in FILES}
COUNTS = {
    "README.md": 25, "README.zh.md": 25, "adapters.md": 2, "answers.md": 3, "audit-log.md": 2, "audit.md": 6,
    "check.md": 2, "distributed.md": 2, "doctor.md": 2, "evaluate.md": 3, "explain.md": 7, "export.md": 5,
    "families.md": 4, "gate.md": 10, "guarantees.md": 0, "index.md": 0, "init.md": 3, "large-models.md": 15,
    "notebooks.md": 0, "pipelines.md": 0, "plan.md": 8, "predict.md": 7, "pretraining.md": 2, "quickstart.md": 8,
    "quickstart.zh.md": 8, "reliability.md": 1, "review.md": 3, "serve.md": 2, "trees.md": 0, "tune.md": 4,
}
FENCED = re.compile(r"^```\w*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHOWN = re.compile(r"(?:^|\| )(treetune .*)")
INLINE = re.compile(r"`(treetune [a-z-]+ (?:runs|run\.yaml|my-folder|--preset)[^`\n]*)`")


def commands_of(page: str) -> list[str]:
    """Lines of its blocks that call treetune, also behind a pipe, and whole commands within its sentences."""
    blocks = [line for block in FENCED.findall(page) for line in block.splitlines()]
    return [found[1] for line in blocks if (found := SHOWN.search(line))] + INLINE.findall(page)


COMMANDS = [(name, line) for name, page in PAGES.items() for line in commands_of(page)]


@pytest.mark.parametrize(("name", "line"), COMMANDS)
def test_every_command_is_understood(name: str, line: str, understand: Callable[[str], Any]) -> None:
    understand(line)


def test_every_page_is_looked_at_and_has_its_commands() -> None:
    assert {name: len(commands_of(page)) for name, page in PAGES.items()} == COUNTS


def test_a_command_that_is_not_understood_would_be_seen(understand: Callable[[str], Any]) -> None:
    with pytest.raises(Exception, match="learning-rat"):
        understand("treetune tune --learning-rat 1")
