"""A tied matrix gets one gradient from both its uses, whether or not the head's part waits for the embedding's."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from treetune.core.records import TokenizedExample
from treetune.models import decoder, label_loss, tied
from treetune.models.batches import batches_of
from treetune.models.decoder import loss_sum
from treetune.models.engine import fullest_engine, set_up
from treetune.models.tied import add_product, can_share_gradient, shared_gradient

Rows = list[TokenizedExample]


def gradients(model: Any, rows: Rows, budget: int = 500) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    for batch in batches_of(rows, "tree", len(rows), budget):
        loss_sum(model, batch).total.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def without_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "shared_gradient", lambda core: nullcontext(None))


@pytest.mark.parametrize("budget", [500, 20], ids=["one pass", "several passes"])
def test_the_gradients_are_those_without_it(
    make_gpt3: Callable[..., Any], rows: Rows, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_gpt3().double()
    set_up(model, fullest_engine(model))
    assert can_share_gradient(model)
    ours = gradients(model, rows, budget)
    without_slot(monkeypatch)
    plain = gradients(model, rows, budget)
    assert ours.keys() == plain.keys()
    for name, gradient in plain.items():
        assert torch.allclose(ours[name], gradient, rtol=1e-10, atol=1e-12), name


def test_the_lookup_of_a_padding_token_has_no_gradient_and_its_logit_has(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    padding = int(rows[0].prompt_ids[0])
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        pad_token_id=padding, bos_token_id=0, eos_token_id=0, tie_word_embeddings=True))
    set_up(model, fullest_engine(model))
    assert model.model.embed_tokens.padding_idx == padding
    assert can_share_gradient(model)
    ours = gradients(model, rows)
    without_slot(monkeypatch)
    plain = gradients(model, rows)
    for name, gradient in plain.items():
        assert torch.allclose(ours[name], gradient, rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("width", [1, 1000], ids=["many labels", "few labels"])
def test_the_heads_part_waits_as_whatever_is_smaller(
    make_gpt3: Callable[..., Any], rows: Rows, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_gpt3()
    set_up(model, fullest_engine(model))
    [batch] = batches_of(rows, "tree", len(rows), 500)
    matrix = model.transformer.wte.weight
    states, labels = len(batch.label_index.unique()), len(matrix)
    monkeypatch.setattr(label_loss, "may_wait_in_factors", lambda states, *_: states <= width)
    kept = [tuple(each.shape) for each in loss_sum(model, batch).total.grad_fn.saved_tensors if each is not None]
    assert (tuple(matrix.shape) in kept) == (width == 1)
    assert ((states, labels) in kept) == (width == 1000)


def test_a_head_without_gradient_leaves_the_embedding_its_own(make_gpt3: Callable[..., Any]) -> None:
    model = make_gpt3()
    ids = torch.tensor([[1, 2, 2]])
    with shared_gradient(model) as slot:
        assert slot is not None
        states = model.transformer(input_ids=ids, use_cache=False)[0]
    states.sum().backward()
    own = model.transformer.wte.weight.grad.clone()
    model.zero_grad()
    model.transformer(input_ids=ids, use_cache=False)[0].sum().backward()
    assert torch.allclose(own, model.transformer.wte.weight.grad)
    assert "forward" not in vars(model.transformer.wte)


def test_untied_frozen_and_silent_passes_are_left_alone(make_gpt3: Callable[..., Any]) -> None:
    untied = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=1, bos_token_id=0,
                                        eos_token_id=0, tie_word_embeddings=False))
    assert not can_share_gradient(untied)
    model = make_gpt3()
    with torch.no_grad(), shared_gradient(model) as slot:
        assert slot is None
    model.transformer.wte.weight.requires_grad_(False)
    with shared_gradient(model) as slot:
        assert slot is None


@pytest.mark.parametrize("total", [None, 1.0], ids=["first", "another"])
@pytest.mark.parametrize("narrow", [torch.float32, torch.bfloat16])
def test_products_add_up_in_the_type_of_the_gradient(
    narrow: torch.dtype, total: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tied, "ROWS_AT_A_TIME", 3)  # of the 7 below
    torch.manual_seed(0)
    slopes, states = torch.randn(5, 7).to(narrow), torch.randn(5, 4).to(narrow)
    found = add_product(None if total is None else torch.full((7, 4), total), slopes, states, torch.float32)
    assert found.dtype == torch.float32
    exact = slopes.float().T @ states.float() + (total or 0.0)
    assert torch.allclose(found, exact, atol=1e-6 if narrow == torch.float32 else 0.05)
