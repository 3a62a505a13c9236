"""treetune export: every form answers as the run does, a miss leaves nothing, and what cannot be is said at once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from treetune.data.sample import sample_path
from treetune.models.gpt3 import GPT3Config, GPT3LMHeadModel, GPT3Tokenizer
from treetune.workflow.export import FORMS

Cli = Callable[..., Any]
Words = Callable[..., list[str]]
Folder = Callable[..., Path]
PACKAGES = {"gguf": ["gguf"], "ctranslate2": ["ctranslate2"], "onnx": ["onnx", "onnxruntime"]}


@pytest.fixture(scope="session")
def dense(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with dense layers, and weights large enough to matter."""
    folder = tmp_path_factory.mktemp("models") / "dense"
    torch.manual_seed(0)
    config = GPT3Config.from_pretrained(tiny)
    config.attention_pattern, config.initializer_range = "dense", 0.2
    GPT3LMHeadModel(config).save_pretrained(folder)
    GPT3Tokenizer.from_pretrained(tiny).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def run_of(
    dense: Path, tune_words: Words, family_folder: Folder, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """``dense``, ``writes`` (translation), ``bert`` or ``lora`` -> a tuned run, made once."""
    from treetune.cli.app import run

    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("runs") / kind
            task = "translation" if kind == "writes" else "sentiment"
            more: dict[str, Any] = {"model": family_folder("bert", 256) if kind == "bert" else dense}
            if kind == "lora":
                more["lora_r"] = 2
            assert run(tune_words(task, made[kind], **more), False, False) == 0
        return made[kind]

    return get


@pytest.mark.parametrize(("kind", "form"), [
    ("dense", "safetensors"), ("dense", "gguf"), ("dense", "ctranslate2"), ("lora", "safetensors"), ("lora", "adapter"),
    ("lora", "gguf"), ("bert", "safetensors"), ("bert", "onnx"), ("writes", "ctranslate2")])
def test_every_form_answers_as_the_run_does(
    kind: str, form: str, run_of: Callable[[str], Path], rows_file: Callable[[str, int], Path], cli: Cli, tmp_path: Path
) -> None:
    for name in PACKAGES.get(form, []):
        pytest.importorskip(name)
    rows = rows_file("translation" if kind == "writes" else "sentiment", 12)
    said = cli("export", run_of(kind), "--to", form, "--output", tmp_path / "out", "--data", rows, "--json")
    assert said.code == 0, said.err
    record = said.json
    assert json.loads((tmp_path / "out" / "export.json").read_text("utf-8")) == record
    parity = record["parity"]
    assert (parity["rows"], parity["equal_answers"]) == (12, 1.0)
    assert parity["log_prob_difference"] < 1e-4
    assert all(each["change"] == 0 for each in parity["metrics"].values())
    assert set(record["files"]) | {"export.json"} == {
        str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    if form == "gguf":
        assert "no engine for GGUF was run" in record["not_verified"]
        assert record["written"]["tensors_equal"] == record["written"]["tensors"] > 20
    if form == "safetensors":
        auto = AutoModelForSequenceClassification if kind == "bert" else AutoModelForCausalLM
        opened = auto.from_pretrained(tmp_path / "out")
        assert opened.config.model_type == record["written"]["architecture"] == ("bert" if kind == "bert" else "gpt2")
        assert not record["written"]["needs_treetune"]


def test_eight_bits_say_what_they_cost_and_the_runs_own_rows_do(
    run_of: Callable[[str], Path], cli: Cli, tmp_path: Path
) -> None:
    pytest.importorskip("ctranslate2")
    said = cli("export", run_of("dense"), "--to", "ctranslate2", "--output", tmp_path / "out", "--precision", "int8",
               "--min-equal", 0.5)
    assert said.code == 0, said.err
    record = json.loads((tmp_path / "out" / "export.json").read_text("utf-8"))
    validation = len(sample_path("sentiment", "validation").read_text("utf-8").splitlines())
    assert record["parity"]["rows"] == min(64, validation)
    assert record["limits"] == {"equal_answers": 0.5, "log_prob_difference": None}
    assert record["parity"]["log_prob_difference"] > 1e-6
    assert record["parity"]["computed_in_float32"]["log_prob_difference"] < record["parity"]["log_prob_difference"]
    assert f"{record['parity']['equal_answers']:.1%}" in said.out
    assert "not verified: CTranslate2's own search" in said.out


def test_a_model_that_answers_otherwise_is_thrown_away(
    run_of: Callable[[str], Path], rows_file: Callable[[str, int], Path], cli: Cli, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from treetune.models.export import plain, safetensors

    def spoilt(model: Any, window: int) -> Any:
        found = plain.plain_model(model, window)
        with torch.no_grad():
            found.transformer.h[0].mlp.c_fc.weight[0] += 1.0
        return found

    monkeypatch.setattr(safetensors, "plain_model", spoilt)
    said = cli("export", run_of("dense"), "--to", "safetensors", "--output", tmp_path / "out", "--data",
               rows_file("sentiment", 6))
    assert (said.code, "E2804" in said.err) == (1, True)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_is_said_with_a_code_and_nothing_is_left(
    run_of: Callable[[str], Path], runs: Callable[[str], Path], rows_file: Callable[[str, int], Path], cli: Cli,
    tmp_path: Path,
) -> None:
    rows = rows_file("sentiment", 4)

    def refused(run: Path, form: str, code: str, *more: object) -> bool:
        said = cli("export", run, "--to", form, "--output", tmp_path / "out", "--data", rows, *more)
        return said.code == 2 and said.err.startswith(code) and not list(tmp_path.iterdir())

    pytest.importorskip("gguf")
    assert refused(runs("sentiment"), "gguf", "E2803")  # banded
    assert refused(run_of("bert"), "gguf", "E2802")
    assert refused(run_of("dense"), "onnx", "E2802")
    assert refused(run_of("dense"), "adapter", "E2802")
    assert refused(run_of("dense"), "zip", "E2802")
    assert refused(run_of("dense"), "gguf", "E2802", "--precision", "int8")
    assert refused(run_of("dense"), "gguf", "E2802", "--max-length", 100_000)
    (tmp_path / "out").mkdir()
    said = cli("export", run_of("dense"), "--to", "gguf", "--output", tmp_path / "out", "--data", rows)
    assert (said.code, said.err[:5]) == (2, "E2805")
    assert not list((tmp_path / "out").iterdir())


def test_a_banded_run_is_written_up_to_its_band(
    runs: Callable[[str], Path], cli: Cli, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"  # short enough for the band of 64
    rows.write_text('{"text": "A warm film.", "label": "positive"}\n{"text": "Dull.", "label": "negative"}\n', "utf-8")
    said = cli("export", runs("sentiment"), "--to", "safetensors", "--output", tmp_path / "out", "--data", rows,
               "--max-length", 64, "--json")
    assert said.code == 0, said.err
    assert said.json["written"] == {"architecture": "gpt2", "needs_treetune": False, "reason": ""}
    assert said.json["as_one_text"]["same_ids"] in (0.0, 0.5, 1.0)
    said = cli("export", runs("sentiment"), "--to", "safetensors", "--output", tmp_path / "whole", "--data", rows,
               "--json")
    assert said.json["written"]["needs_treetune"]
    assert "64 tokens back" in said.json["written"]["reason"]


def test_rows_that_are_gone_are_asked_for(tune_words: Words, dense: Path, cli: Cli, tmp_path: Path) -> None:
    data = tmp_path / "train.jsonl"
    data.write_text(sample_path("sentiment", "train").read_text("utf-8"), "utf-8")
    assert cli(*tune_words("sentiment", tmp_path / "run", model=dense, data=data, max_steps=1)).code == 0
    data.unlink()
    said = cli("export", tmp_path / "run", "--to", "safetensors", "--output", tmp_path / "out")
    assert (said.code, said.err[:5]) == (2, "E2809")
    assert "--data FILE" in said.err
    assert not (tmp_path / "out").exists()


def test_the_forms_are_those_of_the_help(cli: Cli) -> None:
    from treetune.cli.export import run

    said = str(run.__annotations__["to"])
    assert all(form in said for form in FORMS)
