"""docs/large-models.md tells the truth: its numbers are those that they give."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from treetune.core.settings import TuneSettings, read_settings
from treetune.workflow.plan import ASSUMED, Question, plan

PAGE = (Path(__file__).parents[2] / "docs" / "large-models.md").read_text("utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]
SAID = re.compile(r"#(?: (?P<gigabytes>[\d.]+) GB,)? (?P<hours>[\d.]+) h$")


def planned(context: Any) -> dict[str, Any]:
    """What the plan of a command says, as a record."""
    given = {name: value for name, value in context.params.items() if value not in (None, ())}
    settings = {name: value for name, value in given.items() if name in TuneSettings.model_fields}
    sizes = {name: given[name] for name in ("layers", "width", "heads", "vocabulary")}
    return plan(read_settings(TuneSettings, None, {**ASSUMED, **settings}), Question(
        sizes, "", given["rows"], given["length"], given["answer_length"], given["device"], given["devices"]))


@pytest.mark.parametrize("line", COMMANDS, ids=range(len(COMMANDS)))
def test_every_number_beside_a_command_is_what_it_says(line: str, understand: Callable[[str], Any]) -> None:
    said = SAID.search(line)
    assert said, line
    found = planned(understand(line))
    assert found["time"]["total"]["expected"] / 3600 == pytest.approx(float(said["hours"]), rel=0.02)
    if said["gigabytes"]:
        assert found["memory"]["peak"]["expected"] / 1e9 == pytest.approx(float(said["gigabytes"]), rel=0.02)
