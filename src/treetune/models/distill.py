"""Learning from a teacher's probabilities beside the labels (Hinton et al. 2015, arXiv 1503.02531).

The loss of a label is ``(1 - weight) * NLL + weight * T^2 * KL(teacher at T || student at T)``; sums and counts as
everywhere. Without gradients (validation) it is the plain one, so that runs can be compared.
Letters: K labels, V vocabulary, B rows, C classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from treetune.models import causal, classes
from treetune.models.batches import Batch
from treetune.models.decoder import LossSum, label_states
from treetune.models.encoder import EncoderBatch
from treetune.models.engine import core_model, engine_of
from treetune.models.label_loss import at_least_float32


def token_loss(model: Any, batch: Batch, *, teacher: Any, temperature: float, weight: float) -> LossSum:
    """Loss of a decoder with soft labels at its labelled tokens; the teacher reads the same tree, by itself.

    Args:
        teacher: a decoder of the same vocabulary, set up for the batch's layout.
    """
    if not torch.is_grad_enabled():
        return causal.loss_sum(model, batch)
    own, place = label_logits(model, batch)
    with torch.no_grad():
        theirs, _ = label_logits(teacher, batch)
    soft = divergence(own, theirs[:, : own.shape[1]], temperature)[place]
    hard = -own.log_softmax(-1)[place, batch.label_ids]
    each = batch.label_weight.to(own.dtype) * ((1 - weight) * hard + weight * soft)
    return LossSum(each.sum(), float(batch.label_weight.sum()))


def label_logits(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """(U, V) logits of each token that has labels, in float32 at least; (K,) which of them a label reads."""
    states, place = label_states(model, batch)
    if engine_of(model).own_head:
        states = core_model(model).get_output_embeddings()(states)
    return at_least_float32(states), place


def class_loss(model: Any, batch: EncoderBatch, *, temperature: float, weight: float) -> LossSum:
    """Loss of a label head; ``batch.soft`` holds the teacher's (B, C) log-probabilities."""
    if batch.soft is None or not torch.is_grad_enabled():
        return classes.loss_sum(model, batch)
    own = classes.log_probs(model, batch)
    hard = -own.gather(-1, batch.targets)[:, 0]
    soft = divergence(own, batch.soft.to(own.dtype), temperature)
    return LossSum(((1 - weight) * hard + weight * soft).sum(), float(len(batch.targets)))


def divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """(N,) T^2 times KL(teacher || student), both softened; logits or log-probabilities (N, C), last axis softmaxed."""
    ours, theirs = (each / temperature for each in (student, teacher))
    apart = functional.kl_div(ours.log_softmax(-1), theirs.log_softmax(-1), log_target=True, reduction="none")
    return apart.sum(-1) * temperature**2
