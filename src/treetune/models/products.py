"""Float32 products on AMD processors by oneDNN, where torch would ask MKL.

On two cores of an AMD EPYC (Zen 4) MKL reaches 150 to 190 GFLOP/s in the products of an 82 M GPT-2, and 100 with few
rows; oneDNN 200, and 170 with few rows, of a peak of about 206. Which one computes depends on the processor and the
shapes alone, never on a clock, so that a run stays what it is. Letters: T tokens, I inputs, O outputs.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor
from transformers.pytorch_utils import Conv1D

FEW = 32
"""Rows below which a product is bound by reading the matrix, and starting it costs more than is won."""


@cache
def by_onednn() -> bool:
    """Whether this processor's products are faster there, and this torch can ask for them."""
    try:
        vendor = "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return vendor and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def serves(states: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether `product` is the faster way for these."""
    return (states.device.type == "cpu" and states.dtype == weight.dtype == torch.float32
            and states.numel() >= FEW * states.shape[-1] > 0 and is_dense(states) and is_dense(weight) and by_onednn())


def is_dense(states: torch.Tensor) -> bool:
    """Whether a tensor stands in memory without gaps, as rows or as columns: oneDNN takes forever over any other."""
    return states.numel() > 0 and (states.is_contiguous() or (states.dim() == 2 and states.T.is_contiguous()))


def product(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """states (T, I), weight (O, I), either way round in memory, bias (O,) -> (T, O); no gradient."""
    if not serves(states, weight):
        return torch.nn.functional.linear(states, weight, bias)
    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
    return found


def outer(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """left (T, A), right (T, B) -> (A, B), the sum over T; no gradient. MKL is faster unless B is the larger."""
    wide = left.shape[1] < right.shape[1]
    return product(left.T, right.T) if wide and serves(left.T, right.T) else left.T @ right


class Projection(torch.autograd.Function):
    """x Wᵀ + b, output and gradient of the input by `product`."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """states (..., I), weight (O, I), bias (O,) -> (..., O)."""
        flat = states.reshape(-1, states.shape[-1])
        ctx.save_for_backward(flat, weight)
        return product(flat, weight, bias).view(*states.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> Any:
        """Gradients of states, weight and bias, where wanted."""
        flat, weight = ctx.saved_tensors
        given = slope.reshape(-1, slope.shape[-1])
        by_states = by_weight = by_bias = None
        if ctx.needs_input_grad[0]:
            by_states = product(given, weight.T).view(*slope.shape[:-1], flat.shape[1])
        if ctx.needs_input_grad[1]:  # laid out as the weight is, so that it need not be turned
            turned = weight.stride(0) == 1 and weight.stride(1) != 1
            by_weight = outer(flat, given).T if turned else outer(given, flat)
        if ctx.needs_input_grad[2]:
            by_bias = given.sum(0)
        return by_states, by_weight, by_bias


def project(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """states (..., I), weight (O, I), bias (O,) -> (..., O), with gradients; by `product` where that is faster.

    What is traced for another tool to read keeps torch's own product, which such tools know.
    """
    traced = torch._C._get_tracing_state() is not None or torch.compiler.is_compiling()
    elsewhere = traced or isinstance(weight, DTensor) or torch.is_autocast_enabled(states.device.type)
    if elsewhere or not serves(states, weight):
        return torch.nn.functional.linear(states, weight, bias)
    found: torch.Tensor = Projection.apply(states, weight, bias)  # type: ignore[no-untyped-call]
    return found


def use_products(core: nn.Module) -> None:
    """Let every plain linear layer of a model run as `project`, on processors where that is faster."""
    if not by_onednn():
        return
    for layer in core.modules():
        if type(layer) in (nn.Linear, Conv1D) and "forward" not in vars(layer):
            layer.forward = MethodType(_conv1d if type(layer) is Conv1D else _linear, layer)


def _linear(self: Any, states: torch.Tensor) -> torch.Tensor:
    return project(states, self.weight, self.bias)


def _conv1d(self: Any, states: torch.Tensor) -> torch.Tensor:
    return project(states, self.weight.T, self.bias)
