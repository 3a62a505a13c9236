"""Passes filled up to a multiple of tokens are the same passes; in half precision oneDNN then knows few shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from treetune.core.records import TokenizedExample
from treetune.models import decoder, label_loss
from treetune.models.alignment import MULTIPLE, filled_up, rows_together
from treetune.models.batches import aligned, batches_of, tree_batch
from treetune.models.decoder import label_log_probs, loss_sum
from treetune.models.engine import fullest_engine, set_up
from treetune.models.gpt3 import GPT3Config
from treetune.models.tree_attention import TreeLayout
from treetune.predict import shared
from treetune.trees import allowed_pairs, build_tree

SHAPE: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 64, "initializer_range": 0.2, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}
CONFIGS = {
    "gpt3": (lambda: GPT3Config(**SHAPE, attention_band=4), 1e-9),
    "gpt2": (lambda: GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=0,
                                eos_token_id=0), 1e-9),
    "llama": (lambda: LlamaConfig(**SHAPE, num_key_value_heads=2), 1e-5),
}
Rows = list[TokenizedExample]


def model_of(family: str) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[family][0]()).double().eval()
    set_up(model, fullest_engine(model))
    return model


def always(monkeypatch: pytest.MonkeyPatch, multiple: int) -> None:
    for module in (decoder, label_loss, shared):
        monkeypatch.setattr(module, "rows_together", lambda weight: multiple)


def loss_and_gradient(model: Any, rows: Rows) -> tuple[float, torch.Tensor, list[int]]:
    model.zero_grad(set_to_none=True)
    total, lengths = 0.0, []
    model.base_model.register_forward_pre_hook(
        lambda module, given, named: lengths.append(named["input_ids"].shape[1]), with_kwargs=True)
    for batch in batches_of(rows, "tree", 10, 40):
        part = loss_sum(model, batch)
        part.total.backward()
        total += part.total.item()
    return total, torch.cat([weight.grad.flatten() for weight in model.parameters()]), lengths


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("multiple", [2, 16, 128])
def test_loss_and_gradients_stay(family: str, multiple: int, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    loss, gradient, lengths = loss_and_gradient(model_of(family), rows)
    assert any(length % multiple for length in lengths)
    always(monkeypatch, multiple)
    found, own, filled = loss_and_gradient(model_of(family), rows)
    assert not any(length % multiple for length in filled)
    assert found == pytest.approx(loss, rel=CONFIGS[family][1])
    assert (own - gradient).norm() / gradient.norm() < CONFIGS[family][1]


@pytest.mark.parametrize("family", CONFIGS)
@torch.no_grad()
def test_log_probabilities_and_answers_stay(family: str, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(family)

    def values() -> tuple[torch.Tensor, list[list[int]]]:
        logs = torch.cat([label_log_probs(model, batch) for batch in batches_of(rows, "tree", 10, 40)])
        return logs, [ids for ids, _ in shared.greedy_shared(model, rows, 6, -1)]

    logs, written = values()
    always(monkeypatch, 32)
    found, again = values()
    assert torch.allclose(found, logs, rtol=1e-6)
    assert again == written


@given(st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=9), min_size=1, max_size=6), st.integers(1, 40))
def test_what_is_added_sees_itself_alone_and_nothing_sees_it(prompts: list[list[int]], multiple: int) -> None:
    tree = build_tree([TokenizedExample(n, 0, np.array(prompt), np.array([7]), 0) for n, prompt in enumerate(prompts)])
    layout, length = TreeLayout(tree), len(tree.input_ids)
    layout.blocks(None, labels_only=True)
    labelled = layout.columns
    ids, positions = aligned(tree_batch(tree), multiple)
    layout.align(multiple)
    assert len(layout.depth) == ids.shape[1] == positions.shape[1] == -(-length // multiple) * multiple
    allowed = allowed_pairs(layout.branch_end)
    assert np.array_equal(allowed[:length, :length], allowed_pairs(tree.branch_end))
    assert np.array_equal(allowed[length:], np.eye(len(allowed), dtype=bool)[length:])
    assert not allowed[:length, length:].any()
    assert set(labelled) <= set(layout.columns)
    assert len(layout.columns) % multiple == 0 or len(layout.columns) == len(layout.depth)
    asked = sum(block.stop - block.start for block in layout.blocks(None, labels_only=True))
    assert asked == len(layout.columns)


def test_only_half_precision_on_a_processor_is_filled_up() -> None:
    weight = torch.randn(4, 4)
    assert rows_together(weight) == rows_together(weight.double()) == 1
    assert rows_together(weight.bfloat16()) == MULTIPLE
    assert rows_together(weight.bfloat16().to("meta")) == 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert rows_together(weight) == MULTIPLE


@pytest.mark.parametrize(("rows", "filled"), [(0, 0), (1, 4), (4, 4), (5, 8)])
def test_zeros_stand_behind_the_rows(rows: int, filled: int) -> None:
    states = torch.randn(rows, 3)
    found = filled_up(states, 4)
    assert found.shape == (filled, 3)
    assert torch.equal(found[:rows], states)
    assert not found[rows:].any()
