"""GGUF: tensors come back bit by bit, and another reader makes the same model of them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from treetune.core.errors import ModelError
from treetune.models.load import LoadedModel

gguf = pytest.importorskip("gguf")

from treetune.models.export import gguf as form  # noqa: E402

Small = Callable[..., LoadedModel]


@pytest.fixture
def llama(byte_tokenizer: Any) -> Callable[..., LoadedModel]:
    def make(**settings: Any) -> LoadedModel:
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**{
            "vocab_size": len(byte_tokenizer), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 48,
            "initializer_range": 0.2, "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 0, **settings}))
        return LoadedModel(model.eval(), byte_tokenizer, 48, "llama")

    return make


@torch.no_grad()
def same_logits(one: LoadedModel, two: LoadedModel, rows: torch.Tensor) -> bool:
    gap = one.model(input_ids=rows, use_cache=False).logits - two.model(input_ids=rows, use_cache=False).logits
    return bool(gap.abs().max() < 1e-4)


def test_a_dense_gpt3_comes_back_through_another_reader(small: Small, rows: torch.Tensor, tmp_path: Path) -> None:
    loaded = small(attention_pattern="dense")
    written = form.write(loaded, 48, "float32", tmp_path / "out")
    assert written["tensors"] == written["tensors_equal"] == 4 + 12 * 3
    assert same_logits(form.read(tmp_path / "out", loaded, "float32"), loaded, rows)
    fields = gguf.GGUFReader(str(tmp_path / "out" / form.FILE)).fields
    assert fields["tokenizer.ggml.pre"].contents() == "gpt-2"
    assert fields["tokenizer.ggml.add_bos_token"].contents() is True
    tokens = fields["tokenizer.ggml.tokens"].contents()
    assert tokens == loaded.tokenizer.convert_ids_to_tokens(list(range(len(loaded.tokenizer))))
    assert fields["tokenizer.ggml.token_type"].contents()[0] == int(gguf.TokenType.CONTROL)


@pytest.mark.parametrize("tied", [True, False])
def test_llamas_heads_are_interleaved_as_its_readers_expect(
    tied: bool, llama: Small, rows: torch.Tensor, tmp_path: Path
) -> None:
    loaded = llama(tie_word_embeddings=tied, rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    form.write(loaded, 48, "float32", tmp_path / "out")
    assert same_logits(form.read(tmp_path / "out", loaded, "float32"), loaded, rows)
    fields = gguf.GGUFReader(str(tmp_path / "out" / form.FILE)).fields
    assert fields["llama.rope.freq_base"].contents() == 500.0


def test_one_flipped_bit_is_seen(small: Small, tmp_path: Path) -> None:
    loaded = small(attention_pattern="dense")
    form.write(loaded, 48, "float32", tmp_path / "out")
    tensors = form.tensors_of(form.plain_model(loaded.model, 48), "gpt2")
    assert form.compare(tmp_path / "out" / form.FILE, tensors)["tensors_equal"] == len(tensors)
    name = "blk.1.attn_qkv.weight"
    tensors[name] = tensors[name].copy()
    tensors[name].view(np.uint32)[0, 0] ^= 1
    with pytest.raises(ModelError, match="E2808") as caught:
        form.compare(tmp_path / "out" / form.FILE, tensors)
    assert name in str(caught.value)


@pytest.mark.parametrize("settings", [
    {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}}, {"attention_bias": True},
    {"hidden_act": "gelu"}])
def test_what_the_file_has_no_place_for_is_refused(settings: dict[str, Any], llama: Small, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="E2806"):
        form.write(llama(**settings), 48, "float32", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tokenizers_that_llama_cpp_splits_otherwise_are_refused(
    small: Small, family_tokenizer: Callable[[str], Any], tmp_path: Path
) -> None:
    loaded = small(attention_pattern="dense")
    state = json.loads(loaded.tokenizer.backend_tokenizer.to_str())
    assert form.pre_of(state) == "gpt-2"
    assert form.pre_of({**state, "normalizer": {"type": "NFC"}}) == ""
    assert form.pre_of({**state, "pre_tokenizer": {"type": "Whitespace"}}) == ""
    llama3 = {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": form.LLAMA3_SPLIT}}, {"type": "ByteLevel", "use_regex": False}]}
    assert form.pre_of({**state, "pre_tokenizer": llama3}) == "llama-bpe"
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(ModelError, match="E2807"):
        form.write(replace(loaded, tokenizer=words), 48, "float32", tmp_path / "out")


def test_the_modelfile_holds_the_prompt_and_greedy_answers(tmp_path: Path) -> None:
    form.write_modelfile(tmp_path, ["Review: ", None, "\nSentiment:"], 8, "<|endoftext|>")
    text = (tmp_path / "Modelfile").read_text("utf-8")
    assert 'TEMPLATE """Review: {{ .Prompt }}\nSentiment:"""' in text
    assert {"FROM ./model.gguf", "PARAMETER temperature 0", "PARAMETER num_predict 8",
            'PARAMETER stop "<|endoftext|>"'} <= set(text.splitlines())
    form.write_modelfile(tmp_path, ["", None], 8, "</s>")
    assert 'TEMPLATE """{{ .Prompt }}"""' in (tmp_path / "Modelfile").read_text("utf-8")


def test_what_a_template_would_read_as_its_own_stays_text(tmp_path: Path) -> None:
    form.write_modelfile(tmp_path, ['Write {{name}} and """ as they stand.\n', None], 8, "</s>")
    assert ('TEMPLATE """Write {{ "{{" }}name}} and {{ "\\"\\"\\"" }} as they stand.\n{{ .Prompt }}"""'
            in (tmp_path / "Modelfile").read_text("utf-8"))
