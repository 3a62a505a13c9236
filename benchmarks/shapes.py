"""The models that are measured: shapes with seeded random weights, or the shipped base, saved for all."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

SHAPES = ("gpt2-82m", "gpt3-base", "llama-0.1b", "gpt3-xl", "qwen3-0.6b", "tiny")  # gpt3-xl, qwen3-0.6b: for a GPU


def save_shape(shape: str, folder: Path) -> None:
    """Weights and tokenizer into ``folder``. Every shape takes the shipped base's tokenizer (8,192 entries), so in
    the larger vocabularies only the small ids occur; their head and embedding cost what they always cost.
    """
    import torch

    from treetune.models.load import load_model

    base = load_model("gpt3")
    torch.manual_seed(0)
    model = base.model if shape == "gpt3-base" else random_model(shape, base.tokenizer)
    model.float().save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)


def random_model(shape: str, tokenizer: Any) -> Any:
    """A public transformers model without dropout, so that the losses of all systems can be compared."""
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        Qwen3Config,
        Qwen3ForCausalLM,
    )

    from treetune.models.gpt3 import GPT3Config, GPT3LMHeadModel

    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
           "pad_token_id": tokenizer.pad_token_id}
    dry = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    if shape == "gpt2-82m":
        return GPT2LMHeadModel(GPT2Config(vocab_size=50257, n_positions=1024, n_embd=768, n_layer=6, n_head=12,
                                          **dry, **ids))
    if shape == "llama-0.1b":
        return LlamaForCausalLM(LlamaConfig(
            vocab_size=32000, hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12,
            num_key_value_heads=4, max_position_embeddings=1024, tie_word_embeddings=True, **ids))
    if shape == "gpt3-xl":
        return GPT3LMHeadModel(GPT3Config.paper("XL", **dry, **ids))
    if shape == "qwen3-0.6b":
        return Qwen3ForCausalLM(Qwen3Config(
            vocab_size=151936, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16,
            num_key_value_heads=8, head_dim=128, max_position_embeddings=4096, tie_word_embeddings=True, **ids))
    if shape == "tiny":
        return GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_positions=512, n_embd=32, n_layer=2, n_head=2,
                                          **dry, **ids))
    raise ValueError(f"no shape {shape!r}; there are {', '.join(SHAPES)}")


def load_for_peer(folder: str) -> Any:
    """The saved model as any user of transformers loads it, in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    import treetune.models.gpt3  # noqa: F401  (registers the shipped base's kind)

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def with_lora(model: Any, rank: int) -> Any:
    """The same seeded adapters for every system; rank 0: the model itself."""
    import torch

    from treetune.models.adapters import add_lora

    if not rank:
        return model
    torch.manual_seed(0)
    with warnings.catch_warnings():
        # GPT-2 keeps its matrices transposed; peft notices, corrects its own setting and warns of it
        warnings.filterwarnings("ignore", message="fan_in_fan_out")
        return add_lora(model, rank, 2 * rank, 0.0)
