"""The plan's page has all its lines in both languages."""

from typing import Any

from treetune.cli.show_plan import account_line, plan_line
from treetune.core.language import speaking

BOUNDS = {"low": 50.0, "expected": 100.0, "high": 200.0}
PLAN: dict[str, Any] = {"event": "plan", "seconds": BOUNDS, "peak_bytes": BOUNDS, "energy_kwh": BOUNDS,
                        "shaped": {"rows_per_pass": 4, "max_tokens": 300, "checkpointing": True},
                        "doubtful": ["max_time"]}


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
