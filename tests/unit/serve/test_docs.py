"""The page on the server tells the truth: its flags and routes are there, its program runs, its tests are there."""

import re
import warnings
from pathlib import Path
from typing import Any

import typer.main

from treetune.cli.app import build_app

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "serve.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


def test_every_flag_is_there() -> None:
    command: Any = typer.main.get_command(build_app("serve")).commands["serve"]  # type: ignore[attr-defined]
    known = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    named = set(re.findall(r"`(--[a-z-]+)", PAGE))
    assert len(named) > 10
    assert named <= known


def test_every_route_is_there(sentiment: Any) -> None:
    named = {path for path in re.findall(r"`(?:GET|POST) (/[\w/.-]+)", PAGE) if "NAME" not in path and "ID" not in path}
    assert len(named) > 8
    assert named <= {route.path for route in sentiment.app.routes}


def test_every_test_is_there() -> None:
    named = re.findall(r"`(test_[a-z0-9_]+)`", PAGE)
    assert len(named) > 20
    written = "".join(path.read_text("utf-8") for folder in ("tests/unit/serve", "tests/browser")
                      for path in (ROOT / folder).glob("test_*.py"))
    assert not [name for name in named if f"def {name}(" not in written]


def test_the_program_runs(sentiment: Any, capsys: Any) -> None:
    [program] = [block for kind, block in BLOCKS if kind == "python"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        names: dict[str, Any] = {}
        exec(compile(program.replace("http://127.0.0.1:8000", sentiment.address), "serve.md", "exec"), names)
        names["client"].close()
    assert capsys.readouterr().out.split()[1] == "ungated"
