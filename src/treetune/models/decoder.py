"""Loss and label log-probabilities of causal language models. Logits are taken at labels only."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from treetune.models.alignment import rows_together
from treetune.models.batches import Batch, aligned
from treetune.models.engine import core_model, engine_of
from treetune.models.label_loss import LabelLoss, at_least_float32, label_log_probs_of
from treetune.models.tied import shared_gradient

PRUNE_BELOW = 0.8  # share of labelled tokens from which on computing all of them is as cheap


class LossSum(NamedTuple):
    """A loss as sum and count, never a mean: whoever adds up a step divides once.

    Attributes:
        total: scalar tensor, weighted negative log-likelihood in nats. count: sum of the label weights.
    """

    total: torch.Tensor
    count: float  # type: ignore[assignment]  # nobody asks how often a value is in here


def loss_sum(model: torch.nn.Module, batch: Batch) -> LossSum:
    """Negative log-likelihood of the labels, as sum and count."""
    count = float(batch.label_weight.sum())
    core = core_model(model)
    if engine_of(model).own_head:
        with shared_gradient(core) as slot:
            states, place = label_states(model, batch)
        matrix, weights = core.get_output_embeddings().weight, batch.label_weight.to(states.dtype)
        total = LabelLoss.apply(states, matrix, place, batch.label_ids, weights, slot)  # type: ignore[no-untyped-call]
        return LossSum(total, count)
    states, place = label_states(model, batch)
    log_probs = _from_logits(states, place, batch.label_ids)
    return LossSum(-(log_probs * batch.label_weight.to(log_probs.dtype)).sum(), count)


def label_log_probs(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """(K,) natural-log probability of every label, in float32 (float64 for float64 models)."""
    states, place = label_states(model, batch)
    if engine_of(model).own_head and not states.requires_grad:
        matrix = core_model(model).get_output_embeddings().weight
        return label_log_probs_of(states, matrix, place, batch.label_ids)
    if engine_of(model).own_head:
        states = core_model(model).get_output_embeddings()(states)
    return _from_logits(states, place, batch.label_ids)


def label_states(model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """What the model says at the labelled tokens, each such token once.

    Works through the public interface of transformers, so for every causal model there whose mixing is attention.

    Returns:
        (U, D) hidden states where the engine has its own head, else (U, V) logits; (K,) which of them a label reads.
    """
    engine = engine_of(model)
    tree, ids, positions = batch.tree if engine.blocks else None, batch.input_ids, batch.position_ids
    if tree is not None:
        ids, positions = aligned(batch, rows_together(next(model.parameters())))
    length = ids.shape[1]
    tokens, place = torch.unique(batch.label_index, return_inverse=True)
    columns = torch.unique(tokens % length) if len(batch.input_ids) > 1 else tokens
    inputs: dict[str, Any] = {"input_ids": ids, "position_ids": positions, "use_cache": False}
    if tree is not None:
        tree.flex = engine.flex
        tree.pruned = engine.pruned and len(columns) < PRUNE_BELOW * length
        # a mask of four dimensions is passed on untouched by transformers; our attention reads the tree instead
        inputs |= {"tree": tree, "attention_mask": ids.new_zeros(1, 1, 1, 1, dtype=torch.bool)}
    else:
        inputs["attention_mask"] = additive(batch.mask(), next(model.parameters()).dtype)
    if engine.own_head:
        found = core_model(model).base_model(**inputs)[0]
    else:
        whole = len(columns) == length or (tree is not None and tree.pruned)
        found = model(**inputs, logits_to_keep=0 if whole else columns).logits
    if found.shape[1] == length:
        columns = torch.arange(length, device=tokens.device)
    elif tree is not None and tree.pruned:
        columns = torch.from_numpy(tree.columns).to(tokens.device)
    return _at(found, tokens, length, columns), place


def _at(found: torch.Tensor, tokens: torch.Tensor, length: int, kept: torch.Tensor) -> torch.Tensor:
    """(U, …) the rows of ``found`` (B, columns kept, …) that stand for ``tokens`` of B rows of ``length``."""
    wanted = tokens // length * len(kept) + torch.searchsorted(kept, tokens % length)
    flat = found.flatten(0, 1)
    return flat if len(wanted) == len(flat) else flat.index_select(0, wanted)  # all wanted: no copy


def _from_logits(logits: torch.Tensor, place: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.log_softmax(at_least_float32(logits), dim=-1)[place, labels]


def additive(mask: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """A four-dimensional bool mask in the additive form every attention of transformers takes; others as is."""
    if mask is None or mask.dim() != 4:
        return mask
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)
