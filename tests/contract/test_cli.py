"""The command line's promises: help, flags for every setting, languages, codes, and no torch before it is needed."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from pydantic import BaseModel

from treetune import __version__
from treetune.cli import app
from treetune.cli.app import VERBS, build_app, run, take_common
from treetune.core.language import choose_language
from treetune.core.settings import PretrainSettings, TuneSettings

SOURCE = Path(__file__).parents[2] / "src"
YAML_ONLY = {"pretrain": {"data"}, "tune": set(), "check": set()}


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    choose_language("en")
    yield
    choose_language("")


def python(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    return subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, timeout=60,
                          check=False)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "--help"], False, False) == 0
    said = capsys.readouterr().out
    assert "Usage" in said
    assert "--help" in said
    command = typer.main.get_command(build_app()).commands[verb]  # type: ignore[attr-defined]
    assert (command.help or "").strip()
    for parameter in command.params:
        if parameter.name != "help":
            assert getattr(parameter, "help", ""), f"{verb} {parameter.name} has no help"


@pytest.mark.parametrize(("verb", "settings"), [("tune", TuneSettings), ("check", TuneSettings),
                                                 ("pretrain", PretrainSettings)])
def test_every_setting_has_a_flag_or_is_named_as_one_of_yaml_only(verb: str, settings: type[BaseModel]) -> None:
    command = typer.main.get_command(build_app()).commands[verb]  # type: ignore[attr-defined]
    flags = {flag for parameter in command.params for flag in parameter.opts}
    missing = {name for name in settings.model_fields if f"--{name.replace('_', '-')}" not in flags}
    assert missing == YAML_ONLY[verb]
    for name, field in settings.model_fields.items():
        assert field.description, f"{name} has no description"


def test_help_shows_the_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tune", "--help"], False, False) == 0
    said = capsys.readouterr().out
    for flag in ("--task", "--data", "--lora-r", "--seed"):
        assert flag in said


def test_an_unknown_verb_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tuen"], False, False) == 2
    assert "tuen" in capsys.readouterr().err


def test_no_verb_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([], False, False) == 2
    said = capsys.readouterr()
    assert all(verb in said.out + said.err for verb in VERBS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"], False, False) == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize("words", [["--lang", "zh"], ["--lang=zh"]])
def test_messages_follow_the_language(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    for language in ([], words):
        monkeypatch.setattr(sys, "argv", ["treetune", "evaluate", "nowhere/at/all", "--data", "x.csv", *language])
        choose_language("en")
        if not language:
            monkeypatch.setenv("LC_ALL", "C")
        with pytest.raises(SystemExit) as caught:
            app.main()
        assert caught.value.code == 2
        said.append(capsys.readouterr().err)
    english, chinese = said
    assert english.startswith("E2030: there is no run")
    assert chinese.startswith("E2030: ")
    assert not re.search("[一-鿿]", english)
    assert re.search("[一-鿿]", chinese)


def test_an_unknown_language_is_a_usage_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["treetune", "--lang", "xx", "doctor"])
    with pytest.raises(SystemExit) as caught:
        app.main()
    assert caught.value.code == 2
    assert "en, zh" in capsys.readouterr().err


def test_common_flags_stand_anywhere() -> None:
    assert take_common(["--lang", "zh", "check", "--debug", "--json"]) == (["check", "--json"], True, True, "zh")
    assert take_common(["check", "--lang=en"]) == (["check"], False, False, "en")
    assert take_common(["check", "--lang"]) == (["check"], False, False, "")


def test_an_error_nobody_foresaw_is_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(wanted: str) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(app, "build_app", fail)
    assert run(["doctor"], False, False) == 1
    said = capsys.readouterr().err
    assert said.startswith("E9000: ")
    assert "ZeroDivisionError: oops" in said
    assert "Traceback" not in said
    assert run(["doctor"], False, True) == 1
    assert "Traceback" in capsys.readouterr().err


def test_importing_the_package_loads_no_torch() -> None:
    done = python("-X", "importtime", "-c", "import treetune")
    assert done.returncode == 0
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "treetune" in loaded
    assert not {name for name in loaded if name.split(".")[0] in ("torch", "transformers", "numpy", "peft")}


def test_building_the_command_line_loads_no_torch() -> None:
    code = ("import sys; import treetune.cli.app as a; a.build_app(); "
            "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)")
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
