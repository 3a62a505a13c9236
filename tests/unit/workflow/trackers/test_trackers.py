"""Each tracker: TensorBoard's files read back; the others against small fakes, and for real where installed."""

import importlib.metadata
import sqlite3
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

from treetune.core.errors import UsageError
from treetune.core.settings import TRACKERS
from treetune.workflow.trackers.contract import EXPECTED, Begin, load_tracker, require

ROOT = Path(__file__).parents[4]
SETTINGS = {"learning_rate": 0.001, "task": "sentiment", "bf16": False}


def how(folder: Path, identity: str = "", kept_steps: int = 0) -> Begin:
    return Begin(folder / "trackers", "film", identity, SETTINGS, kept_steps)


def fake(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> ModuleType:
    """A module of that name, as if it were installed."""
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    vars(module).update(content)
    monkeypatch.setitem(sys.modules, name, module)
    return module


def test_every_tracker_has_a_file_and_an_extra() -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for name in TRACKERS:
        assert list(load_tracker(name).PACKAGES) == [name]
        assert extras[name][0].startswith(name)


@pytest.mark.parametrize("name", TRACKERS)
def test_one_that_is_missing_is_named_with_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from treetune.workflow.trackers import contract

    monkeypatch.setattr(contract, "find_spec", lambda package: None)
    with pytest.raises(UsageError) as caught:
        require([name])
    assert caught.value.code == "E2082"
    assert f"pip install 'treetune[{name}]'" in str(caught.value)
    require([])


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself reads: name -> (step, value)."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder / "trackers" / "tensorboard"))
    read.Reload()
    return {name: [(each.step, round(each.value, 6)) for each in read.Scalars(name)]
            for name in read.Tags()["scalars"]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_a_resumed_run_as_one_curve(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install 'treetune[tensorboard]'")
    tracker = load_tracker("tensorboard").begin(how(tmp_path))
    for step in (1, 2, 3):
        tracker.numbers({"train/loss": 1.0 / step}, step)
    tracker.end(False)
    assert scalars(tmp_path)["train/loss"] == [(1, 1.0), (2, 0.5), (3, 0.333333)]
    again = load_tracker("tensorboard").begin(how(tmp_path, tracker.id, kept_steps=2))
    for step in (3, 4):
        again.numbers({"train/loss": 9.0}, step)
    again.end(True)
    assert scalars(tmp_path)["train/loss"] == [(1, 1.0), (2, 0.5), (3, 9.0), (4, 9.0)]


class FakeWandb:
    """What is called of wandb, written down."""

    class Settings(SimpleNamespace):
        model_fields = ("console", "disable_git", "save_code")  # an old one, which does not know the others

    class Error(Exception):
        pass

    def __init__(self) -> None:
        self.errors = SimpleNamespace(Error=self.Error)
        self.begun: list[dict[str, Any]] = []
        self.logged: list[tuple[dict[str, float], int]] = []
        self.finished: list[int] = []

    def init(self, **given: Any) -> Any:
        self.begun.append(given)
        return SimpleNamespace(log=lambda values, step: self.logged.append((values, step)),
                               finish=lambda exit_code: self.finished.append(exit_code))


def test_wandb_is_offline_collects_nothing_itself_and_keeps_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    wandb = FakeWandb()
    fake(monkeypatch, "wandb", Settings=wandb.Settings, errors=wandb.errors, init=wandb.init)
    tracker = load_tracker("wandb").begin(how(tmp_path))
    tracker.numbers({"train/loss": 1.5}, 7)
    tracker.end(False)
    [given] = wandb.begun
    assert (given["mode"], given["dir"], given["config"]) == ("offline", str(tmp_path / "trackers"), SETTINGS)
    assert given["settings"] == wandb.Settings(console="off", disable_git=True, save_code=False)
    assert (wandb.logged, wandb.finished) == ([({"train/loss": 1.5}, 7)], [1])
    monkeypatch.setenv("WANDB_MODE", "online")
    again = load_tracker("wandb").begin(how(tmp_path, tracker.id))
    again.end(True)
    assert (wandb.begun[1]["id"], wandb.begun[1]["mode"], wandb.begun[1]["resume"]) == (tracker.id, "online", "allow")
    assert wandb.finished == [1, 0]
    assert FakeWandb.Error in load_tracker("wandb").failures()


class FakeMlflow:
    """MLflow's client over a dictionary."""

    stores: ClassVar[dict[str, dict[str, Any]]] = {}

    def __init__(self, tracking_uri: str) -> None:
        self.runs = self.stores.setdefault(tracking_uri, {})

    def get_experiment_by_name(self, name: str) -> Any:
        return None

    def create_experiment(self, name: str) -> str:
        return name

    def create_run(self, experiment: str, run_name: str) -> Any:
        self.runs["r1"] = {"name": run_name, "experiment": experiment, "status": "RUNNING", "metrics": [], "params": []}
        return SimpleNamespace(info=SimpleNamespace(run_id="r1"))

    def log_batch(self, run: str, metrics: Any = (), params: Any = ()) -> None:
        self.runs[run]["metrics"] += metrics
        self.runs[run]["params"] += params

    def update_run(self, run: str, status: str) -> None:
        self.runs[run]["status"] = status

    set_terminated = update_run


def test_mlflow_writes_a_store_of_the_run_folder_and_goes_on_in_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class MlflowException(Exception):
        pass

    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setattr(FakeMlflow, "stores", {})
    fake(monkeypatch, "mlflow")
    fake(monkeypatch, "mlflow.entities", Param=lambda key, value: (key, value),
         Metric=lambda key, value, when, step: (key, value, step))
    fake(monkeypatch, "mlflow.tracking", MlflowClient=FakeMlflow)
    fake(monkeypatch, "mlflow.exceptions", MlflowException=MlflowException)
    tracker = load_tracker("mlflow").begin(how(tmp_path))
    tracker.numbers({"train/loss": 1.5}, 7)
    tracker.end(False)
    assert list(FakeMlflow.stores) == [f"sqlite:///{tmp_path.resolve() / 'trackers' / 'mlflow.db'}"]
    [runs] = FakeMlflow.stores.values()
    assert runs["r1"] == {"name": "film", "experiment": "treetune", "status": "KILLED",
                          "metrics": [("train/loss", 1.5, 7)],
                          "params": [(name, str(value)) for name, value in SETTINGS.items()]}
    again = load_tracker("mlflow").begin(how(tmp_path, tracker.id))
    again.numbers({"train/loss": 1.0}, 8)
    again.end(True)
    assert len(runs["r1"]["params"]) == len(SETTINGS)  # told once; a store refuses other values
    assert (runs["r1"]["status"], len(runs["r1"]["metrics"])) == ("FINISHED", 2)
    assert MlflowException in load_tracker("mlflow").failures()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    load_tracker("mlflow").begin(how(tmp_path))
    assert "http://127.0.0.1:9" in FakeMlflow.stores


def test_trackio_stays_on_this_machine_and_goes_on_under_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[dict[str, Any]] = []

    def init(project: str, name: str, config: Any, resume: str, embed: bool = True) -> Any:
        begun.append({"project": project, "name": name, "config": config, "resume": resume, "embed": embed})
        return SimpleNamespace(log=lambda values, step: logged.append((values, step)))

    logged: list[tuple[dict[str, float], int]] = []
    fake(monkeypatch, "trackio", init=init, finish=lambda: logged.append(({}, -1)))
    tracker = load_tracker("trackio").begin(how(tmp_path))
    tracker.numbers({"train/loss": 1.5}, 7)
    tracker.end(True)
    assert logged == [({"train/loss": 1.5}, 7), ({}, -1)]
    assert begun == [{"project": "treetune", "name": tracker.id, "config": SETTINGS, "resume": "allow",
                      "embed": False}]
    assert tracker.id.startswith("film-")
    assert load_tracker("trackio").begin(how(tmp_path)).id != tracker.id
    assert load_tracker("trackio").begin(how(tmp_path, tracker.id)).id == tracker.id
    assert {sqlite3.Error, *EXPECTED} <= set(load_tracker("trackio").failures())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in TRACKERS if name != "tensorboard"])
def test_the_library_itself_takes_a_run_twice(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed: pip install 'treetune[{name}]'")
    for variable in ("WANDB_MODE", "MLFLOW_TRACKING_URI", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
        monkeypatch.delenv(variable, raising=False)
    identity = ""
    for part in (1, 2):
        tracker = load_tracker(name).begin(how(tmp_path, identity, kept_steps=part - 1))
        tracker.numbers({"train/loss": 1.0 / part}, part)
        tracker.end(part == 2)
        assert identity in ("", tracker.id)
        identity = tracker.id
    assert issubclass(load_tracker(name).failures()[-1], Exception)
    print(name, importlib.metadata.version(name) if name != "mlflow" else "", identity)
    if name == "mlflow":
        from mlflow.tracking import MlflowClient

        client = MlflowClient(f"sqlite:///{tmp_path / 'trackers' / 'mlflow.db'}")
        assert [each.value for each in client.get_metric_history(identity, "train/loss")] == [1.0, 0.5]
        assert client.get_run(identity).info.status == "FINISHED"
        assert client.get_run(identity).data.params["task"] == "sentiment"
    if name == "wandb":
        assert list((tmp_path / "trackers" / "wandb").glob(f"offline-run-*-{identity}"))
