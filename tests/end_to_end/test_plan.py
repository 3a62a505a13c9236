"""Plan before, account after: the verb, a run's account, its budgets, and what a second plan learns from it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from treetune.core.errors import UsageError
from treetune.core.files import read_json, write_json
from treetune.core.settings import TuneSettings
from treetune.data.sample import sample_path
from treetune.plan.memory import Memory
from treetune.workflow.log import read_events
from treetune.workflow.plan import Question, Shape, plan_question, shape_for

Cli = Callable[..., Any]
Words = Callable[..., list[str]]


@pytest.fixture(scope="module")
def tuned(tune_words: Words, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 24 steps: long enough for its probe."""
    from treetune.cli.app import run

    folder = tmp_path_factory.mktemp("planned") / "run"
    assert run(tune_words("sentiment", folder, max_steps=24, eval_steps=12), False, False) == 0
    return folder


def plan_words(words: list[str], *more: str) -> list[str]:
    return ["plan", *words[1:], *more, "--json"]


def test_an_account_holds_plan_probe_and_what_happened(tuned: Path) -> None:
    account = read_json(tuned / "account.json")
    actual = account["actual"]
    facts = read_json(tuned / "model" / "treetune.json")
    assert account["finished"]
    assert account["attempts"] == 1
    assert actual["steps"] == facts["steps"] == 24
    assert actual["tokens"] == facts["computed_tokens"]
    assert actual["row_tokens"] == facts["row_tokens"]
    assert actual["saved_tokens"] == actual["row_tokens"] - actual["tokens"] > 0
    assert actual["step_seconds"] <= actual["seconds"]
    assert actual["step_seconds"] == pytest.approx(facts["seconds"], rel=0.5)
    assert actual["peak_bytes"] > 1e8
    assert actual["energy"]["source"] in ("rapl", "nvml", "rapl+nvml", "estimate")
    assert account["probe"]["steps"] == 20
    assert 0 < account["probe"]["unknown_share"] < 1
    assert account["planned"]["tokens"] == pytest.approx(actual["tokens"], rel=0.05)
    told = [event["event"] for event in read_events(tuned / "metrics.jsonl")]
    assert told.index("plan") < told.index("step") < told.index("probe") < told.index("account")


def test_the_report_holds_plan_against_actual(tuned: Path) -> None:
    page = (tuned / "report.html").read_text("utf-8")
    assert 'id="account"' in page
    assert "Plan against actual" in page
    assert "sharing saved" in page


def test_the_same_run_is_planned_without_torch_and_learns_from_the_past(
    tuned: Path, cli: Cli, tune_words: Words, tmp_path: Path
) -> None:
    words = plan_words(tune_words("sentiment", tmp_path / "other", max_steps=24, eval_steps=12))
    first = cli(*words)
    assert first.code == 0, first.err
    found = first.json
    account = read_json(tuned / "account.json")
    assert found["tokens"]["tokens"] == account["planned"]["tokens"]
    assert found["memory"]["peak"] == account["planned"]["peak_bytes"]
    assert found["unknown_share"] == 1.0
    assert not (tmp_path / "other").exists()
    taught = cli(*words, "--runs", tuned.parent).json
    assert taught["lesson"]["runs"] == 1
    assert taught["time"]["how"] == "past runs"
    factor = account["actual"]["seconds"] / account["planned"]["seconds"]["expected"]
    assert taught["lesson"]["time"]["expected"] == pytest.approx(factor)


def test_a_plan_loads_no_torch(tune_words: Words, tmp_path: Path) -> None:
    words = plan_words(tune_words("sentiment", tmp_path / "run"))
    code = ("import sys; from treetune.cli.app import run; code = run(sys.argv[1:], True, False); "
            "sys.exit(code or ('torch' in sys.modules or 'transformers' in sys.modules) * 9)")
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"]["kind"] == "gpt3"


def test_a_preset_a_model_by_hand_and_a_page(cli: Cli) -> None:
    found = cli("plan", "--preset", "gpt3-175b", "--json").json
    assert found["paper"]["flops"] == 3.14e23
    assert found["flops"]["paper"] == pytest.approx(3.14e23, rel=0.005)
    assert not found["fits"]
    hand = cli("plan", "--layers", "4", "--width", "128", "--heads", "4", "--vocabulary", "1000", "--rows", "500",
               "--json").json
    assert hand["assumed"] == ["length", "labels"]
    assert hand["fits"]
    page = cli("plan", "--preset", "gpt3-xl")
    assert page.code == 0
    assert "24 x 128 = 3072 != 2048" in page.out
    assert "27.5 PF-days" in page.out
    assert cli("plan", "--layers", "4").code == 2
    assert "E2062" in cli("plan", "--layers", "4").err


