"""A model folder that transformers opens alone: no adapter, no code of ours where GPT-2 says the same.

GPT-3 with dense attention is GPT-2 with its matrices stored the other way round. A banded layer that never sees more
tokens than its band is dense, too: up to that many tokens a row, the same weights are a GPT-2 exactly.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from treetune.core.errors import ModelError
from treetune.core.files import write_json
from treetune.models.gpt3 import GPT3Config, GPT3LMHeadModel
from treetune.models.load import quiet_transformers

MATRICES = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # GPT-2 keeps them transposed (Conv1D)
KEPT = ("vocab_size", "n_embd", "n_layer", "n_head", "n_inner", "activation_function", "resid_pdrop", "embd_pdrop",
        "attn_pdrop", "layer_norm_epsilon", "initializer_range", "bos_token_id", "eos_token_id", "pad_token_id",
        "tie_word_embeddings")


def is_gpt3(model: Any) -> bool:
    """Whether the model is of our own architecture."""
    return isinstance(model.config, GPT3Config)


def why_not_gpt2(config: GPT3Config, window: int) -> str:
    """Why a GPT-3 is no GPT-2 for rows of at most ``window`` tokens; "" where it is one."""
    bands = [band for layer in range(config.n_layer) if (band := config.band_of_layer(layer)) is not None]
    if bands and min(bands) < window:
        return f"{len(bands)} of {config.n_layer} layers see {min(bands)} tokens back; rows have up to {window}"
    if config.head_width * config.n_head != config.n_embd:
        return f"{config.n_head} heads of {config.head_width} are not its width {config.n_embd}"
    return ""


def refuse_banded(config: GPT3Config, window: int, form: str) -> None:
    """Engines outside know no layers that see only a band: they would compute something else without a word.

    Raises:
        ModelError: E2803.
    """
    reason = why_not_gpt2(config, window)
    if reason:
        raise ModelError(
            "E2803", "a GPT-3 with banded layers cannot be written as {form}: its readers know dense attention only",
            form=form, where="--max-length", found=reason, allowed="--max-length up to the band, or dense layers",
            do="give --max-length, e.g. 128 for the shipped base; longer rows then lose text at their end; or choose "
            "--to safetensors")


@torch.no_grad()
def as_gpt2(model: GPT3LMHeadModel, window: int) -> GPT2LMHeadModel:
    """The same function of rows of at most ``window`` tokens as a GPT-2; asked of `why_not_gpt2` first."""
    old = model.config
    config = GPT2Config(n_positions=window, **{name: getattr(old, name) for name in KEPT})
    for name in ("id2label", "label2id"):
        setattr(config, name, getattr(old, name))
    weights = {name: tensor.T.contiguous() if name.endswith(MATRICES) else tensor
               for name, tensor in model.state_dict().items()}
    weights["transformer.wpe.weight"] = weights["transformer.wpe.weight"][:window].clone()
    gpt2 = GPT2LMHeadModel(config)
    gpt2.load_state_dict(weights, strict=True)
    gpt2.tie_weights()
    gpt2.generation_config = model.generation_config
    return gpt2.eval()


def plain_model(model: Any, window: int) -> Any:
    """The model as one of transformers' own where there is such a one; else as it is."""
    if is_gpt3(model) and not why_not_gpt2(model.config, window):
        return as_gpt2(model, window)
    return model


def save_plain(model: Any, tokenizer: Any, window: int, folder: Path) -> None:
    """Model and tokenizer in Hugging Face layout."""
    with quiet_transformers():
        model.save_pretrained(folder)
    save_tokenizer(tokenizer, window, folder)
    if not is_gpt3(model):
        name_known_tokenizer(folder)


def save_tokenizer(tokenizer: Any, window: int, folder: Path) -> None:
    """The tokenizer with the window written into it, for tools that cut by themselves."""
    before, tokenizer.model_max_length = tokenizer.model_max_length, window
    tokenizer.save_pretrained(folder)
    tokenizer.model_max_length = before


def name_known_tokenizer(folder: Path) -> None:
    """Our tokenizer is GPT-2's under another name, which only treetune knows."""
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.get("tokenizer_class", "").startswith("GPT3Tokenizer"):
        write_json(path, {**content, "tokenizer_class": "GPT2Tokenizer"})
