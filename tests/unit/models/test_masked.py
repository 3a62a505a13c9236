"""Masked words: hidden as BERT hides them, the same for a seed, with transformers' own loss and gradients."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from treetune.core.errors import ModelError
from treetune.models import masked
from treetune.models.encoder import prove_packed
from treetune.models.load import load_model

Folder = Callable[[str], Path]
LENGTHS = (7, 7, 20, 33, 12)


def rows_for(tokenizer: Any) -> list[masked.MaskedRow]:
    draw = np.random.default_rng(0)
    return [masked.hide(np.array([2, *draw.integers(5, len(tokenizer), length), 3]), number, tokenizer, 0, "t")
            for number, length in enumerate(LENGTHS)]


def test_shares_of_what_is_hidden_masked_replaced_and_left(family_tokenizer: Callable[[str], Any]) -> None:
    tokenizer = family_tokenizer("bert")
    ids = np.array([2, *np.random.default_rng(1).integers(5, 350, 20_000), 3])
    row = masked.hide(ids, 0, tokenizer, 0, "t")
    hidden = row.label_index
    assert len(hidden) == 3000
    assert np.array_equal(row.label_ids, ids[hidden])
    assert 0 not in hidden
    assert len(ids) - 1 not in hidden
    shown = row.input_ids[hidden]
    assert (shown == tokenizer.mask_token_id).mean() == pytest.approx(0.8, abs=0.03)
    assert (shown == ids[hidden]).mean() == pytest.approx(0.1, abs=0.03)
    others = np.setdiff1d(np.arange(len(ids)), hidden)
    assert np.array_equal(row.input_ids[others], ids[others])
    replaced = shown[(shown != tokenizer.mask_token_id)]
    assert not np.isin(replaced, tokenizer.all_special_ids).any()


def test_what_is_hidden_depends_on_seed_stream_and_number_only(family_tokenizer: Callable[[str], Any]) -> None:
    tokenizer = family_tokenizer("bert")
    ids = np.array([2, *range(20, 80), 3])
    first, again = (masked.hide(ids, 4, tokenizer, 1, "a") for _ in range(2))
    assert np.array_equal(first.input_ids, again.input_ids)
    for other in ((5, 1, "a"), (4, 2, "a"), (4, 1, "b")):
        assert not np.array_equal(masked.hide(ids, other[0], tokenizer, *other[1:]).label_index, first.label_index)
    assert len(masked.hide(np.array([2, 30, 3]), 0, tokenizer, 0, "t").label_ids) == 1
    assert len(masked.hide(np.array([2, 3]), 0, tokenizer, 0, "t").label_ids) == 0


def test_a_tokenizer_without_a_mask_is_refused(family_tokenizer: Callable[[str], Any]) -> None:
    tokenizer = family_tokenizer("bert")
    tokenizer.mask_token = None
    with pytest.raises(ModelError, match="E3021"):
        masked.hide(np.array([2, 30, 3]), 0, tokenizer, 0, "t")


@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert"])
def test_loss_and_gradients_are_those_of_transformers(kind: str, layout: str, family_folder: Folder) -> None:
    loaded = load_model(str(family_folder(kind)), head="masked")
    model, rows = loaded.model.double(), rows_for(loaded.tokenizer)
    width = max(row.num_tokens for row in rows)
    ids, mask = torch.zeros(2, len(rows), width, dtype=torch.long)
    labels = torch.full((len(rows), width), -100)
    for number, row in enumerate(rows):
        ids[number, : row.num_tokens] = torch.from_numpy(row.input_ids)
        mask[number, : row.num_tokens] = 1
        labels[number, row.label_index] = torch.from_numpy(row.label_ids)
    theirs = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    theirs.backward()
    wanted = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    if layout == "packed":
        assert prove_packed(model, masked, rows, 60)[0] == "packed"
    parts = [masked.loss_sum(model, batch) for batch in masked.batches_of(rows, layout, 2, 45)]
    count = sum(part.count for part in parts)
    assert count == sum(len(row.label_ids) for row in rows)
    assert len(parts) > 2
    (sum(part.total for part in parts) / count).backward()  # type: ignore[union-attr]
    assert sum(float(part.total.detach()) for part in parts) / count == pytest.approx(float(theirs.detach()), abs=1e-6)
    for name, weight in model.named_parameters():
        if name in wanted:
            assert (weight.grad - wanted[name]).norm() <= 1e-5 * max(1.0, float(wanted[name].norm())), name
