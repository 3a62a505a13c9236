"""Rows to examples: refused rows are listed, validation is split off whole groups at a time."""

import json
from pathlib import Path

import pytest

from treetune.core.errors import DataError
from treetune.core.settings import TuneSettings
from treetune.data.sample import sample_path
from treetune.tasks.contract import load_task
from treetune.workflow.gather import cut_report, gather_training


def settings(data: Path, **changes: object) -> TuneSettings:
    return TuneSettings.model_validate({"task": "sentiment", "data": str(data), "output_dir": "unused", **changes})


def csv(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(["text,label", *lines, ""]), "utf-8")
    return path


def test_a_share_is_split_off_without_validation_rows() -> None:
    task = load_task("question_answering")
    given = settings(sample_path("question_answering", "train"), task="question_answering", validation_share=0.25)
    training, validation, _ = gather_training(given, task, None)
    assert len(training.examples) + len(validation.examples) == 132
    assert 10 < len(validation.examples) < 60
    contexts = [{example.source for example in each.examples} for each in (training, validation)]
    assert not contexts[0] & contexts[1]
    again = gather_training(given, task, None)
    assert [row.id for row in again[1].rows] == [row.id for row in validation.rows]


def test_labels_are_those_of_the_training_rows(tmp_path: Path) -> None:
    data = csv(tmp_path / "rows.csv", "good,pos", "bad,neg", "fine,POS")
    training, _, options = gather_training(settings(data, validation_data=str(data)), load_task("sentiment"), None)
    assert options.labels == ("positive", "negative")
    assert [example.answers for example in training.examples] == [("positive",), ("negative",), ("positive",)]


def test_the_instruction_reaches_every_example(tmp_path: Path) -> None:
    data = csv(tmp_path / "rows.csv", "good,pos", "bad,neg")
    given = settings(data, validation_data=str(data), instruction="Judge it.")
    training, validation, options = gather_training(given, load_task("sentiment"), None)
    assert options.instruction == "Judge it."
    assert {each.instruction for each in (*training.examples, *validation.examples)} == {"Judge it."}


def test_refused_rows_are_written_down_and_an_older_list_goes(tmp_path: Path) -> None:
    quarantine = tmp_path / "run" / "quarantine.jsonl"
    good = [f"film {n},{('pos', 'neg')[n % 2]}" for n in range(8)]
    bad, clean = csv(tmp_path / "bad.csv", *good, "film,great"), csv(tmp_path / "clean.csv", *good)
    with pytest.raises(DataError) as caught:
        gather_training(settings(bad, validation_data=str(clean)), load_task("sentiment"), quarantine)
    assert caught.value.code == "E1120"
    assert str(quarantine) in str(caught.value)
    assert json.loads(quarantine.read_text("utf-8"))["line"] == 10
    gather_training(settings(clean, validation_data=str(clean)), load_task("sentiment"), quarantine)
    assert not quarantine.exists()


def test_cut_tokens_are_counted() -> None:
    assert cut_report([0, 3, 0, 4]) == {"examples": 2, "tokens": 7}
    assert cut_report([]) == {"examples": 0, "tokens": 0}
