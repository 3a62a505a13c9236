"""Encoders and encoder-decoders go the same way as decoders: tune, resume, evaluate, predict, check, report."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from treetune.core.settings import TuneSettings
from treetune.data.sample import sample_path
from treetune.workflow.path import tune

PAIRS = [("bert", "sentiment", "encoder"), ("roberta", "question_answering", "encoder"),
         ("t5", "translation", "seq2seq"), ("bart", "summarization", "seq2seq"), ("marian", "translation", "seq2seq"),
         ("bart", "question_answering", "seq2seq"), ("t5", "sentiment", "seq2seq")]
PIPELINES = {("encoder", "sentiment"): "text-classification", ("encoder", "question_answering"): "question-answering"}
Folder = Callable[..., Path]
WINDOW = 256
Words = Callable[..., list[str]]


@pytest.mark.parametrize(("kind", "task", "family"), PAIRS)
def test_the_same_commands_serve_every_family(
    kind: str, task: str, family: str, family_folder: Folder, tune_words: Words, rows_file: Callable[[str, int], Path],
    cli: Callable[..., Any], tmp_path: Path,
) -> None:
    run, rows = tmp_path / "run", rows_file(task, 6)
    asked = cli(*tune_words(task, run, model=family_folder(kind, WINDOW)), "--json")
    assert asked.code == 0, asked.err
    layout = "packed" if family == "encoder" else "padded"
    assert (asked.json["family"], asked.json["steps"], asked.json["layout"]) == (family, 3, layout)
    assert cli(*tune_words(task, run, model=family_folder(kind, WINDOW)), "--json").json == asked.json
    evaluated = cli("evaluate", run, "--data", rows, "--json")
    assert evaluated.code == 0, evaluated.err
    scores = evaluated.json["scores"]
    assert {"tuned", "base"} <= set(scores)
    assert evaluated.json["counts"]["rows"] == 6
    assert evaluated.json["perplexity"]["interval"]["value"] > 1
    answered = cli("predict", run, "--data", rows)
    assert answered.code == 0, answered.err
    found = [json.loads(line) for line in answered.out.splitlines()]
    assert [each["row"] for each in found] == list(range(6))
    assert [each["answer"] for each in found] == [
        json.loads(line)["answer"] for line in (run / "predictions.jsonl").read_text("utf-8").splitlines()]
    card = (run / "README.md").read_text("utf-8")
    assert f"pipeline_tag: {PIPELINES.get((family, task), 'text2text-generation')}" in card
    assert ("encoder\\-decoder" in card or "encoder-decoder" in card) == (family == "seq2seq")
    assert "encoder" in (run / "report.html").read_text("utf-8")


@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert"])
@pytest.mark.parametrize("task", ["translation", "summarization"])
def test_a_pair_that_cannot_work_is_refused_before_any_row_or_weight_is_read(
    kind: str, task: str, family_folder: Folder, tune_words: Words, cli: Callable[..., Any], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = tune_words(task, run, model=family_folder(kind, WINDOW), data=tmp_path / "absent.csv")
    refused = cli(*words)
    assert refused.code == 2
    assert "E3010" in refused.err
    assert "encoder: question_answering, sentiment" in refused.err
    assert not run.exists()


class Stop(Exception):
    """What the test raises to cut a run off."""


@pytest.mark.parametrize(
    ("kind", "task"), [("bert", "sentiment"), ("bert", "question_answering"), ("t5", "translation")])
def test_a_resumed_run_ends_byte_equal(kind: str, task: str, family_folder: Folder, tmp_path: Path) -> None:
    def settings(name: str) -> TuneSettings:
        return TuneSettings(task=task, model=str(family_folder(kind, WINDOW)), data=str(sample_path(task, "train")),
                            validation_data=str(sample_path(task, "validation")), output_dir=str(tmp_path / name),
                            max_steps=4, save_steps=2, per_device_train_batch_size=4, learning_rate=1e-3)

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "checkpoint" and event["step"] == 2:
            raise Stop

    tune(settings("whole"), lambda event: None)
    with pytest.raises(Stop):
        tune(settings("cut"), stop)
    tune(settings("cut"), lambda event: None)
    whole, cut = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "cut"))
    assert whole == cut


def test_tuning_moves_the_body_as_well_as_the_head(family_folder: Folder, tmp_path: Path) -> None:
    settings = TuneSettings(
        task="sentiment", model=str(family_folder("bert", WINDOW)), data=str(sample_path("sentiment", "train")),
        validation_data=str(sample_path("sentiment", "validation")), output_dir=str(tmp_path / "r"), max_steps=2,
        per_device_train_batch_size=4, learning_rate=1e-3)
    tune(settings, lambda event: None)
    before = load_file(family_folder("bert", WINDOW) / "model.safetensors")
    after = load_file(tmp_path / "r" / "model" / "model.safetensors")
    name = "bert.encoder.layer.0.attention.self.query.weight"
    assert not before[name].equal(after[name])
    assert after["classifier.weight"].shape == (3, 32)


def test_lora_trains_adapters_and_the_new_head_only(
    family_folder: Folder, tune_words: Words, rows_file: Callable[[str, int], Path], cli: Callable[..., Any],
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    asked = cli(*tune_words("sentiment", run, model=family_folder("bert", WINDOW), lora_r=2), "--json")
    assert asked.code == 0, asked.err
    assert 0 < asked.json["trained_parameters"] < asked.json["parameters"] / 2
    answered = cli("predict", run, "--data", rows_file("sentiment", 4))
    assert answered.code == 0, answered.err
    evaluated = cli("evaluate", run, "--data", rows_file("sentiment", 4), "--no-base", "--json")
    assert evaluated.json["scores"]["tuned"][0]["count"] == 4


def test_an_encoder_shows_the_words_behind_its_masks(
    family_folder: Folder, tune_words: Words, cli: Callable[..., Any], tmp_path: Path
) -> None:
    shown = cli("predict", family_folder("bert", WINDOW), "--next", "The film was <mask>.", "--json")
    assert shown.code == 0, shown.err
    assert len(shown.json["masks"][0]) == 10
    assert cli("predict", family_folder("bert", WINDOW), "--next", "The film").code == 2
    refused = cli("predict", family_folder("t5", WINDOW), "--next", "The film")
    assert (refused.code, "E3011" in refused.err) == (2, True)
    run = tmp_path / "run"
    assert cli(*tune_words("sentiment", run, model=family_folder("bert", WINDOW))).code == 0
    refused = cli("predict", run, "--next", "The <mask>")
    assert (refused.code, "E2023" in refused.err) == (2, True)


def test_check_measures_lengths_as_the_family_reads_them(
    family_folder: Folder, cli: Callable[..., Any]
) -> None:
    words = ["check", "--task", "question_answering", "--model", str(family_folder("bert", WINDOW)), "--data",
             str(sample_path("question_answering", "train")), "--json"]
    found = cli(*words).json
    assert found["report"]["token_lengths"]["train"]["maximum"] == WINDOW
    assert found["cut"]["train"]["examples"] == 0