def test_what_does_not_fit_is_told_with_what_would(cli: Cli) -> None:
    found = cli("plan", "--layers", "24", "--width", "2048", "--heads", "16", "--vocabulary", "50000", "--length",
                "1024", "--per-device-train-batch-size", "64", "--max-tokens-per-pass", "65536", "--device", "t4",
                "--json").json
    assert not found["fits"]
    assert found["changes"]
    assert all(change["peak"]["expected"] <= 16e9 for change in found["changes"])


@pytest.mark.parametrize(("flag", "value", "code"), [("max_time", "1s", "E2056"), ("max_time", "soon", "E2055"),
                                                     ("max_cost", "3", "E2057"), ("grid", "atlantis", "E2053")])
def test_a_run_over_its_budget_is_refused_before_it_starts(
    flag: str, value: str, code: str, cli: Cli, tune_words: Words, tmp_path: Path
) -> None:
    said = cli(*tune_words("sentiment", tmp_path / "run", **{flag: value}))
    assert said.code == 2
    assert code in said.err
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_budget_that_is_reached_stops_the_run_and_a_larger_one_lets_it_go_on(
    cli: Cli, tune_words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from treetune.workflow import account

    folder = tmp_path / "run"
    usual = account.Account.used

    def dear(self: account.Account) -> dict[str, float]:
        """As if every step took an hour."""
        found = usual(self)
        return {**found, "max_time": found["max_time"] + 3600.0 * self.steps}

    with monkeypatch.context() as patch:
        patch.setattr(account.Account, "used", dear)
        stopped = cli(*tune_words("sentiment", folder, max_steps=8, max_time="3h"))
    assert stopped.code == 75, stopped.err
    assert "E4011" in stopped.err
    before = read_json(folder / "account.json")
    assert not before["finished"]
    assert 3 <= before["actual"]["steps"] <= 4
    assert cli(*tune_words("sentiment", folder, max_steps=8, max_time="3h")).code == 2  # used up: E2058
    write_json(folder / "account.json", {**before, "used": {**before["used"], "max_time": 60.0}})
    assert cli(*tune_words("sentiment", folder, max_steps=8, max_time="9h")).code == 0
    after = read_json(folder / "account.json")
    assert after["finished"]
    assert after["attempts"] == 2
    assert after["actual"]["steps"] == 8
    assert after["actual"]["seconds"] > 60


def test_memory_shapes_the_passes_and_leaves_the_steps(tiny: Path) -> None:
    def planned(gigabytes: float) -> Shape:
        settings = TuneSettings(
            task="sentiment", model=str(tiny), data=str(sample_path("sentiment", "train")), output_dir="unused",
            per_device_train_batch_size=64, max_tokens_per_pass=100_000, max_memory_gb=gigabytes)
        plan, _ = plan_question(settings, Question({}))
        known.append(plan.estimate.memory)
        return shape_for(plan, settings)

    known: list[Memory] = []
    assert planned(0.0) == Shape(64, 100_000, False)
    [memory] = known
    least = memory.parts["process"] + memory.parts["data"] + 4 * memory.parts["weights"]
    shaped = planned((0.4 * memory.peak.expected + 0.6 * least) / 1e9)
    assert shaped.changed
    assert shaped.rows_per_pass < 64 or shaped.checkpointing
    with pytest.raises(UsageError, match="E2060"):
        planned(0.2)


def test_a_probe_measures_the_first_steps(cli: Cli, tune_words: Words, tmp_path: Path) -> None:
    words = tune_words("sentiment", tmp_path / "run", max_steps=60)
    found = cli(*plan_words(words, "--probe")).json
    assert found["probe"]["steps"] == 20
    assert found["time"]["how"] == "probe"
    assert found["time"]["total"]["expected"] > found["probe"]["seconds"] * 0.5
    assert 0 < found["unknown_share"] < 1
    assert not (tmp_path / "run").exists()
    assert cli("plan", "--probe").code == 2


def test_a_learning_curve_advises(cli: Cli, tune_words: Words, tmp_path: Path) -> None:
    words = tune_words("sentiment", tmp_path / "run", max_steps=2)
    found = cli(*plan_words(words, "--learning-curve")).json
    assert len(found["points"]) >= 3
    assert found["metric"] == "accuracy"
    rows = len(sample_path("sentiment", "train").read_text("utf-8").splitlines())
    assert found["points"][-1]["rows"] <= rows
    assert found["ahead"][0]["rows"] == 2 * found["points"][-1]["rows"]
    assert found["ahead"][0]["score"]["low"] <= found["ahead"][0]["score"]["expected"]
    assert "rows" in found["advice"]
