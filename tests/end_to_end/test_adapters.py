"""Parts of a model tuned from the command line, and several adapters that answer from one base in memory."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from treetune.core.errors import UsageError
from treetune.models.load import locate
from treetune.workflow.evaluate import answer
from treetune.workflow.gather import read_for, to_examples
from treetune.workflow.merge import merge_run
from treetune.workflow.run import Run, open_run
from treetune.workflow.shared_base import open_shared

Words = Callable[..., list[str]]
Cli = Callable[..., Any]
Folder = Callable[..., Path]
WINDOW = 256
WAYS: dict[str, dict[str, Any]] = {
    "dora": {"lora_r": 2, "use_dora": True}, "rslora": {"lora_r": 2, "use_rslora": True},
    "4bit": {"lora_r": 2, "load_in": "4bit"}, "8bit": {"lora_r": 2, "load_in": "8bit"},
    "layers": {"freeze_layers": 1}, "probe": {"freeze_base": True},
}


def flags(words: list[str], given: dict[str, Any]) -> list[str]:
    """The words with flags of yes or no as they are written."""
    return [*words, *(f"--{name.replace('_', '-')}" for name, value in given.items() if value is True)]


def tune_way(tune_words: Words, task: str, run: Path, given: dict[str, Any], **more: Any) -> list[str]:
    return flags(tune_words(task, run, **more, **{k: v for k, v in given.items() if v is not True}), given)


@pytest.mark.parametrize("way", WAYS)
def test_every_part_is_tuned_resumed_and_answers(
    way: str, tune_words: Words, rows_file: Callable[[str, int], Path], cli: Cli, tmp_path: Path
) -> None:
    if "load_in" in WAYS[way]:
        pytest.importorskip("bitsandbytes")
    run = tmp_path / "run"
    asked = cli(*tune_way(tune_words, "sentiment", run, WAYS[way]), "--json")
    assert asked.code == 0, asked.err
    assert asked.json["layout"] == "tree"
    assert 0 < asked.json["trained_parameters"] < asked.json["parameters"]
    assert cli(*tune_way(tune_words, "sentiment", run, WAYS[way]), "--json").json == asked.json
    evaluated = cli("evaluate", run, "--data", rows_file("sentiment", 4), "--json")
    assert evaluated.code == 0, evaluated.err
    assert {"tuned", "base"} <= set(evaluated.json["scores"])
    files = {path.name for path in (run / "model").iterdir()}
    assert ("adapter_model.safetensors" in files) == ("lora_r" in WAYS[way])
    if "lora_r" in WAYS[way]:
        noted = (run / "model" / "adapter_config.json").read_text() + (run / "model" / "base.json").read_text()
        assert str(tmp_path.parent) not in noted


def test_frozen_weights_are_those_of_the_base_to_the_bit(
    tiny: Path, tune_words: Words, cli: Cli, tmp_path: Path
) -> None:
    assert cli(*tune_words("sentiment", tmp_path / "run", freeze_layers=1)).code == 0
    before, after = load_file(tiny / "model.safetensors"), load_file(tmp_path / "run" / "model" / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("h.1." in name or "ln_f" in name for name in changed)


def test_contradictions_stop_with_a_code_before_any_row_is_read(tune_words: Words, cli: Cli, tmp_path: Path) -> None:
    words = tune_words("sentiment", tmp_path / "run", data=tmp_path / "absent.csv")
    asked = cli(*words, "--use-dora")
    assert (asked.code, "E2008" in asked.err) == (2, True)
    asked = cli(*words, "--lora-r", "2", "--random-init")
    assert (asked.code, "E2007" in asked.err) == (2, True)
    assert cli("--lang", "zh", *words, "--use-dora").code == 2


def test_a_merged_run_is_a_plain_model_with_the_same_answers(
    tune_words: Words, family_folder: Folder, cli: Cli, tmp_path: Path
) -> None:
    words = tune_words("sentiment", tmp_path / "run", model=family_folder("bert", WINDOW), lora_r=2)
    assert cli(*words).code == 0
    found = merge_run(tmp_path / "run", tmp_path / "merged")
    assert found["difference"] <= found["tolerance"] == 1e-4
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    again = tune_words("sentiment", tmp_path / "again", model=tmp_path / "merged", max_steps=1)
    assert cli(*again).code == 0
    refused = cli(*tune_words("sentiment", tmp_path / "no", model=tmp_path / "run" / "model"))
    assert (refused.code, "E3020" in refused.err) == (2, True)


def answers_of(run: Run, rows: Path) -> list[tuple[str, dict[str, float]]]:
    gathered = to_examples(run.task, read_for(run.task, str(rows), "test", {}), run.options, None, 0.0)
    return [(each.answer, dict(each.scores)) for each in answer(run, run.loaded, gathered.examples)]


def same(ours: list[tuple[str, dict[str, float]]], theirs: list[tuple[str, dict[str, float]]]) -> None:
    assert [each for each, _ in ours] == [each for each, _ in theirs]
    for (_, own), (_, other) in zip(ours, theirs, strict=True):
        assert own == pytest.approx(other, abs=1e-5)


def test_runs_on_one_base_answer_as_each_does_alone(
    tune_words: Words, rows_file: Callable[[str, int], Path], cli: Cli, tmp_path: Path
) -> None:
    tasks = {"mood": "sentiment", "speech": "translation", "size": "sentiment"}
    for name, task in tasks.items():
        given = {"lora_r": 3, "use_dora": True} if name == "size" else {"lora_r": 2}
        asked = cli(*tune_way(tune_words, task, tmp_path / name, given, seed=len(name), learning_rate=2e-2))
        assert asked.code == 0, asked.err
    rows = {name: rows_file(task, 4) for name, task in tasks.items()}
    alone = {name: answers_of(open_run(tmp_path / name), rows[name]) for name in tasks}
    assert alone["mood"] != alone["size"]
    shared = open_shared({name: tmp_path / name for name in tasks})
    for name in ("speech", "mood", "size", "mood", "speech"):
        with shared.using(name) as run:
            same(answers_of(run, rows[name]), alone[name])
    weights = sum(weight.numel() for name, weight in shared.model.named_parameters() if "lora" not in name)
    base = open_run(tmp_path / "mood").loaded.model
    assert weights == sum(w.numel() for name, w in base.named_parameters() if "lora" not in name)


def test_label_heads_of_several_runs_share_an_encoder(
    tune_words: Words, rows_file: Callable[[str, int], Path], family_folder: Folder, cli: Cli, tmp_path: Path
) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        words = tune_words("sentiment", tmp_path / name, model=family_folder("bert", WINDOW), lora_r=2, seed=seed)
        assert cli(*words).code == 0
    rows = rows_file("sentiment", 5)
    alone = {name: answers_of(open_run(tmp_path / name), rows) for name in ("one", "two")}
    shared = open_shared({name: tmp_path / name for name in ("one", "two")})
    for name in ("two", "one", "two"):
        with shared.using(name) as run:
            same(answers_of(run, rows), alone[name])


def test_runs_that_cannot_share_a_base_are_told_apart(
    tune_words: Words, family_folder: Folder, cli: Cli, tmp_path: Path
) -> None:
    assert cli(*tune_words("sentiment", tmp_path / "whole")).code == 0
    assert cli(*tune_words("sentiment", tmp_path / "one", lora_r=2)).code == 0
    assert cli(*tune_words("sentiment", tmp_path / "other", lora_r=2, model=family_folder("bert", WINDOW))).code == 0
    for name, found in (("whole", "no adapter"), ("other", "")):
        with pytest.raises(UsageError) as caught:
            open_shared({"one": tmp_path / "one", "two": tmp_path / name})
        assert caught.value.code == "E2032"
        assert found in caught.value.found


@pytest.mark.parametrize(("kind", "task"), [("bert", "question_answering"), ("t5", "translation"),
                                            ("bart", "summarization")])
def test_lora_serves_span_heads_and_encoder_decoders(
    kind: str, task: str, family_folder: Folder, tune_words: Words, rows_file: Callable[[str, int], Path], cli: Cli,
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    asked = cli(*tune_words(task, run, model=family_folder(kind, WINDOW), lora_r=2), "--json")
    assert asked.code == 0, asked.err
    assert 0 < asked.json["trained_parameters"] < asked.json["parameters"] / 2
    answered = cli("predict", run, "--data", rows_file(task, 3))
    assert answered.code == 0, answered.err
    assert [json.loads(line)["row"] for line in answered.out.splitlines()] == [0, 1, 2]
    place, adapter = locate(str(run / "model"))
    assert (Path(place), adapter) == (family_folder(kind, WINDOW), run / "model")


def test_lora_goes_onto_an_encoder_that_already_answers_questions(
    family_folder: Folder, tune_words: Words, rows_file: Callable[[str, int], Path], cli: Cli, tmp_path: Path
) -> None:
    task, first = "question_answering", tmp_path / "first"
    assert cli(*tune_words(task, first, model=family_folder("bert", WINDOW), max_steps=1)).code == 0
    asked = cli(*tune_words(task, tmp_path / "run", model=first / "model", lora_r=2, max_steps=2), "--json")
    assert asked.code == 0, asked.err
    assert 0 < asked.json["trained_parameters"] < asked.json["parameters"] / 2
    saved = load_file(tmp_path / "run" / "model" / "adapter_model.safetensors")
    assert {name for name in saved if "qa_outputs" in name} == {
        "base_model.model.qa_outputs.weight", "base_model.model.qa_outputs.bias"}
    answered = cli("predict", tmp_path / "run", "--data", rows_file(task, 3))
    assert answered.code == 0, answered.err
    assert len(answered.out.splitlines()) == 3
