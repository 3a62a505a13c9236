"""Pretraining on a few lines of text, through the command line: it ends, resumes, and its model loads."""

import hashlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from treetune.cli.app import run
from treetune.cli.show import Watcher
from treetune.core.settings import PretrainSettings, TextSource
from treetune.models.gpt3 import GPT3LMHeadModel, GPT3Tokenizer, train_tokenizer
from treetune.workflow.log import read_events
from treetune.workflow.pretrain import held_out_blocks, training_blocks
from treetune.workflow.pretraining_text import asked, pieces_of_lines, split_source

WORDS = ["river", "stone", "green", "walks", "slowly", "under", "bright", "seven", "boats", "sing"]
Config = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("one_thread_in_english")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """(changes) -> a YAML file of a tiny pretraining on two sources: lines of text, and rows with a template."""
    lines = [" ".join(WORDS[(n * k + k) % 10] for k in range(1, 9)) + f" {n}." for n in range(120)]
    (tmp_path / "a.txt").write_text("\n".join(lines) + "\n", "utf-8")
    rows = [json.dumps({"text": line, "label": "positive"}) for line in lines[:60]]
    (tmp_path / "b.jsonl").write_text("\n".join(rows) + "\n", "utf-8")

    def write(name: str = "run", **changes: Any) -> Path:
        values = {
            "output_dir": str(tmp_path / name), "data_root": str(tmp_path), "total_tokens": 1200, "vocab_size": 320,
            "tokenizer_bytes": 5000, "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2, "attention_band": 8,
            "max_steps": 3, "save_steps": 1, "eval_steps": 3, "logging_steps": 1, "per_device_train_batch_size": 4,
            "held_out_tokens": 200, "torch_threads": 1,
            "data": [{"path": "a.txt", "share": 3},
                     {"path": "b.jsonl", "share": 1, "template": "Review: {text}\nSentiment: {label}"}],
            **changes,
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values), "utf-8")
        return path

    return write


def weights(run_folder: Path) -> str:
    return hashlib.sha256((run_folder / "model" / "model.safetensors").read_bytes()).hexdigest()


def test_a_short_pretraining_leaves_a_model_and_its_numbers(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["pretrain", str(config()), "--json"], True, False) == 0
    record = json.loads(capsys.readouterr().out)
    assert record == json.loads((tmp_path / "run" / "pretraining.json").read_text("utf-8"))
    assert set(record["held_out_bits_per_byte"]) == {"a.txt", "b.jsonl"}
    assert all(0.5 < bits < 12 for bits in record["held_out_bits_per_byte"].values())
    counts = record["training_tokens_by_source"]
    assert 900 <= counts["a.txt"]["tokens"] < 900 + 60  # three quarters of 1200, up to the end of a document
    assert 300 <= counts["b.jsonl"]["tokens"] < 300 + 60
    assert record["sources_sha256"]["a.txt"] == hashlib.sha256((tmp_path / "a.txt").read_bytes()).hexdigest()
    model = GPT3LMHeadModel.from_pretrained(tmp_path / "run" / "model")
    tokenizer = GPT3Tokenizer.from_pretrained(tmp_path / "run" / "model")
    assert record["parameters"] == sum(weight.numel() for weight in model.parameters())
    assert tokenizer.model_max_length == 32
    assert len(tokenizer) == model.config.vocab_size
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")(
            **tokenizer("river stone", return_tensors="pt")).logits
    assert torch.isfinite(logits).all()
    [proof] = [event for event in read_events(tmp_path / "run" / "metrics.jsonl") if event["event"] == "exactness"]
    assert (proof["used"], proof["engine"]) == ("padded", "own_head")
    assert proof["difference"] < proof["tolerance"]


def test_it_resumes_byte_equal(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["pretrain", str(config("whole"))], False, False) == 0
    plain = Watcher.__call__

    def watch(self: Watcher, event: dict[str, Any]) -> None:
        plain(self, event)
        if event["event"] == "step" and event["step"] == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Watcher, "__call__", watch)
        assert run(["pretrain", str(config("cut"))], False, False) == 75
    assert run(["pretrain", str(config("cut"))], False, False) == 0
    assert "going on from step-1" in capsys.readouterr().err
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    steps = [event["step"] for event in read_events(tmp_path / "cut" / "metrics.jsonl") if event["event"] == "step"]
    assert steps == [1, 2, 3]


