"""The last layer at labelled tokens only: nothing behind it reads the others.

Keys and values are computed for every token, queries and all that follows for the K' labelled ones; where these are
few, not even keys and values (`folded`). One function for each shape of layer; layers of other shapes are left alone.
Letters: T tokens, K' labelled tokens, D width, H heads, d width of a head.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers.pytorch_utils import Conv1D

from treetune.models.low_rank import adapted, is_plain
from treetune.models.projection import project
from treetune.models.tree_attention import attend

LLAMA_LIKE = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer")
Pruned = Callable[..., torch.Tensor]


def can_prune(core: Any) -> bool:
    """Whether the last layer has a shape known here, or the model prunes by itself."""
    return bool(getattr(core, "takes_tree", False)) or _form_of(_last_layer(core)) is not None


def prune(core: Any) -> None:
    """Give the last layer a forward that, for a tree whose layout says ``pruned``, computes labelled tokens only."""
    layer = _last_layer(core)
    form = _form_of(layer)
    if layer is None or form is None or "forward" in vars(layer):
        return

    def forward(self: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        tree = kwargs.get("tree")
        if tree is None or not tree.pruned:  # asked of the class: a copy of the layer must not run the one it copies
            return type(self).forward(self, hidden_states, *args, **kwargs)
        return form(self, hidden_states, **kwargs)

    layer.forward = MethodType(forward, layer)


def _last_layer(core: Any) -> Any:
    for name in ("h", "layers"):
        layers = getattr(core.base_model, name, None)
        if isinstance(layers, torch.nn.ModuleList) and len(layers):
            return layers[-1]
    return None


def _form_of(layer: Any) -> Pruned | None:
    name = type(layer).__name__.removeprefix("FSDP")  # as fully_shard calls the class of what it shards
    if name == "GPT2Block" and not hasattr(layer, "crossattention"):
        return gpt2_block
    return llama_layer if name in LLAMA_LIKE else None


def gpt2_block(layer: Any, hidden: torch.Tensor, tree: Any, **_: Any) -> torch.Tensor:
    """A block of GPT-2: (1, T, D) -> (1, T, D), zeros at tokens without a label, as the model insists on T tokens."""
    attention = layer.attn
    at = torch.from_numpy(tree.columns).to(hidden.device)
    mixed = labelled_attention(attention.c_attn, layer.ln_1(hidden), at, attention.num_heads, tree,
                               scale=attention.scaling, dropout=attention.attn_dropout.p if layer.training else 0.0)
    mixed = attention.resid_dropout(attention.c_proj(mixed.transpose(1, 2).flatten(2)))
    states = hidden.index_select(1, at) + mixed
    return torch.zeros_like(hidden).index_copy(1, at, states + layer.mlp(layer.ln_2(states)))


def labelled_attention(
    joint: Any, states: torch.Tensor, at: torch.Tensor, heads: int, tree: Any, *,
    scale: float | None = None, window: int | None = None, dropout: float = 0.0,
) -> torch.Tensor:
    """Attention of the tokens ``at``, for one projection to queries, keys and values: (1, T, D) -> (1, H, K', d)."""
    asking, width = states[0].index_select(0, at), joint_width(joint) // 3
    weight, whole = plain_weight(joint), not (dropout or torch.is_autocast_enabled(states.device.type))
    if weight is not None and whole and tree.folds(window, width // heads):
        return folded(weight, joint.bias, asking, states, heads, tree, window=window, scale=scale)
    query, both = outputs_of(joint, asking, slice(0, width)), outputs_of(joint, states[0], slice(width, None))
    query, key, value = (each.reshape(len(each), heads, -1).transpose(0, 1)[None]
                         for each in (query, *both.chunk(2, dim=1)))
    return attend(query, key, value, tree, window=window, scale=scale, labels_only=True, dropout=dropout)


def folded(
    weight: torch.Tensor, bias: torch.Tensor, asking: torch.Tensor, states: torch.Tensor, heads: int, tree: Any, *,
    window: int | None, scale: float | None,
) -> torch.Tensor:
    """The same without keys and values: weight (3 H d, D), bias (3 H d,), asking (K', D), states (1, T, D).

    A query times a key, q · (W x + b), is (Wᵀ q) · x and a number that is one for all keys, which softmax does not see.
    The mean of values W x + b is W times the mean of x, and b. So the states themselves are keys and values.
    """
    (by_query, by_key, by_value), (of_query, _, of_value) = weight.chunk(3), bias.chunk(3)
    width = len(by_query) // heads
    query = torch.nn.functional.linear(asking, by_query, of_query).view(-1, heads, width).transpose(0, 1)
    asked = torch.bmm(query, by_key.view(heads, width, -1))
    scale = width**-0.5 if scale is None else scale
    mixed = attend(asked[None], states[:, None], states[:, None], tree, window=window, scale=scale, labels_only=True)
    by_head = by_value.view(heads, width, -1).transpose(1, 2)
    return torch.baddbmm(of_value.view(heads, 1, width), mixed[0], by_head)[None]


def plain_weight(joint: Any) -> torch.Tensor | None:
    """The (O, I) matrix of a plain projection with a bias; None where it is wrapped, or cut into parts."""
    if type(joint) not in (Conv1D, torch.nn.Linear) or joint.bias is None or isinstance(joint.weight, DTensor):
        return None
    found: torch.Tensor = joint.weight
    return found.T if type(joint) is Conv1D else found


def joint_width(joint: Any) -> int:
    """Outputs of a joint projection, whatever is around it."""
    base = getattr(joint, "base_layer", joint)
    return int(base.nf if isinstance(base, Conv1D) else base.out_features)


def outputs_of(projection: Any, states: torch.Tensor, outputs: slice) -> torch.Tensor:
    """Some outputs of a joint projection: (T, D) -> (T, their number)."""
    weight = plain_weight(projection)
    if weight is not None:
        return project(states, weight[outputs], projection.bias[outputs])
    if hasattr(projection, "base_layer") and is_plain(projection, states):
        return adapted(projection, states, outputs)
    found: torch.Tensor = projection(states)  # wrapped otherwise: its parts cannot be taken apart
    return found[:, outputs]


def llama_layer(layer: Any, hidden: torch.Tensor, tree: Any, **kwargs: Any) -> torch.Tensor:
    """A layer of Llama, Mistral, Qwen2 or Qwen3: (1, T, D) -> (1, K', D)."""
    attention = layer.self_attn
    at = torch.from_numpy(tree.columns).to(hidden.device)
    normed = layer.input_layernorm(hidden)
    cos, sin = kwargs["position_embeddings"]
    query, key, value = (
        project(states).unflatten(-1, (-1, attention.head_dim))
        for project, states in ((attention.q_proj, normed.index_select(1, at)), (attention.k_proj, normed),
                                (attention.v_proj, normed))
    )
    if hasattr(attention, "q_norm"):
        query, key = attention.q_norm(query), attention.k_norm(key)
    query, key, value = (each.transpose(1, 2) for each in (query, key, value))
    rotate = sys.modules[type(attention).__module__].apply_rotary_pos_emb
    query = rotate(query, query, cos.index_select(1, at), sin.index_select(1, at))[0]
    key = rotate(key, key, cos, sin)[1]
    window = getattr(attention, "sliding_window", None) or (
        getattr(attention.config, "sliding_window", None) if type(layer).__name__ == "MistralDecoderLayer" else None
    )
    mixed = attend(query, key, value, tree, window=window, scale=attention.scaling, labels_only=True,
                   dropout=attention.attention_dropout if layer.training else 0.0)
    states = hidden.index_select(1, at) + attention.o_proj(mixed.transpose(1, 2).flatten(2))
    out: torch.Tensor = states + layer.mlp(layer.post_attention_layernorm(states))
    return out


