"""Scaled-dot-product attention in the precision that is fastest where it runs.

torch's kernel for bfloat16 on CPUs goes back through attention several times slower than the one for float32 (1.2
against 0.16 s in a step of short rows over an 82 M GPT-2, AMX or not), so under autocast there the states are widened.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch.nn import functional


def widened(*states: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The states, in float32 where attention would run in bfloat16 on a CPU."""
    if states[0].device.type != "cpu" or not (_lowered() or states[0].dtype == torch.bfloat16):
        return states
    return tuple(each.float() for each in states)


def attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, allowed: torch.Tensor | None = None, *,
    dropout: float = 0.0, scale: float | None = None, causal: bool = False,
) -> torch.Tensor:
    """``torch.nn.functional.scaled_dot_product_attention`` on `widened` states; the result has the values' type.

    Args:
        allowed: (queries, keys) bool, True where a query sees a key; or to be added, in the type of `widened` states.
    """
    wide_query, wide_key, wide_value = widened(query, key, value)
    lowered = query.device.type == "cpu" and _lowered()
    with torch.autocast("cpu", enabled=False) if lowered else nullcontext():  # it would make them narrow again
        mixed = functional.scaled_dot_product_attention(
            wide_query, wide_key, wide_value, attn_mask=allowed, dropout_p=dropout, scale=scale, is_causal=causal)
    return mixed.to(value.dtype)


def _lowered() -> bool:
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
