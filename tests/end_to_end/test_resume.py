"""An interrupted run ends where an uninterrupted one does, to the byte; a changed one is not resumed."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from treetune.cli.show import Watcher
from treetune.core.files import RunFolder
from treetune.data.sample import sample_path
from treetune.train.checkpoint import problem_of, steps_on_disk
from treetune.workflow.log import MetricsLog, read_events

Cli = Callable[..., Any]
Words = Callable[..., list[str]]
PLAN: dict[str, Any] = {"max_steps": 8, "save_steps": 2, "eval_steps": 4, "save_total_limit": 9}


def weights(run: Path) -> str:
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


def steps_told(run: Path) -> list[int]:
    return [event["step"] for event in read_events(run / "metrics.jsonl") if event["event"] == "step"]


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], None]) -> None:
    """Have ``act`` called when a watcher hears of the step."""
    plain = Watcher.__call__

    def watch(self: Watcher, event: dict[str, Any]) -> None:
        plain(self, event)
        if event["event"] == "step" and event["step"] == step:
            act()

    monkeypatch.setattr(Watcher, "__call__", watch)


@pytest.fixture(scope="module")
def whole(tune_words: Words, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted run."""
    from treetune.cli.app import run

    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run(tune_words("sentiment", folder, **PLAN), False, False) == 0
    return folder


@pytest.mark.parametrize("step", [3, 4])
def test_after_an_interrupt_the_same_command_ends_byte_equal(
    step: int, cli: Cli, tune_words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path
) -> None:
    words = tune_words("sentiment", tmp_path / "run", **PLAN)
    with monkeypatch.context() as patch:
        at_step(patch, step, lambda: os.kill(os.getpid(), signal.SIGINT))
        said = cli(*words)
    assert said.code == 75
    assert f"E4010: stopped by SIGINT after step {step}" in said.err
    assert "run the same command again" in said.err
    said = cli(*words)
    assert said.code == 0, said.err
    assert f"going on from step-{step}" in said.err
    assert weights(tmp_path / "run") == weights(whole)
    assert steps_told(tmp_path / "run") == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("step", [1, 5])
def test_after_a_crash_between_checkpoints_too(
    step: int, cli: Cli, tune_words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path
) -> None:
    def crash() -> None:
        raise MemoryError("as if the power failed")

    words = tune_words("sentiment", tmp_path / "run", **PLAN)
    with monkeypatch.context() as patch:
        at_step(patch, step, crash)
        assert cli(*words).code == 1
    with open(tmp_path / "run" / "metrics.jsonl", "a", encoding="utf-8") as handle:
        handle.write('{"event": "step", "st')  # a line that did not reach the disk whole
    said = cli(*words)
    assert said.code == 0, said.err
    assert weights(tmp_path / "run") == weights(whole)
    assert steps_told(tmp_path / "run") == [1, 2, 3, 4, 5, 6, 7, 8]


def test_two_broken_checkpoints_are_told_and_passed_over(
    cli: Cli, tune_words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path
) -> None:
    words = tune_words("sentiment", tmp_path / "run", **PLAN)
    with monkeypatch.context() as patch:
        at_step(patch, 6, lambda: os.kill(os.getpid(), signal.SIGINT))
        assert cli(*words).code == 75
    for step, name in ((6, "model.safetensors"), (4, "optimizer.safetensors")):
        path = tmp_path / "run" / "checkpoints" / f"step-{step}" / name
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    said = cli(*words)
    assert said.code == 0, said.err
    assert "passed over a broken checkpoint: step-6: model.safetensors was changed" in said.err
    assert "passed over a broken checkpoint: step-4: optimizer.safetensors was changed" in said.err
    assert "going on from step-2" in said.err
    assert weights(tmp_path / "run") == weights(whole)
    assert steps_told(tmp_path / "run") == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("key", "value"),
    [("seed", 1), ("learning_rate", 2e-3), ("data", sample_path("sentiment", "test")), ("optim", "sgd"),
     ("validation_data", sample_path("sentiment", "test"))],
)
def test_a_run_started_differently_is_refused_by_the_name_of_the_key(
    key: str, value: object, cli: Cli, tune_words: Words, whole: Path
) -> None:
    before = weights(whole)
    said = cli(*tune_words("sentiment", whole, **{**PLAN, key: value}))
    assert said.code == 1
    assert said.err.startswith(f"E5011: the run in this folder was started differently: {key}\n")
    assert f"{key}=" in said.err
    assert weights(whole) == before


@pytest.mark.parametrize("change", [{"logging_steps": 2}, {"save_total_limit": 1}, {"torch_threads": 2}])
def test_what_is_no_part_of_the_plan_may_differ(
    change: dict[str, int], cli: Cli, tune_words: Words, whole: Path
) -> None:
    said = cli(*tune_words("sentiment", whole, **{**PLAN, **change}))
    assert said.code == 0
    assert "is complete" in said.err


def test_a_terminated_process_saves_and_leaves_with_75(tune_words: Words, tmp_path: Path) -> None:
    words = tune_words("sentiment", tmp_path / "run", max_steps=5000)
    with open(tmp_path / "err.txt", "w+", encoding="utf-8") as err:
        process = subprocess.Popen([sys.executable, "-m", "treetune", "--lang", "en", *words], stderr=err)
        try:
            until = time.monotonic() + 60
            while not steps_told_safely(tmp_path / "run") and process.poll() is None and time.monotonic() < until:
                time.sleep(0.05)
            process.terminate()
            code = process.wait(timeout=30)
        finally:
            process.kill()
            process.wait()
        err.seek(0)
        text = err.read()
    assert code == 75, text
    assert "E4010: stopped by SIGTERM" in text
    [(_, newest), *_] = steps_on_disk(RunFolder(tmp_path / "run").checkpoints)
    assert problem_of(newest) == ""


def steps_told_safely(run: Path) -> bool:
    path = run / "metrics.jsonl"
    return path.exists() and '"event": "step"' in path.read_text("utf-8")


def test_the_log_takes_lost_steps_out(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", lambda event: None)
    for step in (1, 2, 3):
        log({"event": "step", "step": step})
    log = MetricsLog(tmp_path / "metrics.jsonl", lambda event: None)
    log({"event": "resumed", "step": 1})
    log({"event": "step", "step": 2})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [(line["event"], line["step"]) for line in lines] == [("step", 1), ("resumed", 1), ("step", 2)]