def test_other_settings_are_refused(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pretrain", str(config())], False, False) == 0
    assert run(["pretrain", str(config()), "--seed", "1"], False, False) == 1
    assert "E5010" in capsys.readouterr().err


def test_a_tokenizer_of_another_run_is_kept(config: Config, tmp_path: Path) -> None:
    assert run(["pretrain", str(config())], False, False) == 0
    kept = tmp_path / "run" / "tokenizer"
    assert run(["pretrain", str(config("other")), "--tokenizer", str(kept), "--max-steps", "1"], False, False) == 0
    first, second = (GPT3Tokenizer.from_pretrained(place) for place in (kept, tmp_path / "other" / "model"))
    assert first.get_vocab() == second.get_vocab()


@pytest.mark.parametrize(
    ("source", "code", "place"),
    [({"path": "none.txt", "share": 1}, "E1101", "none.txt"),
     ({"path": "b.jsonl", "share": 1, "template": "{body}"}, "E1112", "b.jsonl, line 1")],
)
def test_a_source_that_cannot_be_read(
    source: dict[str, Any], code: str, place: str, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["pretrain", str(config(data=[source]))], False, False) == 3
    said = capsys.readouterr().err
    assert said.startswith(code)
    assert place in said


def test_a_novel_is_pretrained_on(config: Config, tmp_path: Path) -> None:
    novel = config(data=[{"path": "a.txt", "share": 1, "document": "file"}], max_steps=1)
    assert run(["pretrain", str(novel)], False, False) == 0
    assert (tmp_path / "run" / "model" / "config.json").is_file()


@settings(deadline=None)
@given(st.lists(st.text(alphabet="ab\u00e9 ", max_size=12), max_size=30), st.integers(1, 40))
def test_pieces_of_lines_cut_between_lines_once_they_are_long_enough(lines: list[str], size: int) -> None:
    pieces = pieces_of_lines(lines, size)
    assert [line for piece in pieces for line in piece.split("\n")] == lines
    for piece in pieces[:-1]:
        lengths = [len(line) for line in piece.split("\n")]
        assert sum(lengths) >= size > sum(lengths[:-1])


PROSE = ["In 1888 Anna of the old mill came to London and sold seven boats to the bank by the river."] * 3


def test_questions_are_asked_only_where_wanted_and_others_in_every_pass() -> None:
    plain, curious = TextSource(path="a", share=1), TextSource(path="a", share=1, cloze=1)
    assert list(asked(plain, PROSE, 0, 0)) == PROSE
    turns = [list(asked(curious, PROSE, seed, turn)) for seed, turn in ((0, 0), (0, 0), (0, 1), (1, 0))]
    assert all(text.startswith(PROSE[0]) for each in turns for text in each)
    assert any("\nQuestion: " in text for text in turns[0])
    assert turns[0] == turns[1]
    assert len({tuple(each) for each in turns}) == 3
    assert list(asked(TextSource(path="b", share=1, cloze=1), PROSE, 0, 0)) != turns[0]


def test_a_small_source_is_repeated_with_other_questions_and_held_out_text_has_none(tmp_path: Path) -> None:
    lines = [f"Number {n}: " + PROSE[0] for n in range(30)]
    (tmp_path / "a.txt").write_text("\n".join(lines), "utf-8")
    (tmp_path / "b.txt").write_text("\n".join(lines), "utf-8")
    settings = PretrainSettings(
        output_dir=str(tmp_path / "run"), data_root=str(tmp_path), total_tokens=8000, n_positions=64, vocab_size=300,
        data=[TextSource(path="a.txt", share=3, cloze=1), TextSource(path="b.txt", share=1)])
    tokenizer = train_tokenizer(lines, 300, 64)
    texts = {source.path: split_source(source, settings) for source in settings.data}
    assert {path: (len(training), len(kept_out)) for path, (training, kept_out) in texts.items()} == {
        "a.txt": (29, 1), "b.txt": (29, 1)}
    found, counts = training_blocks(settings, texts, tokenizer)
    assert counts["a.txt"]["tokens"] >= 6000 > counts["a.txt"]["tokens"] - 100
    assert counts["a.txt"]["passes"] > 1
    assert counts["a.txt"]["tokens"] + counts["b.txt"]["tokens"] == sum(
        len(block.prompt_ids) + len(block.completion_ids) for block in found)
    read = tokenizer.decode([token for block in found for token in [*block.prompt_ids, *block.completion_ids]])
    assert "Question: " in read
    for path, blocks in held_out_blocks(settings, texts, tokenizer).items():
        ids = [token for block in blocks for token in [*block.prompt_ids, *block.completion_ids]]
        assert tokenizer.decode(ids[1:]) == texts[path][1][0]
        assert texts[path][1][0] not in texts[path][0]


def go_on(config: Config, start: Path, name: str = "more", **changes: Any) -> Path:
    """A configuration of a run that goes on from a model, and says nothing of its shape."""
    path = config(name, init_from=str(start), **changes)
    values = yaml.safe_load(path.read_text("utf-8"))
    for key in ("n_embd", "n_layer", "n_head", "attention_band", "vocab_size"):
        if key not in changes:
            del values[key]
    path.write_text(yaml.safe_dump(values), "utf-8")
    return path


def test_going_on_keeps_shape_and_tokenizer_and_says_what_was_gained(config: Config, tmp_path: Path) -> None:
    assert run(["pretrain", str(config())], False, False) == 0
    first = tmp_path / "run" / "model"
    path = go_on(config, first, max_steps=20, save_steps=10, learning_rate=0.01)
    assert run(["pretrain", str(path)], False, False) == 0
    was = json.loads((tmp_path / "run" / "pretraining.json").read_text("utf-8"))
    record = json.loads((tmp_path / "more" / "pretraining.json").read_text("utf-8"))
    assert record["init_from"] == str(first)
    own = ("tokens_seen", "seconds", "training_tokens_by_source")
    assert record["stages_before"] == [{name: was[name] for name in own}]
    before, after = record["held_out_bits_per_byte_before"], record["held_out_bits_per_byte"]
    assert before == pytest.approx(was["held_out_bits_per_byte"], rel=0.02)  # the model was saved rounded
    assert all(after[name] < 0.9 * before[name] for name in before)
    assert record["parameters"] == was["parameters"]
    old, new = (GPT3LMHeadModel.from_pretrained(place / "model") for place in (tmp_path / "run", tmp_path / "more"))
    assert (new.config.hidden_size, new.config.attention_band) == (old.config.hidden_size, old.config.attention_band)
    assert new.dtype == old.dtype == torch.bfloat16
    assert not torch.equal(new.transformer.wte.weight, old.transformer.wte.weight)
    tokenizers = [GPT3Tokenizer.from_pretrained(place) for place in (first, tmp_path / "more" / "model")]
    assert tokenizers[0].get_vocab() == tokenizers[1].get_vocab()
    assert tokenizers[1].model_max_length == 32


def test_going_on_resumes_byte_equal_and_only_from_the_same_weights(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["pretrain", str(config())], False, False) == 0
    first = tmp_path / "run" / "model"
    assert run(["pretrain", str(go_on(config, first, "whole"))], False, False) == 0
    plain = Watcher.__call__

    def watch(self: Watcher, event: dict[str, Any]) -> None:
        plain(self, event)
        if event["event"] == "step" and event["step"] == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Watcher, "__call__", watch)
        assert run(["pretrain", str(go_on(config, first, "cut"))], False, False) == 75
    assert run(["pretrain", str(go_on(config, first, "cut"))], False, False) == 0
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    (first / "model.safetensors").write_bytes((tmp_path / "whole" / "model" / "model.safetensors").read_bytes())
    assert run(["pretrain", str(go_on(config, first, "cut"))], False, False) == 1
    assert "E5010" in capsys.readouterr().err


