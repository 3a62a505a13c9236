"""A tuning with a teacher from the command line: same vocabulary, another family, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

WINDOW = 256


def test_decoders_and_label_heads_learn_from_runs(
    runs: Callable[[str], Path], tune_words: Callable[..., list[str]], family_folder: Callable[..., Path],
    cli: Callable[..., Any], tmp_path: Path,
) -> None:
    teacher = runs("sentiment")
    for name, flags in (("plain", {}), ("taught", {"distill_from": teacher, "distill_weight": 0.7})):
        asked = cli(*tune_words("sentiment", tmp_path / name, seed=5, **flags), "--json")
        assert asked.code == 0, asked.err
        assert asked.json["layout"] == "tree"
    weights = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("plain", "taught")]
    assert any(not weights[0][name].equal(weights[1][name]) for name in weights[0])
    encoder = tune_words("sentiment", tmp_path / "encoder", model=family_folder("bert", WINDOW), distill_from=teacher)
    asked = cli(*encoder, "--json")
    assert asked.code == 0, asked.err
    assert asked.json["distilled_from"] == str(teacher)
    assert cli(*encoder, "--json").json == asked.json


@pytest.mark.parametrize(("task", "kind", "teacher", "code"), [
    ("translation", "t5", "translation", "E2074"), ("sentiment", "bert", "translation", "E2075")])
def test_teachers_that_do_not_fit_are_refused(
    task: str, kind: str, teacher: str, code: str, runs: Callable[[str], Path],
    tune_words: Callable[..., list[str]], family_folder: Callable[..., Path], cli: Callable[..., Any], tmp_path: Path,
) -> None:
    words = tune_words(task, tmp_path / "run", model=family_folder(kind, WINDOW), distill_from=runs(teacher))
    asked = cli(*words)
    assert (asked.code, code in asked.err) == (2, True), asked.err


def test_a_teacher_with_another_vocabulary_is_refused(
    runs: Callable[[str], Path], tune_words: Callable[..., list[str]], cli: Callable[..., Any], tmp_path: Path
) -> None:
    asked = cli(*tune_words("sentiment", tmp_path / "run", distill_from="gpt3"))
    assert (asked.code, "E2076" in asked.err) == (2, True), asked.err


def test_check_shows_what_an_encoder_reads(
    family_folder: Callable[..., Path], cli: Callable[..., Any]
) -> None:
    from treetune.data.sample import sample_path

    for task, wanted in (("question_answering", "["), ("sentiment", "")):
        words = ["check", "--task", task, "--model", str(family_folder("bert", WINDOW)), "--data",
                 str(sample_path(task, "train")), "--json"]
        first = cli(*words).json["rendered"][0]
        assert "Answer" not in first["prompt"]
        assert "<end>" not in first["completion"]
        assert wanted in first["completion"]
