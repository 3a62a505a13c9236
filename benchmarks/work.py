"""How many floating-point operations one step needs, whatever a system really does.

Needed are: the matrix products of every *unique* token (forward, and in the backward pass the gradients of inputs
and of trained weights), attention over allowed pairs only, in the last layer queries, output projection and MLP at
labels only, and the head at labels only. Where one projection makes queries, keys and values, the last layer needs
keys and values of all tokens, or labels that see the states themselves, whichever is less. Norms, activations, softmax
and the optimizer count nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from treetune.core.records import TokenizedExample
from treetune.trees.build import build_tree


@dataclass(frozen=True)
class Dimensions:
    """Of a decoder: weights of one layer's matrices (those that make keys and values apart), width of all query heads,
    width of the stream, vocabulary, the band of each layer (None: dense), and the query heads where one projection
    makes queries, keys and values (0: several do).
    """

    key_value: int
    others: int
    query_width: int
    width: int
    vocabulary: int
    bands: tuple[int | None, ...]
    joint_heads: int = 0


def dimensions_of(model: Any) -> Dimensions:
    """Of a GPT-2, GPT-3 or Llama-like model, adapters set aside."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    config = base.config
    layers = base.transformer.h if hasattr(base, "transformer") else base.model.layers
    key_value = others = 0
    for name, weight in layers[0].named_parameters():
        if weight.dim() != 2 or "lora_" in name:
            continue
        if "c_attn" in name:
            key_value += weight.numel() * 2 // 3
            others += weight.numel() // 3
        elif "k_proj" in name or "v_proj" in name:
            key_value += weight.numel()
        else:
            others += weight.numel()
    head_width = getattr(config, "head_width", None) or getattr(config, "head_dim", None) \
        or config.hidden_size // config.num_attention_heads
    band = getattr(config, "band_of_layer", lambda layer: None)
    return Dimensions(key_value, others, head_width * config.num_attention_heads, config.hidden_size,
                      config.vocab_size, tuple(band(layer) for layer in range(config.num_hidden_layers)),
                      config.num_attention_heads if hasattr(base, "transformer") else 0)


def needed_flops(shape: Dimensions, rows: Sequence[TokenizedExample], *, all_weights: bool) -> float:
    """FLOPs of one training step on ``rows``, which are one tree.

    Args:
        all_weights: False where matrices are frozen (LoRA): their gradients are not needed. The adapters' own
            products, about 1 %, are not counted.
    """
    tree = build_tree(rows)
    labels = np.unique(tree.label_index)
    passes = 3 if all_weights else 2  # forward; gradient of the input; gradient of the weights
    tokens, at_labels = len(tree.input_ids), len(labels)
    total = 0.0
    for layer, band in enumerate(shape.bands):
        last = layer == len(shape.bands) - 1
        seen = np.minimum(tree.depth + 1, band) if band else tree.depth + 1
        pairs = float((seen[labels] if last else seen).sum())
        total += 2 * passes * shape.others * (at_labels if last else tokens)
        made = 2 * passes * shape.key_value * tokens + 3 * 4 * shape.query_width * pairs  # two products, four backward
        if last and all_weights and shape.joint_heads:
            doing_without = 2 * passes * shape.key_value * at_labels + 3 * 4 * shape.joint_heads * shape.width * pairs
            made = min(made, doing_without)
        total += made
    return total + 2 * passes * shape.width * shape.vocabulary * at_labels
