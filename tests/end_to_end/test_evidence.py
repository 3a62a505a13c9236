"""Scores that cost more than the answer: tried when the gate is set, made again by predict, never a verdict."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import treetune
from treetune.core.errors import RunError, UsageError
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


def test_distances_are_kept_by_digest_and_their_loss_or_change_is_said(
    runs: Callable[[str], Path], tmp_path: Path, cli: Callable[..., Any], chosen: Callable[[str], None],
    rows_file: Callable[[str, int], Path]
) -> None:
    run, rows = shutil.copytree(runs("sentiment"), tmp_path / "labels"), rows_file("sentiment", 6)
    chosen("near_training")
    record = treetune.gate(str(run), str(sample_path("sentiment", "test")), distance=True, **LOOSE)
    kept = record["evidence"]["near_training"]
    assert (kept["position"], kept["background"], kept["width"]) == (
        "last prompt token", "training rows of all labels", 32)
    assert kept["rows_of_training"] == kept["rows_of_background"] > 100
    found = answers(cli, run, rows)
    assert len({each["scores"]["near_training"] for each in found}) > 3
    assert all(each["decision"]["valid"] for each in found)
    assert [each["decision"]["score"] for each in found] == pytest.approx(
        [each["scores"]["near_training"] for each in found], abs=1e-5)
    file = RunFolder(run).trust / kept["file"]
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    for each in answers(cli, run, rows):
        assert (each["decision"]["verdict"], each["decision"]["reasons"][0]["code"]) == ("review", "void")
        assert "the file of distances" in each["decision"]["reasons"][0]["text"]
    file.unlink()
    assert "E5510" in cli("predict", run, "--data", rows).err
    config = RunFolder(run).config
    config.write_text(config.read_text("utf-8").replace("train.jsonl", "gone.jsonl"), "utf-8")
    with pytest.raises(RunError) as caught:
        treetune.gate(str(run), str(sample_path("sentiment", "test")), distance=True, **LOOSE)
    assert caught.value.code == "E5511"


@pytest.fixture(scope="module")
def judges(
    family_config: Callable[..., Any], family_tokenizer: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Random models that judge pairs of texts."""
    import torch
    import transformers

    made = {}
    for name, labels in (("entailment", ["entailment", "neutral", "contradiction"]), ("quality", ["quality"])):
        tokenizer, config = family_tokenizer("roberta"), family_config("roberta")
        config.vocab_size, config.id2label = len(tokenizer), dict(enumerate(labels))
        config.label2id = {label: place for place, label in enumerate(labels)}
        torch.manual_seed(0)
        made[name] = tmp_path_factory.mktemp("judges") / name
        transformers.RobertaForSequenceClassification(config).save_pretrained(made[name])
        tokenizer.save_pretrained(made[name])
    return made


def test_numbers_of_the_user_s_models_stand_beside_every_answer_and_decide_nothing(
    questions: tuple[Path, Path], cli: Callable[..., Any], judges: dict[str, Path], tmp_path: Path
) -> None:
    run, rows = questions
    plain = treetune.gate(str(run), str(rows), **LOOSE)
    before = answers(cli, run, rows, "--no-record")
    model = shutil.copytree(judges["quality"], tmp_path / "judge")
    record = treetune.gate(str(run), str(rows), quality_model=str(model), **LOOSE)
    assert not record["evidence"]["quality"]["used"]
    assert record["threshold"] == plain["threshold"]
    assert record["evidence"]["quality"]["path"] == "../judge"
    found = answers(cli, run, rows, "--no-record")
    assert [each["decision"]["verdict"] for each in found] == [each["decision"]["verdict"] for each in before]
    limit = record["evidence"]["quality"]["limit"]
    low = [each for each in found if each["scores"]["quality"] < limit - 1e-6]
    for each in found:
        flags = [flag for flag in each["decision"]["flags"] if flag["code"] == "quality"]
        assert bool(flags) == (each in low)
        assert all((flag["limit"], flag["evidence"]) == (limit, each["answer"]) for flag in flags)
    config = model / "config.json"
    config.write_text(config.read_text("utf-8") + " ", "utf-8")
    for each in answers(cli, run, rows, "--no-record"):
        assert not each["decision"]["valid"]
        assert "the quality model" in each["decision"]["reasons"][0]["text"]
    model.rename(tmp_path / "elsewhere")
    assert "E5509" in cli("predict", run, "--data", rows).err


def test_entailment_is_for_summaries(
    summaries: Path, few: Path, cli: Callable[..., Any], judges: dict[str, Path], runs: Callable[[str], Path]
) -> None:
    said = cli("gate", summaries, "--data", few, "--wrong", "rougeL<0.01", "--max-error", "0.9", "--confidence", "0.3",
               "--entailment-model", judges["entailment"], "--distance")
    assert said.code in (0, 4), said.err
    assert "entailment:" in said.err
    record = read_json(RunFolder(summaries).gate)
    assert set(record["evidence"]) == {"near_training", "entailment"}
    assert record["evidence"]["near_training"]["background"] == "packaged rows of every task"
    assert "near_training" not in record["scope"]
    for each in answers(cli, summaries, few):
        assert 0 <= each["scores"]["entailment"] <= 1
    refused = cli("gate", runs("translation"), "--data", sample_path("translation", "test"), "--wrong", "chrf<40",
                  "--entailment-model", judges["entailment"])
    assert "E2513" in refused.err
    assert "another language" in refused.err
    assert "E2514" in cli("gate", runs("sentiment"), "--data", sample_path("sentiment", "test"), "--quality-model",
                          judges["quality"]).err
