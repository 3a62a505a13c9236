"""Each task from rows to answers: tune, evaluate, predict, and what is left in the run folder."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from treetune.core.files import RunFolder
from treetune.tasks.contract import load_task

TASKS = ("translation", "summarization", "sentiment", "question_answering")
Cli = Callable[..., Any]
Words = Callable[..., list[str]]


def digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file()}


def check_score(score: dict[str, Any]) -> None:
    assert score["low"] <= score["value"] <= score["high"], score


@pytest.mark.parametrize("task", TASKS)
def test_the_run_folder_holds_a_model_that_transformers_opens(task: str, runs: Callable[[str], Path]) -> None:
    folder = RunFolder(runs(task))
    assert {path.suffix for path in folder.model.iterdir()} <= {".safetensors", ".json", ".md"}
    model = AutoModelForCausalLM.from_pretrained(folder.model)
    tokenizer = AutoTokenizer.from_pretrained(folder.model)
    with torch.no_grad():
        logits = model(**tokenizer("Hello", return_tensors="pt")).logits
    assert torch.isfinite(logits).all()
    assert folder.report.read_text("utf-8").lstrip().lower().startswith("<!doctype html")
    assert task.replace("_", " ") in folder.card.read_text("utf-8").replace("_", " ")
    facts = json.loads((folder.model / "treetune.json").read_text("utf-8"))
    assert (facts["task"], facts["steps"]) == (task, 3)
    assert [line["step"] for line in map(json.loads, folder.metrics.read_text("utf-8").splitlines())
            if line["event"] == "step"] == [1, 2, 3]


@pytest.mark.parametrize("task", TASKS)
def test_evaluation_measures_tuned_base_and_baselines(
    task: str, runs: Callable[[str], Path], cli: Cli, rows_file: Callable[[str, int], Path]
) -> None:
    said = cli("evaluate", runs(task), "--data", rows_file(task, 6), "--json")
    assert said.code == 0, said.err
    record = said.json
    definition = load_task(task)
    assert set(record["scores"]) == {"tuned", "base", *definition.BASELINES}
    for scores in record["scores"].values():
        assert [score["metric"] for score in scores] == list(definition.METRICS)
        for score in scores:
            check_score(score)
    assert set(record["comparisons"]) >= {"tuned"}
    for comparisons in record["comparisons"].values():
        for comparison in comparisons:
            check_score(comparison)
            assert 0 < comparison["p_value"] <= 1
    check_score(record["perplexity"]["interval"])
    assert record["perplexity"]["interval"]["value"] > 1
    assert record["counts"]["rows"] == 6
    folder = RunFolder(runs(task))
    assert json.loads(folder.evaluation.read_text("utf-8")) == record
    assert len(folder.predictions.read_text("utf-8").splitlines()) == 6


@pytest.mark.parametrize("task", TASKS)
def test_answers_come_one_object_a_row_in_the_order_of_the_rows(
    task: str, runs: Callable[[str], Path], cli: Cli, rows_file: Callable[[str, int], Path], tmp_path: Path
) -> None:
    data, output = rows_file(task, 5), tmp_path / "answers.jsonl"
    without = tmp_path / "without.jsonl"
    rows = [json.loads(line) for line in data.read_text("utf-8").splitlines()]
    hidden = set(load_task(task).ANSWER_COLUMNS) | {"answer_start"}
    without.write_text("".join(json.dumps({k: v for k, v in row.items() if k not in hidden}) + "\n" for row in rows))
    said = cli("predict", runs(task), "--data", without, "--output", output)
    assert said.code == 0, said.err
    answers = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    assert [answer["row"] for answer in answers] == list(range(answers[0]["row"], answers[0]["row"] + 5))
    assert [answer["id"] for answer in answers] == [str(row.get("id", answer["id"])) for row, answer
                                                    in zip(rows, answers, strict=True)]
    for answer in answers:
        assert isinstance(answer["answer"], str)
        assert 0 <= answer["scores"]["probability"] <= 1
        assert all(value <= 0 for value in answer["token_log_probs"])
    if task == "sentiment":
        assert {answer["answer"] for answer in answers} <= {"positive", "negative", "neutral"}
        for answer in answers:
            shares = [v for k, v in answer["scores"].items() if k in ("positive", "negative", "neutral")]
            assert not shares or sum(shares) == pytest.approx(1, abs=1e-5)


def test_answers_without_a_file_go_to_standard_output(
    runs: Callable[[str], Path], cli: Cli, rows_file: Callable[[str, int], Path]
) -> None:
    said = cli("predict", runs("sentiment"), "--data", rows_file("sentiment", 3))
    assert said.code == 0, said.err
    assert [json.loads(line)["row"] for line in said.out.splitlines()] == [0, 1, 2]


def test_the_same_command_again_says_complete_and_changes_nothing(
    cli: Cli, tune_words: Words, tmp_path: Path
) -> None:
    words = tune_words("sentiment", tmp_path / "run")
    assert cli(*words).code == 0
    before = digests(tmp_path / "run")
    said = cli(*words)
    assert said.code == 0
    assert "is complete; nothing to do" in said.err
    assert digests(tmp_path / "run") == before


def test_the_majority_baseline_knows_labels_by_their_standard_names(
    cli: Cli, tune_words: Words, tmp_path: Path
) -> None:
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text("text,label\n" + "".join(f"film {n},{'pos' if n % 3 else 'neg'}\n" for n in range(30)))
    test.write_text("text,label\n" + "".join(f"book {n},pos\n" for n in range(4)))
    assert cli(*tune_words("sentiment", tmp_path / "run", data=train, validation_data=test, max_steps=1)).code == 0
    said = cli("evaluate", tmp_path / "run", "--data", test, "--no-base", "--json")
    assert said.code == 0, said.err
    scores = said.json["scores"]
    assert set(scores) == {"tuned", "majority"}
    assert {score["metric"]: score["value"] for score in scores["majority"]}["accuracy"] == 1.0


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft's own
def test_adapters_answer_from_their_own_folder(
    cli: Cli, tune_words: Words, tmp_path: Path, rows_file: Callable[[str, int], Path], tiny: Path
) -> None:
    said = cli(*tune_words("sentiment", tmp_path / "run", lora_r=2), "--json")
    assert said.code == 0, said.err
    assert 0 < said.json["trained_parameters"] < said.json["parameters"] / 2
    model = RunFolder(tmp_path / "run").model
    assert (model / "adapter_model.safetensors").is_file()
    assert not (model / "model.safetensors").exists()
    written = json.loads((model / "adapter_config.json").read_text("utf-8"))["base_model_name_or_path"]
    assert not Path(written).is_absolute()  # so that both folders may move together
    assert (model / written).resolve() == tiny.resolve()
    data = rows_file("sentiment", 4)
    said = cli("predict", tmp_path / "run", "--data", data, "--output", tmp_path / "answers.jsonl")
    assert said.code == 0, said.err
    assert len((tmp_path / "answers.jsonl").read_text("utf-8").splitlines()) == 4
    assert cli("evaluate", tmp_path / "run", "--data", data, "--json").code == 0


def test_one_yaml_file_says_the_same_as_flags(cli: Cli, tune_words: Words, tmp_path: Path) -> None:
    flags = tune_words("sentiment", tmp_path / "flags", max_steps=1)
    assert cli(*flags).code == 0
    text = (tmp_path / "flags" / "config.yaml").read_text("utf-8").replace(str(tmp_path / "flags"), str(tmp_path / "b"))
    (tmp_path / "run.yaml").write_text(text, "utf-8")
    assert cli("tune", tmp_path / "run.yaml").code == 0
    first, second = (digests(tmp_path / name / "model")["model.safetensors"] for name in ("flags", "b"))
    assert first == second
