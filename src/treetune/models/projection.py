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
from treetune.models.recomputed import before_gelu, has_recipe, is_plain_pass, kept_for, tanh_gelu


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
        by_states = by_weight = by_bias = None
        if ctx.needs_input_grad[1]:  # first, so that what is made again for it goes before more is made
            by_weight = slope_of_weight(ctx.make(*kept), slope, weight)
        if ctx.needs_input_grad[0]:
            by_states = slope_of_states(slope, weight)
        if ctx.needs_input_grad[2]:
            by_bias = slope.reshape(-1, slope.shape[-1]).sum(0)
        return by_states, by_weight, by_bias


class ProjectionOfGelu(torch.autograd.Function):
    """GELU(x) Wᵀ + b: the gradient of x takes the place of that of GELU(x), which is the largest tensor of a step."""

    @staticmethod
    def forward(
        ctx: Any, before: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, states: torch.Tensor
    ) -> torch.Tensor:
        """before (..., I), weight (O, I), bias (O,), states GELU(before) -> (..., O)."""
        ctx.save_for_backward(weight, before)
        return affine(states, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> Any:
        """Gradients of x, weight and bias, where wanted."""
        weight, before = ctx.saved_tensors
        by_before = by_weight = by_bias = None
        if ctx.needs_input_grad[1]:
            by_weight = slope_of_weight(tanh_gelu(before), slope, weight)
        if ctx.needs_input_grad[0]:
            by_before = slope_of_states(slope, weight)
            torch.ops.aten.gelu_backward.grad_input(by_before, before, approximate="tanh", grad_input=by_before)
        if ctx.needs_input_grad[2]:
            by_bias = slope.reshape(-1, slope.shape[-1]).sum(0)
        return by_before, by_weight, by_bias, None


def slope_of_states(slope: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """slope (..., O), weight (O, I) -> (..., I)."""
    return product(slope.reshape(-1, slope.shape[-1]), weight).view(*slope.shape[:-1], weight.shape[1])


def slope_of_weight(states: torch.Tensor, slope: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """states (..., I), slope (..., O) -> (O, I), laid out as the weight is, so that it need not be turned."""
    flat, given = states.reshape(-1, weight.shape[1]), slope.reshape(-1, slope.shape[-1])
    turned = weight.stride(0) == 1 and weight.stride(1) != 1
    return product(flat.T, given).T if turned else product(given.T, flat)


def project(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """states (..., I), weight (O, I), bias (O,) -> (..., O), by `Projection` where the states can be made again
    or another library multiplies faster than torch's.

    What is traced for another tool to read keeps torch's own product, which such tools know.
    """
    if isinstance(weight, DTensor) or not is_plain_pass(states.device.type) or not (
            has_recipe(states) or pays(states, weight.T)):
        return torch.nn.functional.linear(states, weight, bias)
    before = before_gelu(states)
    found: torch.Tensor = (
        Projection.apply(states, weight, bias) if before is None  # type: ignore[no-untyped-call]
        else ProjectionOfGelu.apply(before, weight, bias, states.detach())  # type: ignore[no-untyped-call]
    )
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
