"""Trackers hear numbers and settings, never a text of a row; none of them stops a run; resumed, it is the same run."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from treetune.core.errors import UsageError
from treetune.core.files import RunFolder, read_json
from treetune.core.settings import TuneSettings, read_settings, reported_to
from treetune.workflow import reporting
from treetune.workflow.log import MetricsLog, read_events
from treetune.workflow.reporting import MOST_FAILURES, Reporting, numbers_of, settings_of
from treetune.workflow.trackers.contract import EXPECTED, Begin

STEP = {"event": "step", "of": 9, "epoch": 0.5, "loss": 2.0, "learning_rate": 0.1, "row_tokens": 10, "seconds": 1.0}


class Fake:
    """A tracker file and its one tracker; ``fails``: where it raises."""

    PACKAGES = ("json",)

    def __init__(self) -> None:
        self.begun: list[Begin] = []
        self.told: list[tuple[dict[str, float], int]] = []
        self.ended: list[bool] = []
        self.fails: set[str] = set()
        self.id = ""
        self.asked = 0

    def begin(self, how: Begin) -> "Fake":
        self.begun.append(how)
        if "begin" in self.fails:
            raise ConnectionError("no way to the server")
        self.id = how.id or "one"
        print("the library says hello")
        return self

    def numbers(self, values: dict[str, float], step: int) -> None:
        self.asked += 1
        if "numbers" in self.fails:
            raise ConnectionError("no way to the server")
        self.told.append((values, step))

    def end(self, finished: bool) -> None:
        if "end" in self.fails:
            raise ValueError("cannot end")
        self.ended.append(finished)

    def failures(self) -> tuple[type[Exception], ...]:
        return EXPECTED


@pytest.fixture
def tracker(monkeypatch: pytest.MonkeyPatch) -> Fake:
    found = Fake()
    monkeypatch.setattr(reporting, "load_tracker", lambda name: found)
    return found


@pytest.fixture
def settings(tmp_path: Path) -> TuneSettings:
    return read_settings(TuneSettings, None, {
        "task": "sentiment", "data": str(tmp_path / "secret place" / "train.csv"), "output_dir": str(tmp_path / "film"),
        "columns": {"text": "review"}, "report_to": "wandb"})


@pytest.fixture
def hear(settings: TuneSettings, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """(events, an error at the end) -> what a listener behind the trackers heard."""

    def run(*events: dict[str, Any], error: Exception | None = None) -> list[dict[str, Any]]:
        heard: list[dict[str, Any]] = []
        folder = RunFolder(tmp_path / "film")
        folder.root.mkdir(exist_ok=True)
        with contextlib.suppress(*[type(error)] if error else []), Reporting(settings, folder, heard.append) as told:
            log = MetricsLog(folder.metrics, told)
            for event in events:
                log(event)
            if error:
                raise error
        return heard

    return run


def test_numbers_go_out_by_name_and_step_and_everybody_hears_everything(
    hear: Callable[..., Any], tracker: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    events = [{"event": "tokens", "rows": 3}, {**STEP, "step": 1},
              {"event": "bad_loss", "step": 2, "rows": "train.csv, line 7", "found": "nan", "left_out_steps": 1},
              {"event": "evaluation", "step": 2, "loss": 1.5, "best_loss": 1.5, "best_step": 2},
              {"event": "account", "actual": {"seconds": 3.5, "energy_kwh": {"value": 0.1, "low": 0.0, "high": 0.2},
                                              "energy": "estimate", "cost": None}},
              {"event": "saved", "path": "/somewhere/model"}]
    assert hear(*events) == events
    assert tracker.told == [
        ({"train/epoch": 0.5, "train/loss": 2.0, "train/learning_rate": 0.1, "train/row_tokens": 10.0,
          "train/seconds": 1.0}, 1),
        ({"validation/loss": 1.5, "validation/best_loss": 1.5, "validation/best_step": 2.0}, 2),
        ({"account/seconds": 3.5, "account/energy_kwh": 0.1}, 2)]
    assert tracker.ended == [True]
    said = capsys.readouterr()
    assert said.out == ""  # standard output is the command's own
    assert "hello" in said.err


def test_settings_go_out_without_this_machines_folders(
    hear: Callable[..., Any], tracker: Fake, settings: TuneSettings, tmp_path: Path
) -> None:
    hear({**STEP, "step": 1})
    [how] = tracker.begun
    assert how.settings == settings_of(settings)
    assert (how.settings["data"], how.settings["output_dir"], how.settings["columns.text"]) == ("train.csv", "film",
                                                                                               "review")
    assert how.settings["learning_rate"] == settings.learning_rate
    assert str(tmp_path) not in json.dumps(how.settings)
    assert (how.name, how.id, how.kept_steps) == ("film", "", 0)


def test_a_resumed_run_is_the_same_run_there(hear: Callable[..., Any], tracker: Fake, tmp_path: Path) -> None:
    hear({**STEP, "step": 1}, {**STEP, "step": 2}, error=RuntimeError("stopped"))
    assert tracker.ended == [False]
    assert read_json(tmp_path / "film" / "trackers.json") == {"wandb": {"id": "one", "sent": 2, "failed": 0}}
    hear({"event": "resumed", "step": 1, "path": "step-1"}, {**STEP, "step": 2})
    assert [(how.id, how.kept_steps) for how in tracker.begun] == [("", 0), ("one", 1)]
    assert [step for _, step in tracker.told] == [1, 2, 2]
    assert tracker.ended == [False, True]


def test_a_run_without_a_step_begins_nothing(hear: Callable[..., Any], tracker: Fake, tmp_path: Path) -> None:
    hear({"event": "complete", "path": "film"})
    assert (tracker.begun, tracker.ended) == ([], [])
    assert not (tmp_path / "film" / "trackers.json").exists()


def test_a_broken_record_of_ids_begins_anew(hear: Callable[..., Any], tracker: Fake, tmp_path: Path) -> None:
    (tmp_path / "film").mkdir()
    (tmp_path / "film" / "trackers.json").write_text("{")
    hear({**STEP, "step": 1})
    assert len(tracker.told) == 1


@pytest.mark.parametrize("where", ["begin", "numbers", "end"])
def test_a_failing_tracker_is_counted_told_once_and_stops_nothing(
    where: str, hear: Callable[..., Any], tracker: Fake, tmp_path: Path
) -> None:
    tracker.fails = {where}
    heard = hear(*({**STEP, "step": step} for step in range(1, 10)))
    failed = [event for event in heard if event["event"] == "tracker_failed"]
    assert [event["tracker"] for event in failed] == ["wandb"]
    assert failed[0]["found"] in ("no way to the server", "cannot end")
    assert [event["step"] for event in heard if event["event"] == "step"] == list(range(1, 10))
    assert read_events(tmp_path / "film" / "metrics.jsonl").count(failed[0]) == 1
    kept = read_json(tmp_path / "film" / "trackers.json")["wandb"]
    assert (kept["sent"], kept["failed"]) == {"begin": (0, 1), "numbers": (0, MOST_FAILURES), "end": (9, 1)}[where]
    assert tracker.asked == {"begin": 0, "numbers": MOST_FAILURES, "end": 9}[where]


def test_what_a_tracker_is_not_known_to_let_out_is_not_swallowed(hear: Callable[..., Any], tracker: Fake) -> None:
    def wrong(values: Any, step: int) -> None:
        raise ZeroDivisionError("a defect of ours")

    tracker.numbers = wrong  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        hear({**STEP, "step": 1})
    assert tracker.ended == [False]


def test_only_finite_numbers_are_drawn() -> None:
    event = {"event": "step", "step": 1, "of": 2, "loss": float("nan"), "text": "a row", "flag": True, "rate": 1,
             "nested": {"text": "a row"}}
    assert numbers_of(event) == {"train/rate": 1.0}
    assert numbers_of({"event": "predicting", "rows": 3}) == {}


def test_names_are_checked_with_the_other_settings(tmp_path: Path) -> None:
    given = {"task": "sentiment", "data": "x", "output_dir": "y"}
    with pytest.raises(UsageError) as caught:
        read_settings(TuneSettings, None, {**given, "report_to": "tensorboard, tensorbord"})
    assert caught.value.code == "E2004"
    assert "mlflow" in caught.value.allowed
    assert reported_to(read_settings(TuneSettings, None, {**given, "report_to": " mlflow,wandb,,mlflow"})) == [
        "mlflow", "wandb"]
    assert reported_to(read_settings(TuneSettings, None, given)) == []


def test_of_an_instruction_only_its_length_goes_out(settings: TuneSettings) -> None:
    assert settings_of(settings)["instruction"] == ""
    told = settings.model_copy(update={"instruction": "A good film: positive"})
    assert settings_of(told) == {**settings_of(settings), "instruction": 21}
