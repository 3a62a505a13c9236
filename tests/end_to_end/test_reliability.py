"""The promises of docs/reliability.md through the command line."""

import contextlib
import hashlib
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from treetune.cli.show import Watcher
from treetune.core.errors import RunError, UsageError
from treetune.core.files import RunFolder, read_json, write_json
from treetune.core.lock import run_lock
from treetune.train.checkpoint import problem_of, steps_on_disk
from treetune.workflow.log import read_events
from treetune.workflow.path import fingerprint_before, refuse_changed

Cli = Callable[..., Any]
Words = Callable[..., list[str]]
ROOT = Path(__file__).resolve().parents[2]
PLAN: dict[str, Any] = {"max_steps": 6, "save_steps": 2, "eval_steps": 4, "save_total_limit": 9}


def weights(run: Path) -> str:
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


def interrupted_at(step: int, words: list[str], cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Watcher.__call__

    def watch(self: Watcher, event: dict[str, Any]) -> None:
        plain(self, event)
        if event["event"] == "step" and event["step"] == step:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Watcher, "__call__", watch)
        assert cli(*words).code == 75


@pytest.fixture(scope="module")
def whole(tune_words: Words, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from treetune.cli.app import run

    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run(tune_words("sentiment", folder, **PLAN), False, False) == 0
    return folder


def test_a_second_run_in_the_folder_is_refused(cli: Cli, tune_words: Words, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with run_lock(run, lambda event: None):
        said = cli(*tune_words("sentiment", run))
        assert said.code == 1
        assert f"E5012: another process works on this run\n  where: {run}\n  found: pid {os.getpid()} on " in said.err
        assert not (run / "config.yaml").exists()


def test_a_run_that_was_moved_goes_on_byte_equal(
    cli: Cli, tune_words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path
) -> None:
    interrupted_at(5, tune_words("sentiment", tmp_path / "here", **PLAN), cli, monkeypatch)
    shutil.move(tmp_path / "here", tmp_path / "there")
    said = cli(*tune_words("sentiment", tmp_path / "there", **PLAN))
    assert said.code == 0, said.err
    assert "going on from step-5" in said.err
    assert weights(tmp_path / "there") == weights(whole)


def test_an_allowed_change_goes_on_and_is_recorded(
    cli: Cli, tune_words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    interrupted_at(3, tune_words("sentiment", run, **PLAN), cli, monkeypatch)
    changed = tune_words("sentiment", run, **{**PLAN, "learning_rate": 2e-3, "seed": 5})
    said = cli(*changed, "--allow-changed", "learning_rate")
    assert said.code == 1
    assert said.err.startswith("E5011: the run in this folder was started differently: seed\n")
    said = cli(*changed, "--allow-changed", "learning_rate", "--allow-changed", "seed")
    assert said.code == 0, said.err
    changes = [{"key": "seed", "before": 0, "now": 5}, {"key": "learning_rate", "before": 1e-3, "now": 2e-3}]
    assert sorted(read_json(run / "data.json")["allowed_changes"], key=str) == sorted(changes, key=str)
    events = [event for event in read_events(run / "metrics.jsonl") if event["event"] == "allowed_change"]
    assert sorted(event["key"] for event in events) == ["learning_rate", "seed"]
    assert "changed as allowed: learning_rate was 0.001, is 0.002" in said.err
    assert cli(*changed).code == 0  # from now on these are the run's


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 64 MB in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting a file system needs root and mount")
    words = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
    if refused := subprocess.run(words, capture_output=True, text=True, check=False).stderr:
        pytest.skip(f"nothing can be mounted here: {refused.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize("left", [0, 200_000], ids=["nothing left", "part of a checkpoint fits"])
def test_a_file_system_that_fills_up_during_a_run(
    left: int, small_disk: Path, cli: Cli, tune_words: Words, monkeypatch: pytest.MonkeyPatch, whole: Path
) -> None:
    run, filler = small_disk / "run", small_disk / "of somebody else"
    plain = Watcher.__call__

    def watch(self: Watcher, event: dict[str, Any]) -> None:
        plain(self, event)
        if event["event"] == "step" and event["step"] == 3:
            with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            os.truncate(filler, filler.stat().st_size - left)

    words = tune_words("sentiment", run, **PLAN)
    with monkeypatch.context() as patch:
        patch.setattr(Watcher, "__call__", watch)
        said = cli(*words)
    assert said.code == 1
    assert "E5001: the disk is full" in said.err
    assert ("step-4" if left else str(run)) in said.err
    assert [step for step, _ in steps_on_disk(run / "checkpoints")] == [2]
    assert problem_of(run / "checkpoints" / "step-2") == ""
    assert not list((run / "checkpoints").glob(".tmp-*"))
    said = cli(*words)  # still full
    assert said.code == 1
    assert ("E5013: the checkpoints of this run cannot fit" if left else "E5001: the disk is full") in said.err
    assert problem_of(run / "checkpoints" / "step-2") == ""
    filler.unlink()
    said = cli(*words)
    assert said.code == 0, said.err
    assert "going on from step-2" in said.err
    assert weights(run) == weights(whole)
    assert (run / "checkpoints/step-6/optimizer.safetensors").read_bytes() == (
        whole / "checkpoints/step-6/optimizer.safetensors").read_bytes()
    events = read_events(run / "metrics.jsonl")
    assert [event["step"] for event in events if event["event"] == "step"] == list(range(1, 7))


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_a_clock_that_jumps_changes_nothing(
    jump: float, cli: Cli, tune_words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path
) -> None:
    run, plain_time, plain = tmp_path / "run", time.time, Watcher.__call__
    jumps = [0.0]

    def watch(self: Watcher, event: dict[str, Any]) -> None:
        plain(self, event)
        if event["event"] == "checkpoint":  # its files get the time of the clock that jumps
            jumps[0] += jump
            for path in (run / "checkpoints" / event["path"]).iterdir():
                os.utime(path, (time.time(), time.time()))
        if event["event"] == "step" and event["step"] == 5:
            os.kill(os.getpid(), signal.SIGINT)

    words = tune_words("sentiment", run, **{**PLAN, "save_total_limit": 2})
    monkeypatch.setattr(time, "time", lambda: plain_time() + jumps[0])
    with monkeypatch.context() as patch:
        patch.setattr(Watcher, "__call__", watch)
        assert cli(*words).code == 75
    assert [step for step, _ in steps_on_disk(run / "checkpoints")] == [5, 4]
    (run / "data.json").unlink()  # what the run was started with is then read from the newest checkpoint
    said = cli(*words)
    assert said.code == 0, said.err
    assert "going on from step-5" in said.err
    assert weights(run) == weights(whole)


def test_what_a_run_was_started_with_is_read_from_the_newest_step_whatever_the_clock_said(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for step in (2, 10):
        write_json(folder.checkpoints / f"step-{step}" / "manifest.json", {"fingerprint": {"seed": step}})
        os.utime(folder.checkpoints / f"step-{step}" / "manifest.json", (1e9 - step, 1e9 - step))
    assert fingerprint_before(folder) == {"seed": 10}


def test_a_key_that_is_none_cannot_be_allowed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="E2003"):
        refuse_changed(RunFolder(tmp_path), {"seed": 0}, ["sed"])


def test_a_setting_unknown_to_the_runs_version_had_its_default(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write_json(folder.data, {"fingerprint": {"seed": 0}})
    assert refuse_changed(folder, {"seed": 0, "weight_decay": None, "row_order": "auto"}) == []
    with pytest.raises(RunError, match="row_order"):
        refuse_changed(folder, {"seed": 0, "row_order": "grouped"})


def test_the_tests_that_the_document_names_are_there() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    names = re.findall(r"::(test_\w+)", text)
    assert len(names) > 15
    assert [name for name in names if f"def {name}(" not in sources] == []


def test_recipes_are_read_by_their_parsers() -> None:
    folder = ROOT / "recipes" / "cluster"
    for name in ("kubeflow.yaml", "skypilot.yaml"):
        assert isinstance(yaml.safe_load((folder / name).read_text("utf-8")), dict)
    assert subprocess.run(["bash", "-n", str(folder / "slurm.sh")], check=False).returncode == 0
    compile((folder / "ray_train.py").read_text("utf-8"), "ray_train.py", "exec")


def test_the_slurm_recipe_requeues_what_is_not_finished(tmp_path: Path) -> None:
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "scontrol").write_text('#!/bin/bash\n[ "$1" = show ] && echo node1 || echo "$@" >> "$NOTES"\n')
    (commands / "srun").write_text('#!/bin/bash\necho "srun $@" >> "$NOTES"\n[ -z "$FINISH" ] || '
                                   '{ mkdir -p "$RUN/model"; touch "$RUN/model/treetune.json"; }\n')
    for path in commands.iterdir():
        path.chmod(0o755)
    config = tmp_path / "run.yaml"
    config.write_text(f"output_dir: {tmp_path / 'run'}\n")
    for finish, expected in (("", 1), ("yes", 0)):
        notes = tmp_path / f"notes{finish}"
        notes.write_text("")
        subprocess.run(
            ["bash", str(ROOT / "recipes" / "cluster" / "slurm.sh"), str(config)], check=False,
            env={"PATH": f"{commands}:{os.environ['PATH']}", "NOTES": str(notes), "FINISH": finish,
                 "RUN": str(tmp_path / "run"), "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2",
                 "SLURM_JOB_ID": "7"},
        )
        said = notes.read_text()
        assert "-m treetune tune" in said
        assert said.count("requeue 7") == expected


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the bound was found on Linux")
@pytest.mark.parametrize("bf16", [False, True])
def test_four_times_the_steps_take_no_more_memory(bf16: bool, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    random = Random(0)
    words = ["a", "slow", "film", "with", "one", "warm", "scene", "that", "nobody", "forgets", "and", "noise"]
    rows.write_text("".join(
        json.dumps({"text": " ".join(random.choices(words, k=random.randint(3, 40))),
                    "label": random.choice(["positive", "negative"])}) + "\n" for _ in range(2000)))
    peaks = []
    for steps in (40, 160):
        run = tmp_path / f"run{steps}"
        done = subprocess.run(
            [sys.executable, "-m", "treetune", "tune", "--task", "sentiment", "--model", "gpt3", "--data", str(rows),
             "--output-dir", str(run), "--max-steps", str(steps), "--per-device-train-batch-size", "32",
             "--num-train-epochs", "9", "--save-steps", "1000", *(["--bf16"] if bf16 else [])],
            capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        events = read_events(run / "metrics.jsonl")
        peaks += [event["actual"]["peak_bytes"] for event in events if event["event"] == "account"]
    assert peaks[1] - peaks[0] < 60e6, peaks  # a kernel kept for each number of tokens took 5 MB a step


@pytest.mark.slow
def test_seeded_kills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    bench = importlib.import_module("kill_test")
    bench.import_all()
    bench.make_model(tmp_path / "model")
    parts = bench.read_parts(tmp_path / "model")
    with capfd.disabled():  # the kills wait for steps that the runs tell of on their own standard error
        found = bench.kill_at_moments(tmp_path, 20, 7, lambda run: bench.train(parts, run), bench.steps_lost,
                                      bench.outcome)
    assert found["kills"] == 20
    assert (found["finished"], found["not_equal"], found["failed_resumes"]) == (found["runs"], 0, 0)
    assert found["most_steps_lost"] <= bench.SAVE_EVERY


@pytest.mark.slow
def test_a_killed_process_of_two_is_started_again_and_the_run_finishes(tune_words: Words, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = [sys.executable, "-m", "treetune", "--lang", "en",
             *tune_words("sentiment", run, **{**PLAN, "max_steps": 60}), "--nproc-per-node", "2"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    killed: list[int] = []

    def kill_lead() -> None:
        until = time.monotonic() + 240
        while not killed and time.monotonic() < until and process.poll() is None:
            time.sleep(0.1)
            if len([e for e in read_events(run / "metrics.jsonl") if e["event"] == "step"]) > 5:
                killed.append(json.loads((run / ".lock").read_text())["pid"])
                os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill_lead)
    thread.start()
    _, err = process.communicate(timeout=400)
    thread.join()
    assert process.returncode == 0, err
    assert killed
    events = read_events(run / "metrics.jsonl")
    assert [event["step"] for event in events if event["event"] == "step"] == list(range(1, 61))
    assert any(event["event"] == "lock_taken_over" and event["pid"] == killed[0] for event in events)