def test_any_decoder_can_be_gone_on_from(
    config: Config, tmp_path: Path, family_tokenizer: Callable[[str], Any]
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = family_tokenizer("bart")
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, bos_token_id=2, eos_token_id=3, pad_token_id=0))
    model.save_pretrained(tmp_path / "llama")
    tokenizer.save_pretrained(tmp_path / "llama")
    path = go_on(config, tmp_path / "llama", max_steps=20, save_steps=20, learning_rate=0.01)
    assert run(["pretrain", str(path)], False, False) == 0
    record = json.loads((tmp_path / "more" / "pretraining.json").read_text("utf-8"))
    assert record["held_out_bits_per_byte"]["a.txt"] < record["held_out_bits_per_byte_before"]["a.txt"]
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "more" / "model")
    assert (found.config.model_type, found.dtype) == ("llama", torch.float32)  # as it came, not rounded


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [({"n_layer": 3}, "E2071", "n_layer"), ({"vocab_size": 400}, "E2071", "320"),
     ({"tokenizer": "elsewhere"}, "E2071", "tokenizer"), ({"n_positions": 33}, "E2072", "32")],
)
def test_what_does_not_fit_the_model_gone_on_from_is_refused(
    changes: dict[str, Any], code: str, said: str, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["pretrain", str(config())], False, False) == 0
    assert run(["pretrain", str(go_on(config, tmp_path / "run" / "model", **changes))], False, False) == 2
    printed = capsys.readouterr().err
    assert code in printed
    assert said in printed
    assert not (tmp_path / "more" / "config.yaml").exists()
