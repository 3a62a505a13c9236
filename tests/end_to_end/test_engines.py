"""CTranslate2 answers for a run: as the run does, under no gate but its own; what it cannot do is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from treetune.data.sample import sample_path
from treetune.models.gpt3 import GPT3Config, GPT3LMHeadModel, GPT3Tokenizer
from treetune.verbs import predict

pytest.importorskip("ctranslate2")
Cli = Callable[..., Any]
Made = tuple[Path, Path]


@pytest.fixture(scope="module")
def exported(
    tiny: Path, tune_words: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Made]:
    """(task) -> a run over a dense tiny model, and its CTranslate2 export in float32; made once."""
    from treetune.cli.app import run
    from treetune.workflow.export import export

    made: dict[str, Made] = {}

    def get(task: str) -> Made:
        if task not in made:
            folder = tmp_path_factory.mktemp("ct2")
            torch.manual_seed(0)
            config = GPT3Config.from_pretrained(tiny)
            config.attention_pattern, config.initializer_range = "dense", 0.2
            GPT3LMHeadModel(config).save_pretrained(folder / "model")
            GPT3Tokenizer.from_pretrained(tiny).save_pretrained(folder / "model")
            assert run(tune_words(task, folder / "run", model=folder / "model"), False, False) == 0
            export(str(folder / "run"), "ctranslate2", str(folder / "out"), data=str(sample_path(task, "test")))
            made[task] = folder / "run", folder / "out"
        return made[task]

    return get


@pytest.mark.parametrize("task", ["sentiment", "translation"])
def test_it_answers_as_the_run_does(
    task: str, exported: Callable[[str], Made], rows_file: Callable[[str, int], Path], cli: Cli, tmp_path: Path
) -> None:
    run, folder = exported(task)
    rows = rows_file(task, 20)
    said = cli("predict", run, "--data", rows, "--output", tmp_path / "a.jsonl", "--engine", f"ctranslate2:{folder}",
               "--parity-rows", 20, "--min-equal", 0.95, "--json")
    assert said.code == 0, said.err
    assert said.json["parity"]["equal_answers"] >= 0.95
    assert said.json["parity"]["probability_difference"] < 1e-3
    assert said.json["binding"]["engine"].startswith("ctranslate2 float32 ")
    ours = predict(str(run), str(rows))
    theirs = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text("utf-8").splitlines()]
    assert [each["row"] for each in theirs] == list(range(20))
    same = [(one, two) for one, two in zip(ours, theirs, strict=True) if one.text == two["text"]]
    assert len(same) >= 19
    for one, two in same:
        assert two["finished"] == one.finished
        assert two["token_log_probs"] == pytest.approx(one.token_log_probs, abs=1e-3)
        assert two["decision"]["verdict"] == "ungated"


def test_a_gate_binds_one_engine(
    exported: Callable[[str], Made], rows_file: Callable[[str, int], Path], cli: Cli, tmp_path: Path
) -> None:
    run, folder = exported("sentiment")
    copied = shutil.copytree(run, tmp_path / "run")
    words = ["--data", sample_path("sentiment", "test"), "--max-error", 0.9, "--confidence", 0.8]
    assert cli("gate", copied, *words).code == 0
    asked = ["predict", copied, "--data", rows_file("sentiment", 10), "--no-record"]
    here, there = ([json.loads(line)["decision"] for line in cli(*asked, "--engine", engine).out.splitlines()]
                   for engine in ("transformers", f"ctranslate2:{folder}"))
    assert all(each["valid"] for each in here)
    assert {(each["verdict"], each["valid"]) for each in there} == {("review", False)}
    assert all("the engine (ctranslate2 float32" in each["reasons"][0]["text"] for each in there)
    assert cli("gate", copied, *words, "--engine", f"ctranslate2:{folder}").code == 0
    there = [json.loads(line)["decision"] for line in cli(*asked, "--engine", f"ctranslate2:{folder}").out.splitlines()]
    assert all(each["valid"] for each in there)
    here = [json.loads(line)["decision"] for line in cli(*asked).out.splitlines()]
    assert {(each["verdict"], each["valid"]) for each in here} == {("review", False)}


def test_what_it_cannot_do_is_refused(
    exported: Callable[[str], Made], runs: Callable[[str], Path], rows_file: Callable[[str, int], Path], cli: Cli
) -> None:
    _, folder = exported("sentiment")
    rows = rows_file("sentiment", 2)
    said = cli("predict", runs("sentiment"), "--data", rows, "--engine", f"ctranslate2:{folder}")
    assert said.code == 2
    assert "E3103: this export was made from another run's model" in said.err
    said = cli("predict", runs("sentiment"), "--data", rows, "--engine", "vllm")
    assert said.code == 2
    assert "E2040: no engine goes by this name" in said.err


def test_fewer_equal_answers_than_asked_for_stop_before_the_first(
    exported: Callable[[str], Made], rows_file: Callable[[str, int], Path], cli: Cli, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dataclasses import replace

    from treetune.predict.engines.ctranslate2 import CTranslate2Engine

    plain = CTranslate2Engine.predict

    def other(self: CTranslate2Engine, examples: Any) -> Any:
        return [replace(each, answer="other") if each.row == 0 else each for each in plain(self, examples)]

    monkeypatch.setattr(CTranslate2Engine, "predict", other)
    run, folder = exported("sentiment")
    said = cli("predict", run, "--data", rows_file("sentiment", 10), "--output", tmp_path / "a.jsonl", "--engine",
               f"ctranslate2:{folder}", "--parity-rows", 10, "--min-equal", 1)
    assert said.code == 1
    assert "E5023" in said.err
    assert "90.0%" in said.err
    assert not (tmp_path / "a.jsonl.partial").exists()
