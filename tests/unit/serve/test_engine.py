"""`treetune predict --engine http://…/v1` against our own server: the same answers, both decisions, keys."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from treetune.cli.app import run
from treetune.data.sample import sample_path
from treetune.predict.engines.openai_http import KEY as KEY_NAME
from treetune.verbs import gate, predict
from treetune.workflow.engines import open_engine

KEY = "a-key-of-forty-characters-for-the-tests!"


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy stands between the test and its server."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def rows_of(task: str, path: Path, count: int) -> Path:
    """Rows with the columns that OpenAI's routes have a place for."""
    columns = {"sentiment": ("text",), "question_answering": ("context", "question"), "translation": ("source",)}[task]
    lines = sample_path(task, "test").read_text("utf-8").splitlines()[:count]
    path.write_text("".join(json.dumps({name: json.loads(line)[name] for name in columns}, ensure_ascii=False) + "\n"
                            for line in lines), "utf-8")
    return path


@pytest.mark.parametrize("task", ["sentiment", "question_answering", "translation"])
def test_a_server_of_the_run_answers_as_the_run_does(
    task: str, live: Callable[..., Any], made_runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, rows = str(made_runs[task]), str(rows_of(task, tmp_path / "rows.jsonl", 20))
    address = live({"own": made_runs[task]}).address + "/v1"
    ours = predict(folder, rows)
    capsys.readouterr()
    code = run(["predict", folder, "--data", rows, "--output", str(tmp_path / "a.jsonl"), "--engine", address,
                "--parity-rows", "20", "--min-equal", "1", "--block-rows", "6"], False, False)
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "100.0% of 20 answers equal those of the run's own engine" in said.err
    theirs = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text("utf-8").splitlines()]
    assert [(each["row"], each["answer"]) for each in theirs] == [(each.row, each.answer) for each in ours]
    for one, two in zip(ours, theirs, strict=True):
        assert two["scores"]["probability"] == pytest.approx(one.scores["probability"], abs=2e-6)
        assert two["decision"]["verdict"] == one.decision.verdict == "ungated"
    record = json.loads((tmp_path / "a.jsonl.manifest.json").read_text("utf-8"))
    assert record["parity"]["equal_answers"] == 1.0
    assert record["binding"]["engine"].startswith("openai treetune ")


def test_a_gate_is_void_on_another_engine_until_it_is_set_on_it(
    live: Callable[..., Any], made_runs: dict[str, Path], tmp_path: Path
) -> None:
    copied = shutil.copytree(made_runs["sentiment"], tmp_path / "run")
    address = live({"own": made_runs["sentiment"]}).address + "/v1"  # a copy without a gate answers everything
    rows = rows_of("sentiment", tmp_path / "rows.jsonl", 12)
    promise = {"max_error": 0.95, "confidence": 0.2}
    gate(str(copied), str(sample_path("sentiment", "test")), **promise)
    assert "accept" in {each.decision.verdict for each in predict(str(copied), str(rows), record=False)}
    for each in predict(str(copied), str(rows), engine=address, record=False):
        assert (each.decision.verdict, each.decision.valid) == ("review", False)
        assert "the engine (openai treetune " in each.decision.reasons[0].text
        assert "the gate was set for something else (the engine" in each.decision.guarantee
    record = gate(str(copied), str(sample_path("sentiment", "test")), engine=address, **promise)
    assert record["scope"]["engine"].startswith("openai treetune ")
    assert "accept" in {each.decision.verdict for each in predict(str(copied), str(rows), engine=address, record=False)}
    for each in predict(str(copied), str(rows), record=False):
        assert "the engine (transformers)" in each.decision.reasons[0].text


def test_what_the_server_keeps_back_is_a_review_with_its_reasons(
    live: Callable[..., Any], made_runs: dict[str, Path], gated_run: Callable[[str], Path], tmp_path: Path
) -> None:
    from treetune.core.errors import UsageError

    address = live({"own": gated_run("holds")}).address + "/v1"
    rows = rows_of("sentiment", tmp_path / "rows.jsonl", 3)
    found = predict(str(made_runs["sentiment"]), str(rows), engine=address)
    for each in found:
        assert each.answer == ""
        assert each.decision.verdict == "review"
        assert [reason.code for reason in each.decision.reasons][:2] == ["kept_back", "nothing_accepted"]
    with pytest.raises(UsageError, match="E2042"):
        gate(str(shutil.copytree(made_runs["sentiment"], tmp_path / "run")), str(sample_path("sentiment", "test")),
             engine=address)


def test_a_key_is_read_from_the_environment(
    live: Callable[..., Any], made_runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], tmp_path: Path,
) -> None:
    address = live({"own": made_runs["sentiment"]}, KEY).address + "/v1"
    words = ["predict", str(made_runs["sentiment"]), "--data", str(rows_of("sentiment", tmp_path / "rows.jsonl", 2)),
             "--engine", address]
    capsys.readouterr()
    assert run(words, False, False) == 2
    assert "E3106" in (said := capsys.readouterr().err)
    assert KEY_NAME in said
    monkeypatch.setenv(KEY_NAME, KEY)
    assert run(words, False, False) == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 2
    assert KEY not in said.out + said.err


def test_the_run_s_own_model_is_let_go_where_a_server_answers(
    live: Callable[..., Any], made_runs: dict[str, Path]
) -> None:
    opened = open_engine(made_runs["sentiment"], live({"own": made_runs["sentiment"]}).address + "/v1")
    assert opened.run.loaded.model is None
    assert opened.scope["engine"] == opened.engine.identity
    assert opened.scope["weights"]
