"""Every command of docs/plan.md is understood; the plan's page has all its lines in both languages."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from treetune.cli.app import build_app
from treetune.cli.show_plan import account_line, plan_line
from treetune.core.language import speaking

PAGE = (Path(__file__).parents[3] / "docs" / "plan.md").read_text("utf-8")
COMMANDS = [line for block in re.findall(r"^```bash\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
            for line in block.splitlines() if line.startswith("treetune ")]
BOUNDS = {"low": 50.0, "expected": 100.0, "high": 200.0}
PLAN: dict[str, Any] = {"event": "plan", "seconds": BOUNDS, "peak_bytes": BOUNDS, "energy_kwh": BOUNDS,
                        "shaped": {"rows_per_pass": 4, "max_tokens": 300, "checkpointing": True},
                        "doubtful": ["max_time"]}


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_the_page_is_understood(line: str) -> None:
    verb, *words = shlex.split(line, comments=True)[1:]
    group: Any = typer.main.get_command(build_app(verb))
    group.commands[verb].make_context(verb, words)


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 8


def test_the_plan_of_a_run_in_a_line() -> None:
    with speaking("en"):
        line = plan_line(PLAN)
        probe = plan_line({"event": "probe", "steps": 20, "seconds": BOUNDS, "unknown_share": 0.25,
                           "peak_bytes": 2e9})
        none = plan_line({"event": "no_plan", "why": "E2050"})
    assert "1.67 min (50 s – 3.33 min)" in line
    assert "passes of at most 4 rows and 300 tokens, activations recomputed: yes" in line
    assert "max_time may not be enough" in line
    assert "25 % of it still unknown" in probe
    assert "E2050" in none


def test_the_account_of_a_run_in_a_line() -> None:
    event = {"actual": {"seconds": 80.0, "peak_bytes": 5e8, "energy_kwh": 0.001, "energy": {"measured": False},
                        "saved_tokens": 400, "row_tokens": 1000},
             "planned": {"seconds": BOUNDS, "peak_bytes": BOUNDS}}
    with speaking("en"):
        assert account_line(event).startswith("took 80 s (planned 1.67 min)")
        assert "planned –" in account_line({**event, "planned": {}})
    with speaking("zh"):
        assert "400 个共享" in account_line(event)
