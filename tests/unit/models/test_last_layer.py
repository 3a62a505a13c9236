"""The last layer at labels, with keys and values of all tokens or without: the same loss and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from treetune.core.records import TokenizedExample
from treetune.models import last_layer
from treetune.models.batches import batches_of, padded_batch
from treetune.models.decoder import loss_sum
from treetune.models.engine import fullest_engine, set_up
from treetune.models.gpt3 import GPT3Config, GPT3LMHeadModel

Rows = list[TokenizedExample]
IDS: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 0}


def model_of(family: str, dropout: float = 0.0) -> Any:
    torch.manual_seed(0)
    sizes = {"vocab_size": 97, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "attn_pdrop": dropout,
             "resid_pdrop": 0.0, "embd_pdrop": 0.0, "initializer_range": 0.2, **IDS}
    if family == "gpt2":
        return GPT2LMHeadModel(GPT2Config(**sizes)).double()
    return GPT3LMHeadModel(GPT3Config(**sizes, attention_band=4)).double()


def gradients(model: Any, batches: Any) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    for batch in batches:
        loss_sum(model, batch).total.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters()}


@pytest.fixture
def uses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each use of the folded form."""
    made: list[int] = []
    plain = last_layer.folded

    def counted(*given: Any, **named: Any) -> torch.Tensor:
        made.append(1)
        return plain(*given, **named)

    monkeypatch.setattr(last_layer, "folded", counted)
    return made


@pytest.mark.parametrize("family", ["gpt2", "gpt3"])
@pytest.mark.parametrize("share", [1e9, 0.0], ids=["folded", "with keys and values"])
def test_gradients_are_those_of_separate_rows(
    family: str, share: float, rows: Rows, uses: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(family)
    truth = gradients(model, [padded_batch([row]) for row in rows])
    monkeypatch.setattr("treetune.models.tree_attention.FOLDS_BELOW", share)
    set_up(model, fullest_engine(model))
    found = gradients(model, batches_of(rows, "tree", len(rows), 500))
    assert bool(uses) is (share > 0)
    total = sum(float(each.norm()) ** 2 for each in truth.values()) ** 0.5
    for name, gradient in truth.items():
        assert (found[name] - gradient).norm() <= 1e-9 * total, name


def test_few_labels_behind_many_tokens_fold_and_many_labels_do_not(uses: list[int]) -> None:
    model = model_of("gpt2")
    set_up(model, fullest_engine(model))
    generator = torch.Generator().manual_seed(0)

    def rows_of(labels: int) -> Rows:
        drawn = [[torch.randint(0, 97, (size,), generator=generator).numpy() for size in (30, labels)]
                 for _ in range(6)]
        return [TokenizedExample(number, 0, *ids, 0) for number, ids in enumerate(drawn)]

    gradients(model, batches_of(rows_of(1), "tree", 6, 500))
    assert len(uses) == 1
    gradients(model, batches_of(rows_of(30), "tree", 6, 500))
    assert len(uses) == 1


def test_dropped_probabilities_do_not_fold(uses: list[int], rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treetune.models.tree_attention.FOLDS_BELOW", 1e9)
    model = model_of("gpt2", dropout=0.5).train()
    set_up(model, fullest_engine(model))
    gradients(model, batches_of(rows, "tree", len(rows), 500))
    assert not uses


def test_an_adapted_projection_does_not_fold(uses: list[int], rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    from treetune.models.adapters import add_lora

    monkeypatch.setattr("treetune.models.tree_attention.FOLDS_BELOW", 1e9)
    for family in ("gpt2", "gpt3"):
        model = add_lora(model_of(family), 2, 4, 0.0)
        truth = [weight.clone() for weight in _adapters_after(model, [padded_batch([row]) for row in rows])]
        set_up(model, fullest_engine(model))
        found = _adapters_after(model, batches_of(rows, "tree", len(rows), 500))
        assert not uses
        for ours, true in zip(found, truth, strict=True):
            assert torch.allclose(ours, true, rtol=1e-6, atol=1e-9)


def _adapters_after(model: Any, batches: Any) -> list[torch.Tensor]:
    model.zero_grad(set_to_none=True)
    for batch in batches:
        loss_sum(model, batch).total.backward()
    return [weight.grad for weight in model.parameters() if weight.requires_grad]
