"""Scores that cost more than the answer: tried when the gate is set, made again by predict, never a verdict."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import treetune
from treetune.core.errors import UsageError
from treetune.core.files import RunFolder, read_json
from treetune.data.sample import sample_path
from treetune.decide.scores import Candidate, ScoreChoice

LOOSE = {"max_error": 0.9, "confidence": 0.8}


def answers(cli: Callable[..., Any], run: Path, rows: Path, *words: object) -> list[dict[str, Any]]:
    result = cli("predict", run, "--data", rows, *words)
    assert result.code == 0, result.err
    return [json.loads(line) for line in result.out.splitlines()]


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """(name of a score) -> the tune rows choose it: rows enough to really do so would take minutes."""

    def choose(name: str) -> None:
        monkeypatch.setattr("treetune.decide.gate.choose_score",
                            lambda *given: (ScoreChoice(name), [Candidate(name, 0.5, None, None)]))

    return choose


@pytest.fixture
def summaries(runs: Callable[[str], Path], tmp_path: Path) -> Path:
    return shutil.copytree(runs("summarization"), tmp_path / "summarization")


@pytest.fixture
def few(rows_file: Callable[[str, int], Path]) -> Path:
    return rows_file("summarization", 6)


@pytest.fixture
def questions(
    runs: Callable[[str], Path], tmp_path: Path, cli: Callable[..., Any], rows_file: Callable[[str, int], Path]
) -> tuple[Path, Path]:
    """A run, and rows to which what it says is right, so that a gate accepts something."""
    run, rows = runs("question_answering"), rows_file("question_answering", 40)
    said = answers(cli, run, rows)
    path = tmp_path / "right.jsonl"
    lines = [{**{name: value for name, value in json.loads(line).items() if name != "answer_start"},
              "answers": [own["answer"]]}
             for line, own in zip(rows.read_text("utf-8").splitlines(), said, strict=True)]
    path.write_text("".join(json.dumps(each) + "\n" for each in lines), "utf-8")
    return shutil.copytree(run, tmp_path / "questions"), path


def test_agreement_is_tried_told_and_left_out_where_the_plain_score_stays(
    summaries: Path, few: Path, cli: Callable[..., Any]
) -> None:
    said = cli("gate", summaries, "--data", few, "--wrong", "rougeL<0.01", "--max-error", "0.9",
               "--confidence", "0.3", "--agreement", "2", "--agreement-temperature", "0.8", "--agreement-seed", "5")
    assert said.code in (0, 4), said.err
    assert "agreement:" in said.err
    assert "times what their answers took; the gate's score does without it" in said.err
    record = read_json(RunFolder(summaries).gate)
    kept = record["evidence"]["agreement"]
    assert {name: kept[name] for name in ("samples", "temperature", "seed", "measure", "used")} == {
        "samples": 2, "temperature": 0.8, "seed": 5, "measure": "rougeL", "used": False}
    assert "agreement" not in record["scope"]
    assert all("agreement" not in each["scores"] for each in answers(cli, summaries, few))


def test_predict_draws_again_what_its_gate_needs(
    questions: tuple[Path, Path], cli: Callable[..., Any], chosen: Callable[[str], None]
) -> None:
    run, rows = questions
    chosen("agreement")
    record = treetune.gate(str(run), str(rows), agreement=3, agreement_seed=3, **LOOSE)
    assert record["evidence"]["agreement"]["used"]
    assert record["evidence"]["agreement"]["measure"] == "f1"
    assert "agreement" in record["scope"]
    found = answers(cli, run, rows)
    again = answers(cli, run, rows, "--block-rows", "5", "--no-record")
    told = [each["scores"]["agreement"] for each in found]
    assert told == [each["scores"]["agreement"] for each in again]
    assert len(set(told)) > 1
    for each in found:
        assert 0 <= each["scores"]["agreement"] <= 1
        assert each["decision"]["valid"]
        if each["finished"]:
            assert each["decision"]["score"] == pytest.approx(each["scores"]["agreement"], abs=1e-6)
    assert {each["decision"]["verdict"] for each in found} >= {"accept"}
    asked = [json.loads(line) for line in rows.read_text("utf-8").splitlines()]
    decided = treetune.load(str(run)).decide(
        [{name: each[name] for name in ("context", "question")} for each in asked])
    assert [each.scores["agreement"] for each in decided] == pytest.approx(told, abs=1e-6)


def test_no_answer_is_drawn_where_none_is_written(runs: Callable[[str], Path]) -> None:
    with pytest.raises(UsageError) as caught:
        treetune.gate(str(runs("sentiment")), str(sample_path("sentiment", "test")), agreement=3, **LOOSE)
    assert caught.value.code == "E2511"
    with pytest.raises(UsageError) as caught:
        treetune.gate(str(runs("sentiment")), str(sample_path("sentiment", "test")), agreements=3, **LOOSE)
    assert caught.value.code == "E2003"


def test_a_gate_that_is_void_by_its_engine_draws_nothing(
    summaries: Path, few: Path, chosen: Callable[[str], None]
) -> None:
    from treetune.workflow.evidence import scope_now
    from treetune.workflow.run import open_run

    chosen("agreement")
    treetune.gate(str(summaries), str(few), wrong="rougeL<0.01", agreement=2, **LOOSE)
    run = open_run(summaries)
    assert [each.name for each in scope_now(run)[1].sources] == ["agreement"]
    scope, evidence = scope_now(run, "another")
    assert (scope["engine"], evidence.sources) == ("another", ())
