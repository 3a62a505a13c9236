"""Loss and label log-probabilities of causal language models. Logits are taken at labels only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from treetune.models.batches import Batch


@dataclass(frozen=True, slots=True)
class LossSum:
    """A loss as sum and count, never a mean: whoever adds up a step divides once.

    Attributes:
        total: scalar tensor, weighted negative log-likelihood in nats. count: sum of the label weights.
    """

    total: torch.Tensor
    count: float


def label_log_probs(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """(K,) natural-log probability of every label, in float32 (float64 for float64 models).

    Works through the public interface of transformers (``attention_mask``, ``position_ids``,
    ``logits_to_keep``), so for every causal model there whose mixing is attention.
    """
    length = batch.input_ids.shape[1]
    columns, place = torch.unique(batch.label_index % length, return_inverse=True)
    logits = model(
        input_ids=batch.input_ids,
        attention_mask=additive(batch.attention_mask, next(model.parameters()).dtype),
        position_ids=batch.position_ids,
        logits_to_keep=columns if len(columns) < length else 0,
        use_cache=False,
    ).logits
    wanted = batch.label_index // length * len(columns) + place
    at_labels = logits.flatten(0, 1)
    if len(wanted) != len(at_labels) or bool((wanted[1:] <= wanted[:-1]).any()):
        at_labels = at_labels[wanted]  # else every logit is one label's, in order: no copy
    if at_labels.dtype != torch.float64:
        at_labels = at_labels.float()
    return -functional.cross_entropy(at_labels, batch.label_ids, reduction="none")


def loss_sum(model: torch.nn.Module, batch: Batch) -> LossSum:
    """Negative log-likelihood of the labels, as sum and count."""
    log_probs = label_log_probs(model, batch)
    weight = batch.label_weight.to(log_probs.dtype)
    return LossSum(total=-(log_probs * weight).sum(), count=float(batch.label_weight.sum()))


def additive(mask: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """A four-dimensional bool mask in the additive form every attention of transformers takes; others as is."""
    if mask is None or mask.dim() != 4:
        return mask
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)
