"""The end of a step: gradients over the labels of the step and what clipping asks, and the optimizers' turn."""

from __future__ import annotations

import torch
from torch.distributed.tensor import DTensor

from treetune.train.optimizers import is_fused_adam
from treetune.train.waiting import WaitingGradient, step_in_portions


def update(optimizers: list[torch.optim.Optimizer], divisor: float, waiting: WaitingGradient | None) -> None:
    """One step of every optimizer by the gradients over ``divisor``, and of a matrix whose gradient waits.

    Fused Adam divides while it reads; for others it is done before, in a walk of its own through memory.
    """
    for optimizer in optimizers:
        gradients = [weight.grad for group in optimizer.param_groups for weight in group["params"]
                     if weight.grad is not None]
        by_itself = divides_by_itself(optimizer, gradients)
        if by_itself:
            optimizer.grad_scale = torch.tensor(divisor, device=gradients[0].device)  # type: ignore[attr-defined]
        else:
            for gradient in gradients:
                gradient.div_(divisor)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if by_itself:
            del optimizer.grad_scale  # type: ignore[attr-defined]
    if waiting:
        step_in_portions(waiting, optimizers, torch.tensor(divisor))


def divides_by_itself(optimizer: torch.optim.Optimizer, gradients: list[torch.Tensor]) -> bool:
    """Whether its kernel takes a divisor, which torch made for the scaled losses of half precision."""
    in_parts = any(isinstance(each, DTensor) for each in gradients)
    return bool(gradients) and is_fused_adam(optimizer) and not in_parts
