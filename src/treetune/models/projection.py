"""Linear layers that keep no input they can make again (`treetune.models.recomputed`).

Letters: T tokens, I inputs, O outputs.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor
from transformers.pytorch_utils import Conv1D

from treetune.models.product import affine, pays, product
from treetune.models.recomputed import has_recipe, is_plain_pass, kept_for


class Projection(torch.autograd.Function):
    """x Wᵀ + b, which keeps how x was made."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """states (..., I), weight (O, I), bias (O,) -> (..., O)."""
        ctx.make, kept = kept_for(states, wanted=ctx.needs_input_grad[1])
        ctx.save_for_backward(weight, *kept)
        return affine(states, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> Any:
        """Gradients of states, weight and bias, where wanted."""
        weight, *kept = ctx.saved_tensors
        given = slope.reshape(-1, slope.shape[-1])
        by_states = by_weight = by_bias = None
        if ctx.needs_input_grad[1]:  # laid out as the weight is; what was made again for it goes before more is made
            flat = ctx.make(*kept).reshape(-1, weight.shape[1])
            turned = weight.stride(0) == 1 and weight.stride(1) != 1
            by_weight = product(flat.T, given).T if turned else product(given.T, flat)
            del flat, kept
        if ctx.needs_input_grad[0]:
            by_states = product(given, weight).view(*slope.shape[:-1], weight.shape[1])
        if ctx.needs_input_grad[2]:
            by_bias = given.sum(0)
        return by_states, by_weight, by_bias


def project(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """states (..., I), weight (O, I), bias (O,) -> (..., O), by `Projection` where the states can be made again
    or another library multiplies faster than torch's.

    What is traced for another tool to read keeps torch's own product, which such tools know.
    """
    if isinstance(weight, DTensor) or not is_plain_pass(states.device.type) or not (
            has_recipe(states) or pays(states, weight.T)):
        return torch.nn.functional.linear(states, weight, bias)
    found: torch.Tensor = Projection.apply(states, weight, bias)  # type: ignore[no-untyped-call]
    return found


def use_projections(core: nn.Module) -> None:
    """Let every plain linear layer of a model run as `project`."""
    for layer in core.modules():
        if type(layer) in (nn.Linear, Conv1D) and "forward" not in vars(layer):
            layer.forward = MethodType(_conv1d if type(layer) is Conv1D else _linear, layer)


def _linear(self: Any, states: torch.Tensor) -> torch.Tensor:
    return project(states, self.weight, self.bias)


def _conv1d(self: Any, states: torch.Tensor) -> torch.Tensor:
    return project(states, self.weight.T, self.bias)
