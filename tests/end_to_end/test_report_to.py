"""treetune tune --report-to: TensorBoard's own reader finds the run, one curve over a stop, and no text of a row."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from treetune.data.sample import sample_path
from treetune.workflow.log import read_events

Cli = Callable[..., Any]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def words(tune_words: Callable[..., list[str]], tmp_path: Path) -> list[str]:
    """A tuning that saves each step."""
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install 'treetune[tensorboard]'")
    return tune_words("sentiment", tmp_path / "film", save_steps=1, report_to="tensorboard")


def curve(run: Path, name: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(run / "trackers" / "tensorboard"))
    read.Reload()
    return [(each.step, each.value) for each in read.Scalars(name)]


def test_a_stopped_and_resumed_run_is_one_curve_equal_to_its_log(
    words: list[str], tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from treetune.cli.show import Watcher

    def stop(self: Watcher, event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Watcher, "__call__", stop)
        assert cli(*words).code != 0  # like a kill: no time to save
    said = cli(*words)
    assert said.code == 0, said.err
    run = tmp_path / "film"
    events = read_events(run / "metrics.jsonl")
    assert [event["event"] for event in events].count("resumed") == 1
    steps = {event["step"]: event["loss"] for event in events if event["event"] == "step"}
    drawn = curve(run, "train/loss")
    assert [step for step, _ in drawn] == [1, 2, 3]
    assert dict(drawn) == pytest.approx(steps, rel=1e-6)
    assert curve(run, "validation/loss")[-1][0] == 3
    assert curve(run, "account/seconds")
    rows = [json.loads(line)["text"] for line in sample_path("sentiment", "train").read_text("utf-8").splitlines()]
    written = b"".join(path.read_bytes() for path in (run / "trackers").rglob("*") if path.is_file())
    assert b"learning_rate: 0.001" in written
    assert str(tmp_path).encode() not in written
    assert not [row for row in rows if row.encode() in written]
    before = sorted(path.name for path in (run / "trackers").rglob("*"))
    assert "nothing to do" in cli(*words).err  # complete: no tracker is opened again
    assert sorted(path.name for path in (run / "trackers").rglob("*")) == before


def test_another_tracker_is_no_other_run(words: list[str], tmp_path: Path, cli: Cli) -> None:
    assert cli(*words).code == 0
    said = cli(*words[:-1], "")
    assert said.code == 0, said.err


def test_a_missing_package_is_said_before_anything_is_begun(
    tune_words: Callable[..., list[str]], tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from treetune.workflow.trackers import contract

    monkeypatch.setattr(contract, "find_spec", lambda name: None)
    said = cli(*tune_words("sentiment", tmp_path / "film", report_to="trackio"))
    assert (said.code, "E2082" in said.err) == (2, True)
    assert "treetune[trackio]" in said.err
    assert not (tmp_path / "film").exists()
    source = tmp_path / "text.txt"
    source.write_text("A line.\n" * 50)
    config = tmp_path / "pretrain.yaml"
    config.write_text(f"data:\n- {{path: {source}, share: 1}}\ntotal_tokens: 10\noutput_dir: {tmp_path / 'base'}\n")
    assert "E2082" in cli("pretrain", config, "--report-to", "trackio").err
    assert not (tmp_path / "base").exists()


def test_a_tracker_that_cannot_write_leaves_the_run_as_it_would_be(
    words: list[str], tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from treetune.workflow.trackers import tensorboard

    def fail(self: Any, values: Any, step: int) -> None:
        raise OSError("no space for pictures")

    monkeypatch.setattr(tensorboard.TensorBoard, "numbers", fail)
    said = cli(*words)
    assert said.code == 0, said.err
    assert said.err.count("no space for pictures") == 1
    assert (tmp_path / "film" / "model" / "treetune.json").is_file()
