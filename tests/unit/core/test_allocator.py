"""A training command starts itself once more where glibc would waste memory, and nowhere else."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from treetune.core import allocator
from treetune.core.allocator import NOTHING_ASIDE, TUNABLES, glibc_version, put_nothing_aside


@pytest.mark.parametrize(("said", "version"), [
    ("glibc 2.36", (2, 36)), ("glibc 2.4.1", (2, 4, 1)), ("musl 1.2", ()), ("", ()), ("glibc new", ()), (None, ()),
])
def test_the_version_is_read(said: str | None, version: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.os, "confstr", lambda name: said)
    assert glibc_version() == version


@pytest.mark.parametrize(("version", "given", "expected"), [
    ((2, 36), {}, True), ((2, 38), {}, False), ((2, 41), {}, False), ((), {}, False),
    ((2, 36), {TUNABLES: "glibc.malloc.perturb=1"}, False),
])
def test_only_an_older_glibc_without_tunables_is_told(
    version: tuple[int, ...], given: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allocator, "glibc_version", lambda: version)
    environment = dict(given)
    assert put_nothing_aside(environment) is expected
    assert environment == ({TUNABLES: NOTHING_ASIDE} if expected else given)


def started(words: list[str], version: str, environment: dict[str, str] | None = None) -> list[str]:
    """What a process says that runs the command: its tunables each time it starts."""
    code = ("import os, sys\n"
            "from treetune.core import allocator\n"
            f"allocator.glibc_version = lambda: {version}\n"
            "from treetune.cli import app\n"
            "print(os.environ.get('GLIBC_TUNABLES'), flush=True)\n"
            "app.run = lambda *given: print('ran', given[0], flush=True) or 0\n"
            "app.start()\n")
    said = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True,
                          env={"PYTHONPATH": ":".join(sys.path), **(environment or {})})
    return said.stdout.splitlines()


@pytest.mark.parametrize("verb", ["tune", "pretrain", "demo"])
def test_training_starts_once_more_with_the_same_words(verb: str) -> None:
    words = ["--debug", verb, "--data", "a b.csv"]
    assert started(words, "(2, 36)") == ["None", NOTHING_ASIDE, f"ran {words[1:]}"]


def test_other_verbs_start_once() -> None:
    assert started(["predict", "--text", "x"], "(2, 36)") == ["None", "ran ['predict', '--text', 'x']"]


def test_a_newer_glibc_starts_once() -> None:
    assert started(["tune"], "(2, 41)") == ["None", "ran ['tune']"]


def test_a_process_that_cannot_be_replaced_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*given: Any) -> None:
        raise OSError("no")

    monkeypatch.setattr(allocator, "glibc_version", lambda: (2, 36))
    monkeypatch.delenv(TUNABLES, raising=False)
    monkeypatch.setattr(allocator.os, "execv", refused)
    allocator.start_again()
    monkeypatch.delenv(TUNABLES, raising=False)
