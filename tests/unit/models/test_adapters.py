"""Adapters of every kind, frozen parts, bases in few bits: exact over trees, saved so that folders may move, merged."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, LlamaConfig

from treetune.core.errors import ModelError, UsageError
from treetune.core.records import TokenizedExample
from treetune.core.settings import TuneSettings
from treetune.models import quantized
from treetune.models.adapters import add_lora, base_of, refuse_combination, save_adapter
from treetune.models.batches import batches_of
from treetune.models.decoder import loss_sum
from treetune.models.exactness import prove
from treetune.models.family import load_head
from treetune.models.freeze import freeze_base, freeze_layers, layers_of
from treetune.models.gpt3 import GPT3Config
from treetune.models.load import load_model, locate
from treetune.models.merge import answers, merge_adapter

Rows = list[TokenizedExample]
Folder = Callable[..., Path]
SHAPE = {"vocab_size": 97, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
         "intermediate_size": 64, "max_position_embeddings": 64, "initializer_range": 0.1, "bos_token_id": 0,
         "eos_token_id": 0, "pad_token_id": 0}
CONFIGS = {
    "gpt3": lambda: GPT3Config(**SHAPE, attention_band=5), "llama": lambda: LlamaConfig(**SHAPE),
    "gpt2": lambda: GPT2Config(n_layer=2, n_head=4, n_embd=64, n_positions=64, vocab_size=97, bos_token_id=0,
                               eos_token_id=0, initializer_range=0.1),
}
LABELS = ("positive", "negative", "neutral")
PARTS: dict[str, Callable[[Any], Any]] = {
    "lora": lambda model: add_lora(model, 2, 4, 0.0),
    "dora": lambda model: add_lora(model, 2, 4, 0.0, dora=True),
    "rslora": lambda model: add_lora(model, 2, 4, 0.0, rank_stabilised=True),
    "frozen layers": lambda model: (freeze_layers(model, 1), model)[1],
    "probe": lambda model: (freeze_base(model), model)[1],
}


def model_of(kind: str) -> Any:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[kind]()).eval()


def stir(model: Any) -> Any:
    """Adapters start at zero, where nothing would show; as after some training they are not."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
            if "magnitude" in name:
                weight.mul_(1 + 0.1 * torch.rand_like(weight))
    return model


