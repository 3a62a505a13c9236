"""Weights counted from a configuration are those of the real classes, on the meta device, with LoRA and without."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treetune.core.errors import UsageError
from treetune.plan.architecture import READERS, read

CASES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("gpt2", "GPT2Config", "causal", {}),
    ("gpt2 by hand", "GPT2Config", "causal", {"n_embd": 96, "n_layer": 3, "n_head": 4, "vocab_size": 500,
                                              "n_inner": 200}),
    ("gpt3", "GPT3Config", "causal", {"n_embd": 96, "n_layer": 3, "n_head": 4, "d_head": 32, "vocab_size": 500}),
    ("neox", "GPTNeoXConfig", "causal", {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
                                         "intermediate_size": 300, "vocab_size": 500}),
    ("llama", "LlamaConfig", "causal", {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
                                        "num_key_value_heads": 2, "intermediate_size": 300, "vocab_size": 500}),
    ("llama with biases", "LlamaConfig", "causal", {
        "hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 300,
        "vocab_size": 500, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    ("llama 7B", "LlamaConfig", "causal", {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
                                           "intermediate_size": 11008, "vocab_size": 32000}),
    ("mistral", "MistralConfig", "causal", {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
                                            "num_key_value_heads": 2, "intermediate_size": 300, "vocab_size": 500}),
    ("qwen2", "Qwen2Config", "causal", {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
                                        "num_key_value_heads": 2, "intermediate_size": 300, "vocab_size": 500}),
    ("qwen3", "Qwen3Config", "causal", {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
                                        "num_key_value_heads": 2, "head_dim": 40, "intermediate_size": 300,
                                        "vocab_size": 500, "tie_word_embeddings": True}),
    ("bert masked", "BertConfig", "masked", {}),
    ("bert classes", "BertConfig", "classes", {}),
    ("bert spans", "BertConfig", "spans", {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}),
    ("roberta classes", "RobertaConfig", "classes", {"hidden_size": 96, "num_hidden_layers": 3,
                                                     "num_attention_heads": 4}),
    ("roberta spans", "RobertaConfig", "spans", {"hidden_size": 96, "num_hidden_layers": 3,
                                                 "num_attention_heads": 4}),
    ("roberta masked", "RobertaConfig", "masked", {"hidden_size": 96, "num_hidden_layers": 3,
                                                   "num_attention_heads": 4}),
    ("t5", "T5Config", "seq2seq", {}),
    ("t5 gated", "T5Config", "seq2seq", {"feed_forward_proj": "gated-gelu", "num_decoder_layers": 2,
                                         "tie_word_embeddings": False}),
    ("bart", "BartConfig", "seq2seq", {"encoder_layers": 2, "decoder_layers": 3, "d_model": 96,
                                       "encoder_ffn_dim": 200, "decoder_ffn_dim": 300, "encoder_attention_heads": 4,
                                       "decoder_attention_heads": 4}),
    ("mbart", "MBartConfig", "seq2seq", {"encoder_layers": 2, "decoder_layers": 3, "d_model": 96,
                                         "encoder_attention_heads": 4, "decoder_attention_heads": 4}),
    ("marian", "MarianConfig", "seq2seq", {"encoder_layers": 2, "decoder_layers": 3, "d_model": 96,
                                           "encoder_attention_heads": 4, "decoder_attention_heads": 4,
                                           "vocab_size": 600, "pad_token_id": 1}),
]


def config_of(name: str, values: dict[str, Any]) -> Any:
    import transformers

    from treetune.models.gpt3 import GPT3Config

    return GPT3Config(**values) if name == "GPT3Config" else getattr(transformers, name)(**values)


def on_meta(config: Any, head: str) -> Any:
    import torch
    import transformers

    from treetune.models.family import load_head

    with torch.device("meta"):
        return getattr(transformers, load_head(head).AUTO_CLASS).from_config(config)


@pytest.mark.parametrize(("config_name", "head", "values"), [case[1:] for case in CASES],
                         ids=[case[0] for case in CASES])
def test_parameters_are_those_of_the_real_model_with_and_without_lora(
    config_name: str, head: str, values: dict[str, Any]
) -> None:
    from treetune.models.adapters import add_lora
    from treetune.models.family import load_head

    config = config_of(config_name, values)
    if head == "classes":
        config.num_labels = 3
    model = on_meta(config, head)
    counted = read(config.to_dict(), head, 3)
    assert counted.parameters == sum(weight.numel() for weight in model.parameters())
    adapted = add_lora(model, 8, 16, 0.0, load_head(head).PEFT_TASK)
    assert counted.lora_parameters(8) == sum(w.numel() for w in adapted.parameters() if w.requires_grad)


def test_an_unknown_kind_is_named_with_those_that_are_known() -> None:
    with pytest.raises(UsageError, match="E2050") as caught:
        read({"model_type": "mamba"})
    assert "gpt3" in caught.value.allowed
    assert "mamba" in str(caught.value)


def test_a_configuration_without_an_entry_is_refused() -> None:
    with pytest.raises(UsageError, match="E2051"):
        read({"model_type": "llama", "hidden_size": 8})


def test_by_part_adds_up() -> None:
    found = read({"model_type": "gpt2"})
    assert found.parameters == sum(found.by_part.values()) == 124_439_808  # the published GPT-2
    assert set(found.by_part) == {"embedding", "positions", "attention", "feed-forward", "norms"}


@given(st.integers(1, 48), st.integers(1, 32), st.integers(1, 64))
@settings(max_examples=50, deadline=None)
def test_adapters_grow_with_their_rank_and_stay_below_the_model(layers: int, heads: int, rank: int) -> None:
    found = read({"model_type": "gpt2", "n_embd": 16 * heads, "n_head": heads, "n_layer": layers})
    assert found.lora_parameters(rank) == rank * found.lora_parameters(1)
    assert found.lora_parameters(rank) > 0
    assert set(READERS) >= {"gpt2", "gpt3", "llama", "qwen3", "bert", "t5"}
