"""The fast layer against the formulas of the mission."""

import math
from collections.abc import Callable

import torch

from treetune.models.gpt3 import GPT3LMHeadModel
from treetune.models.gpt3.reference import attend, attention_weights


def test_one_head_with_identity_values_is_the_formula(make_gpt3: Callable[..., GPT3LMHeadModel]) -> None:
    layer = make_gpt3(n_head=1, n_embd=16).double().transformer.h[0].attn
    with torch.no_grad():
        query, key = layer.c_attn.weight[:16].T.clone(), layer.c_attn.weight[16:32].T.clone()
        layer.c_attn.weight[32:] = torch.eye(16)
        layer.c_attn.bias.zero_()
        layer.c_proj.weight.copy_(torch.eye(16))
        layer.c_proj.bias.zero_()
    inputs = torch.randn(7, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for allowed in (torch.ones(7, 7, dtype=torch.bool).tril(), torch.ones(7, 7, dtype=torch.bool).tril().triu(-2)):
        expected = attend(inputs, query @ key.T / math.sqrt(16), allowed)
        for need_weights in (False, True):
            mixed, weights = layer(inputs[None], allowed[None, None], None, need_weights)
            assert torch.allclose(mixed[0], expected, atol=1e-12)
        assert torch.allclose(weights[0, 0], attention_weights(inputs, query @ key.T / 4, allowed), atol=1e-12)


def test_weights_sum_to_one_and_are_zero_where_not_allowed() -> None:
    inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    allowed = torch.ones(5, 5, dtype=torch.bool).tril()
    weights = attention_weights(inputs, torch.eye(3), allowed)
    assert torch.allclose(weights.sum(-1), torch.ones(5))
    assert (weights[~allowed] == 0).all()


def test_without_preference_a_token_gets_the_mean_of_what_it_sees() -> None:
    inputs = torch.arange(8.0).view(4, 2)
    mixed = attend(inputs, torch.zeros(2, 2), torch.ones(4, 4, dtype=torch.bool).tril())
    assert torch.allclose(mixed[3], inputs.mean(0))
    assert torch.allclose(mixed[0], inputs[0])