def flat_gradient(model: Any, rows: Rows, layout: str) -> tuple[torch.Tensor, set[str]]:
    model.eval().zero_grad(set_to_none=True)
    for batch in batches_of(rows, layout, 1 if layout == "padded" else 32, 60):
        loss_sum(model, batch).total.backward()
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return torch.cat([grad.flatten() for grad in found.values()]), set(found)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("kind", CONFIGS)
def test_trees_are_exact_with_every_way_of_training_a_part(rows: Rows, kind: str, part: str) -> None:
    model = stir(PARTS[part](model_of(kind)))
    truth, names = flat_gradient(model, rows, "padded")
    proof = prove(model, rows, "tree", 60)
    assert (proof.layout, proof.refused) == ("tree", ())
    ours, same = flat_gradient(model, rows, "tree")
    assert names == same == {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert (ours - truth).norm() / truth.norm() < 1e-5


@pytest.mark.parametrize("bits", quantized.BITS)
@pytest.mark.parametrize("kind", CONFIGS)
def test_trees_are_exact_over_bases_in_few_bits(rows: Rows, kind: str, bits: str, tmp_path: Path) -> None:
    model = stir(add_lora(in_few_bits(kind, bits, tmp_path), 2, 4, 0.0))
    truth, names = flat_gradient(model, rows, "padded")
    proof = prove(model, rows, "tree", 60)
    assert (proof.layout, proof.refused) == ("tree", ())
    assert all("lora" in name for name in names)
    assert (flat_gradient(model, rows, "tree")[0] - truth).norm() / truth.norm() < 1e-4


def in_few_bits(kind: str, bits: str, folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    pytest.importorskip("bitsandbytes")
    whole = model_of(kind)
    whole.save_pretrained(folder)
    how = quantized.quantization_of(bits)
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=how, dtype=torch.float32).eval()
    ids = torch.arange(1, 40)[None]
    with torch.no_grad():
        apart = (model(input_ids=ids).logits - whole(input_ids=ids).logits).norm() / whole(input_ids=ids).logits.norm()
    assert 1e-4 < apart < (0.05 if bits == "8bit" else 0.4), "rounded, but not to nothing"
    assert model.quantization_method is not None
    return model


def test_bits_that_the_machine_cannot_hold_are_refused_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(quantized, "find_spec", lambda name: None)
    with pytest.raises(ModelError) as caught:
        load_model(str(tmp_path / "absent"), load_in="4bit")
    assert caught.value.code == "E3016"
    assert "treetune[quantized]" in str(caught.value)


def test_a_device_without_kernels_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("no kernel")

    monkeypatch.setattr(functional, "quantize_4bit", broken)
    with pytest.raises(ModelError) as caught:
        load_model(str(tmp_path / "absent"), load_in="4bit")
    assert (caught.value.code, caught.value.found) == ("E3017", "no kernel")


@pytest.mark.parametrize(("given", "code"), [
    ({"use_dora": True}, "E2008"), ({"use_rslora": True}, "E2008"), ({"load_in": "4bit"}, "E2008"),
    ({"lora_r": 2, "random_init": True}, "E2007"), ({"lora_r": 2, "freeze_layers": 1}, "E2007"),
    ({"lora_r": 2, "freeze_base": True}, "E2007"), ({"freeze_base": True, "freeze_layers": 1}, "E2007")])
def test_settings_that_contradict_each_other_are_refused(given: dict[str, Any], code: str) -> None:
    with pytest.raises(UsageError) as caught:
        refuse_combination(TuneSettings(task="sentiment", data="absent", output_dir="absent", **given))
    assert caught.value.code == code


def test_settings_that_go_together_pass() -> None:
    for given in ({}, {"lora_r": 2, "use_dora": True, "use_rslora": True, "load_in": "8bit"}, {"freeze_layers": 3},
                  {"freeze_base": True, "random_init": True}):
        refuse_combination(TuneSettings(task="sentiment", data="absent", output_dir="absent", **given))


FROZEN = {  # kind, head -> weights that stay with one frozen layer, and what a probe of it trains
    ("bert", "classes"): (("embeddings.", "layer.0."), {"classifier."}),
    ("roberta", "classes"): (("embeddings.", "layer.0."), {"classifier.dense.", "classifier.out_proj."}),
    ("modernbert", "spans"): (("embeddings.", "layers.0."), {"head.dense.", "head.norm.", "classifier.",
                                                             "qa_outputs."}),
    ("t5", "seq2seq"): (("shared", "encoder.block.0."), {"decoder.final_layer_norm."}),
}


@pytest.mark.parametrize(("kind", "head"), FROZEN)
def test_what_is_frozen_is_what_is_said(kind: str, head: str, family_folder: Folder) -> None:
    frozen, probed = FROZEN[kind, head]
    loaded = load_model(str(family_folder(kind)), head=head, labels=LABELS if head == "classes" else ())
    freeze_layers(loaded.model, 1)
    held = {name for name, weight in loaded.model.named_parameters() if not weight.requires_grad}
    assert held
    assert all(any(part in name for part in frozen) for name in held)
    assert all(any(part in name for name in held) for part in frozen)
    loaded = load_model(str(family_folder(kind)), head=head, labels=LABELS if head == "classes" else ())
    freeze_base(loaded.model, loaded.fresh)
    trained = {name for name, weight in loaded.model.named_parameters() if weight.requires_grad}
    assert trained
    assert all(any(part in name for part in probed) or name in loaded.fresh for name in trained), trained
    assert set(loaded.fresh) <= trained, "a random weight would stay random"


def test_decoders_keep_their_tied_head_and_train_their_last_norm() -> None:
    model = model_of("gpt3")
    freeze_base(model)
    assert [name for name, weight in model.named_parameters() if weight.requires_grad] == [
        "transformer.ln_f.weight", "transformer.ln_f.bias"]
    model = model_of("llama")  # whose head is a matrix of its own
    freeze_base(model)
    assert [name for name, weight in model.named_parameters() if weight.requires_grad] == [
        "model.norm.weight", "lm_head.weight"]


def test_no_more_layers_can_be_frozen_than_there_are_and_something_must_be_left(family_config: Any) -> None:
    from transformers import AutoModelForSeq2SeqLM

    with pytest.raises(UsageError, match="E2009"):
        freeze_layers(model_of("gpt3"), 3)
    freeze_layers(model_of("gpt3"), 2)  # its last norm is left
    bart = AutoModelForSeq2SeqLM.from_config(family_config("bart"))
    assert len(layers_of(bart)) == 4
    with pytest.raises(UsageError, match="E2009"):
        freeze_base(bart)  # its layers end in norms of their own, its head is its embedding
    with pytest.raises(UsageError, match="E2009"):
        freeze_layers(bart, 4)


HEADS = [("bert", "classes", "SEQ_CLS"), ("roberta", "classes", "SEQ_CLS"), ("modernbert", "classes", "SEQ_CLS"),
         ("bert", "spans", "QUESTION_ANS"), ("t5", "seq2seq", "SEQ_2_SEQ_LM"), ("bart", "seq2seq", "SEQ_2_SEQ_LM")]


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize(("kind", "head", "task"), HEADS)
def test_saved_adapters_of_every_head_load_and_merge_to_the_same_answers(
    kind: str, head: str, task: str, dora: bool, family_folder: Folder, tmp_path: Path
) -> None:
    labels = LABELS if head == "classes" else ()
    base = tmp_path / "base"
    shutil.copytree(family_folder(kind), base)
    if kind == "t5":  # its random weights are so large that rounding alone moves its logits by a thousandth
        shrink(base / "model.safetensors", 0.4)
    loaded = load_model(str(base), head=head, labels=labels, seed=1)
    model = stir(add_lora(loaded.model, 2, 4, 0.0, task, dora=dora, fresh=loaded.fresh)).eval()
    wanted = answers(model, head)
    folder = tmp_path / "run" / "model"
    save_adapter(model, str(base), loaded.place, folder)
    loaded.tokenizer.save_pretrained(folder)
    # another seed: nothing of the head may come from chance
    again = load_model(str(folder), head=head, labels=labels, seed=99).model
    assert torch.allclose(answers(again, head), wanted, atol=1e-6)
    assert (answers(load_model(str(base), head=head, labels=labels, seed=1).model, head) - wanted).abs().max() > 1e-3
    merged = merge_adapter(folder, head=head, labels=labels)
    assert merged.difference <= 1e-5
    merged.save(tmp_path / "merged")
    plain = load_model(str(tmp_path / "merged"), head=head, labels=labels, seed=7)
    assert plain.fresh == ()
    assert torch.allclose(answers(plain.model, head), wanted, rtol=1e-4, atol=1e-4)
    assert json.loads((tmp_path / "merged" / "merge.json").read_text())["tolerance"] == 1e-4


def head_of(kind: str, head: str, config: Any) -> Any:
    """A model of random weights with that head, of which no file is known to lack anything."""
    import transformers

    torch.manual_seed(0)
    config.num_labels = len(LABELS) if head == "classes" else 2
    return getattr(transformers, load_head(head).AUTO_CLASS).from_config(config).eval()


@pytest.mark.parametrize("way", [{}, {"dora": True}, {"rank_stabilised": True}], ids=["lora", "dora", "rslora"])
@pytest.mark.parametrize(("kind", "head"), [("bert", "classes"), ("roberta", "classes"), ("modernbert", "classes"),
                                            ("bert", "spans"), ("roberta", "spans"), ("modernbert", "spans")])
def test_a_head_that_the_base_brings_along_is_trained_whole_and_gets_no_adapter(
    kind: str, head: str, way: dict[str, Any], family_config: Callable[..., Any]
) -> None:
    last = "qa_outputs" if head == "spans" and kind != "modernbert" else "classifier"
    model = add_lora(head_of(kind, head, family_config(kind)), 2, 4, 0.0, load_head(head).PEFT_TASK, **way)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    whole = {name for name in trained if f"{last}.modules_to_save." in name}
    assert whole
    assert not any("lora" in name for name in whole)
    assert all("lora" in name for name in trained - whole)
    adapted = {name for name, module in model.named_modules() if hasattr(module, "lora_A")}
    rest = {name for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and "lora" not in name and last not in name}
    assert {name.removesuffix(".base_layer") for name in rest} == adapted


def shrink(file: Path, factor: float) -> None:
    """Every weight of a file, made smaller."""
    weights = load_file(file)
    save_file({name: weight * factor for name, weight in weights.items()}, file, {"format": "pt"})


def saved(tmp_path: Path, kind: str = "gpt3", bits: str = "", tokenizer: Any = None) -> Path:
    """A base and the adapter of a run beside it."""
    base, folder = tmp_path / "base", tmp_path / "run" / "model"
    model_of(kind).save_pretrained(base)
    tokenizer.save_pretrained(base)
    loaded = load_model(str(base), load_in=bits)
    save_adapter(stir(add_lora(loaded.model, 2, 4, 0.0)), str(base), str(base), folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_base_in_4_bits_merges_with_its_rounding_and_one_in_8_bits_is_refused(
    tmp_path: Path, tokenizer: Any
) -> None:
    pytest.importorskip("bitsandbytes")
    merged = merge_adapter(saved(tmp_path / "four", bits="4bit", tokenizer=tokenizer), load_in="4bit")
    assert merged.difference <= 1e-4
    merged.save(tmp_path / "merged")
    assert "quantization_config" not in (tmp_path / "merged" / "config.json").read_text()
    apart = load_model(str(tmp_path / "four" / "run" / "model"), load_in="4bit").model
    plain = load_model(str(tmp_path / "merged")).model
    assert torch.allclose(answers(plain, "causal"), answers(apart, "causal"), atol=1e-3)
    with pytest.raises(ModelError) as caught:
        merge_adapter(saved(tmp_path / "eight", bits="8bit", tokenizer=tokenizer), load_in="8bit")
    assert caught.value.code == "E3019"


def test_a_merge_that_answers_otherwise_is_refused(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(tmp_path, tokenizer=tokenizer)
    from peft import LoraModel

    usual = LoraModel.merge_and_unload

    def wrong(self: Any, *args: Any, **kwargs: Any) -> Any:
        model = usual(self, *args, **kwargs)
        with torch.no_grad():
            model.transformer.h[1].mlp.c_fc.weight.mul_(1.01)
        return model

    monkeypatch.setattr(LoraModel, "merge_and_unload", wrong)
    with pytest.raises(ModelError, match="E3019"):
        merge_adapter(folder)
    with pytest.raises(ModelError, match="E3008"):
        merge_adapter(tmp_path / "base")


def test_base_and_run_move_together_and_another_base_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    folder = saved(tmp_path / "here", tokenizer=tokenizer)
    wanted = answers(load_model(str(folder)).model, "causal")
    everything = "".join(path.read_text() for path in folder.glob("*.json")) + " ".join(
        path.name for path in folder.iterdir())
    assert str(tmp_path) not in everything
    assert "README.md" not in everything
    shutil.move(tmp_path / "here", tmp_path / "there")
    moved = tmp_path / "there" / "run" / "model"
    assert base_of(moved) == str(tmp_path / "there" / "base")
    assert torch.equal(answers(load_model(str(moved)).model, "causal"), wanted)
    other = model_of("gpt3")
    with torch.no_grad():
        other.transformer.wte.weight.add_(1)
    other.save_pretrained(tmp_path / "there" / "base")
    with pytest.raises(ModelError) as caught:
        locate(str(moved))
    assert caught.value.code == "E3018"


def test_an_adapter_is_no_base(tmp_path: Path, tokenizer: Any) -> None:
    folder = saved(tmp_path, tokenizer=tokenizer)
    with pytest.raises(ModelError, match="E3020"):
        refuse_combination(TuneSettings(task="sentiment", data="x", output_dir="x", model=str(folder)))
