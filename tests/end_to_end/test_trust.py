"""Under a gate: decisions are logged, drift voids it, people review, and what they said becomes calibration rows."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import treetune
from treetune.core.files import RunFolder, read_json
from treetune.data.sample import sample_path


@pytest.fixture(scope="module")
def gated(runs: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trusted") / "sentiment"
    shutil.copytree(runs("sentiment"), folder)
    treetune.gate(str(folder), str(sample_path("sentiment", "test")), max_error=0.9, confidence=0.8)
    return folder


@pytest.fixture
def copied(gated: Path, tmp_path: Path) -> Path:
    return shutil.copytree(gated, tmp_path / "run")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_every_decision_is_logged_without_text_and_the_log_can_be_verified(
    copied: Path, cli: Callable[..., Any], rows_file: Callable[[str, int], Path]
) -> None:
    rows, log = rows_file("sentiment", 12), RunFolder(copied).trust / "audit_log.jsonl"
    assert cli("predict", copied, "--data", rows, "--no-record").code == 0
    assert not log.exists()
    said = [json.loads(line)["decision"] for line in cli("predict", copied, "--data", rows).out.splitlines()]
    assert [record["verdict"] for record in lines(log)] == [each["verdict"] for each in said]
    text = json.loads(rows.read_text("utf-8").splitlines()[0])["text"]
    assert text not in log.read_text("utf-8")
    assert cli("predict", copied, "--data", rows, "--log-text").code == 0
    assert lines(log)[12]["text"]["source"] == text.strip()
    result = cli("audit-log", "verify", copied)
    assert (result.code, "intact: 24 records" in result.out) == (0, True)
    log.write_text(log.read_text("utf-8").replace('"accept"', '"review"', 1), "utf-8")
    result = cli("audit-log", "verify", copied, "--json")
    assert (result.code, bool(result.json["fault"])) == (1, True)
    assert cli("audit-log", "burn", copied).code == 2


def test_rows_of_another_kind_void_the_gate_until_it_is_set_again(
    copied: Path, cli: Callable[..., Any], tmp_path: Path, rows_file: Callable[[str, int], Path]
) -> None:
    assert cli("gate", copied, "--drift").code == 0
    strange = tmp_path / "strange.jsonl"
    strange.write_text("".join(json.dumps({"text": f"@@## {n:05d} ~~ $$ {n * 7919} ^^ && {n * 31} zzqq"}) + "\n"
                               for n in range(60)), "utf-8")
    found = [json.loads(line)["decision"] for line in cli("predict", copied, "--data", strange).out.splitlines()]
    assert {each["verdict"] for each in found} == {"review"}
    assert all(each["reasons"][0]["code"] == "void" and "drift" in each["reasons"][0]["text"] for each in found)
    state = cli("gate", copied, "--drift", "--json")
    assert (state.code, state.json["alarm"]) == (4, True)
    again = cli("predict", copied, "--data", rows_file("sentiment", 5))  # also ordinary rows, in another process
    assert not any(json.loads(line)["decision"]["valid"] for line in again.out.splitlines())
    loose = ("--max-error", "0.9", "--confidence", "0.8")
    assert cli("gate", copied, "--data", sample_path("sentiment", "test"), *loose).code == 0
    assert cli("gate", copied, "--drift").code == 4  # the same rows again say nothing new
    known = strange.with_name("known.jsonl")
    extra = strange.read_text("utf-8").splitlines()
    known.write_text(sample_path("sentiment", "test").read_text("utf-8") + "".join(
        json.dumps({**json.loads(line), "label": "positive"}) + "\n" for line in extra),
        "utf-8")
    assert cli("gate", copied, "--data", known, *loose).code == 0
    assert cli("gate", copied, "--drift").code == 0


def test_asking_the_same_rows_again_is_not_counted_twice(
    copied: Path, cli: Callable[..., Any], rows_file: Callable[[str, int], Path]
) -> None:
    rows = rows_file("sentiment", 8)
    for _ in range(2):
        cli("predict", copied, "--data", rows)
    assert cli("gate", copied, "--drift", "--json").json["rows"] == 8


def review(monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Any], run: Path, typed: str) -> Any:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    return cli("review", run, "--reviewer", "anna")


def test_people_review_stop_go_on_and_their_words_calibrate(
    copied: Path, cli: Callable[..., Any], rows_file: Callable[[str, int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from treetune.workflow.decider import Decider, Recording
    from treetune.workflow.evaluate import answer
    from treetune.workflow.gather import read_for, to_examples
    from treetune.workflow.run import open_run

    run = open_run(copied)
    result = read_for(run.task, str(rows_file("sentiment", 12)), "test", {}, with_answer=False)
    gathered = to_examples(run.task, result, run.options, None, 0.0, with_answer=False)
    Decider(run, Recording(audit_share=1.0)).decide(answer(run, run.loaded, gathered.examples), gathered.examples,
                                                    gathered.rows)
    waiting = [json.loads(line) for line in cli("review", copied, "--json").out.splitlines()]
    assert len(waiting) == 12
    assert all("label" not in each["row"] for each in waiting)
    other = next(label for label in run.options.labels if label != waiting[1]["answer"])
    result = review(monkeypatch, cli, copied, f"a\nc\nwonderful\n?\nc\n{other}\ns\nq\n")
    assert result.code == 0
    assert "E1" in result.out  # "wonderful" is no label, said before it is asked again
    assert "2 written down, 1 skipped" in result.out
    assert len(cli("review", copied, "--json").out.splitlines()) == 10
    review(monkeypatch, cli, copied, "a\n" * 20)
    outcomes = lines(RunFolder(copied).trust / "reviews.jsonl")
    assert [each["outcome"] for each in outcomes[:2]] == ["accepted", "corrected"]
    assert [each["wrong"] for each in outcomes[:2]] == [False, True]
    assert outcomes[1]["row"]["label"] == other
    record = treetune.gate(str(copied), "", max_error=0.9, confidence=0.8, with_reviews=True)
    assert record["reviews"] == {"sample": record["left_out"][0]["used"], "others": 0, "waiting": 0}


def test_reviewed_rows_that_were_not_drawn_by_lot_only_tune(
    copied: Path, cli: Callable[..., Any], rows_file: Callable[[str, int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("gate", copied, "--with-reviews").code == 2  # nothing reviewed, no data
    trust = RunFolder(copied).trust
    row = {"text": "A quite new sentence about a film nobody saw.", "label": "positive"}
    trust.mkdir(exist_ok=True)
    (trust / "reviews.jsonl").write_text(json.dumps({
        "key": "k", "gate": "g", "audited": False, "verdict": "review", "wrong": False, "row": row}) + "\n", "utf-8")
    before = read_json(RunFolder(copied).gate)["rows"]
    record = treetune.gate(str(copied), str(sample_path("sentiment", "test")), max_error=0.9, confidence=0.8,
                           with_reviews=True)
    assert record["rows"]["tune"] == before["tune"] + 1
    assert record["rows"]["calibration"] == before["calibration"]


def test_without_a_gate_nothing_is_promised_and_nothing_recorded(
    runs: Callable[[str], Path], cli: Callable[..., Any], rows_file: Callable[[str, int], Path]
) -> None:
    run = runs("summarization")
    [line] = cli("predict", run, "--data", rows_file("summarization", 1)).out.splitlines()
    decision = json.loads(line)["decision"]
    assert (decision["verdict"], decision["valid"]) == ("ungated", False)
    assert decision["guarantee"].startswith("No guarantee")
    assert not (RunFolder(run).trust / "audit_log.jsonl").exists()
    assert cli("review", run).code == 2
    assert cli("gate", run, "--drift").code == 2
    assert cli("gate", run).code == 2


def test_the_bound_by_group_is_reported(copied: Path, cli: Callable[..., Any], tmp_path: Path) -> None:
    rows = [{**json.loads(line), "region": "north" if n % 2 else "south"}
            for n, line in enumerate(sample_path("sentiment", "test").read_text("utf-8").splitlines())]
    path = tmp_path / "grouped.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    result = cli("gate", copied, "--data", path, "--by", "region", "--max-error", "0.9", "--confidence", "0.8",
                 "--json")
    assert set(result.json["by"]["groups"]) == {"north", "south"}
    page = RunFolder(copied).report.read_text("utf-8")
    assert "The bound in each group of region" in page
    assert cli("gate", copied, "--data", path, "--by", "nothing").code == 2
    line = cli("predict", copied, "--data", path, "--no-record").out.splitlines()[0]
    assert json.loads(line)["decision"]["verdict"] in ("accept", "review")


def test_the_report_keeps_the_examples_of_the_evaluation(copied: Path, cli: Callable[..., Any]) -> None:
    assert cli("evaluate", copied, "--data", sample_path("sentiment", "test"), "--no-base").code == 0
    before = read_json(copied / "examples.json")
    assert before
    cli("gate", copied, "--data", sample_path("sentiment", "test"), "--max-error", "0.9", "--confidence", "0.8")
    assert read_json(copied / "examples.json") == before
    assert before[0]["input"][-40:].strip()[:20] in RunFolder(copied).report.read_text("utf-8")
