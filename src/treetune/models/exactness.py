"""Is a tree of rows the same as the rows? Asked of the user's own model before it is trained on trees."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from treetune.core.records import TokenizedExample
from treetune.models.batches import batches_of
from treetune.models.decoder import loss_sum

TOLERANCE = 1e-4
CANNOT = (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, NotImplementedError)


def gradient_difference(
    model: torch.nn.Module, examples: Sequence[TokenizedExample], layout: str, max_tokens: int
) -> float:
    """Relative difference of the gradients of ``layout`` and of padded rows, without dropout; inf when it cannot run.

    The weights are left untouched.
    """
    model.eval()
    try:
        ours = _gradient(model, examples, layout, max_tokens)
    except CANNOT:
        return float("inf")
    finally:
        model.zero_grad(set_to_none=True)
    rows = _gradient(model, examples, "padded", max_tokens)
    model.zero_grad(set_to_none=True)
    return float((ours - rows).norm() / rows.norm().clamp(min=1e-12))


def _gradient(
    model: torch.nn.Module, examples: Sequence[TokenizedExample], layout: str, max_tokens: int
) -> torch.Tensor:
    device = next(model.parameters()).device
    for batch in batches_of(examples, layout, len(examples), max_tokens):
        loss_sum(model, batch.to(device)).total.backward()  # type: ignore[no-untyped-call]
    return torch.cat([w.grad.flatten() for w in model.parameters() if w.grad is not None])
