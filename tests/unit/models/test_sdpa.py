"""Attention under bfloat16 autocast on a CPU: as exact as its inputs allow, in the type that the model expects."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from treetune.models.sdpa import attention, widened

SHAPE = (1, 2, 7, 8)


def states(dtype: torch.dtype, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first, second, third = (torch.randn(SHAPE, generator=generator).to(dtype) for _ in range(3))
    return first, second, third


def test_autocast_does_not_round_inside_attention() -> None:
    query, key, value = states(torch.float32)
    exact = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        found = attention(query, key, value, causal=True)
    assert rounded.dtype == torch.bfloat16, "autocast lowers it by itself: the case this file is for"
    torch.testing.assert_close(found, exact, rtol=0, atol=0)


def test_bfloat16_states_come_back_as_bfloat16_and_are_rounded_once() -> None:
    query, key, value = states(torch.bfloat16)
    exact = functional.scaled_dot_product_attention(query.float(), key.float(), value.float())
    found = attention(query, key, value)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, exact.bfloat16(), rtol=0, atol=0)


def test_gradients_reach_bfloat16_states_in_their_own_type() -> None:
    query, key, value = (each.requires_grad_() for each in states(torch.bfloat16))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        attention(query, key, value, causal=True).float().sum().backward()
    for each in (query, key, value):
        assert each.grad is not None
        assert each.grad.dtype == torch.bfloat16
    assert float(value.grad.float().abs().sum()) > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_other_types_are_left_alone(dtype: torch.dtype) -> None:
    query, key, value = states(dtype)
    assert all(one is other for one, other in zip(widened(query, key, value), (query, key, value), strict=True))
    allowed = torch.ones(SHAPE[2], SHAPE[2], dtype=torch.bool).tril()
    torch.testing.assert_close(attention(query, key, value, allowed), attention(query, key, value, causal=True))


def test_autocast_goes_on_behind_attention() -> None:
    query, key, value = states(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        attention(query, key, value)
        assert torch.is_autocast_enabled("cpu")
        assert (query @ key.transpose(-1, -2)).dtype == torch.bfloat16
