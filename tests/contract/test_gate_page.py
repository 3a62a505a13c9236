"""docs/gate.md tells the truth: its table names the checks that there are."""

from pathlib import Path

from treetune.decide.validators.contract import validators_of
from treetune.tasks.contract import task_names

PAGE = (Path(__file__).parents[2] / "docs" / "gate.md").read_text("utf-8")


def test_every_check_is_in_the_table() -> None:
    for name in {each.NAME for task in task_names() for each in validators_of(task)}:
        assert f"`{name}`" in PAGE, name
