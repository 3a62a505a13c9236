"""A layer with a low-rank adapter as one function: x W + b + s (x A) B (Hu et al. 2022, arXiv 2106.09685, section 4.1).

peft adds the adapter's part in three steps, each of which writes a tensor as large as the output, and lets autograd
multiply by matrices as wide as the rank in their slow orientation: together a twentieth of a step of an 82 M GPT-2 on
two cores. Letters: T tokens, I inputs, O outputs, R rank.
"""

from __future__ import annotations

import sys
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from transformers.pytorch_utils import Conv1D

from treetune.models.product import affine, product
from treetune.models.recomputed import kept_for


class LowRank(torch.autograd.Function):
    """Differentiable once in states and adapter; the layer's own weights are frozen."""

    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, down: torch.Tensor,
        up: torch.Tensor, scale: float,
    ) -> torch.Tensor:
        """states (..., I), weight (I, O), bias (O,), down (R, I), up (O, R) -> (..., O).

        Under autocast the products are taken in its type, and so is the result.
        """
        device = states.device.type
        inner = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states.dtype
        with torch.autocast(device, enabled=False):
            flat, *own = (each.to(inner) for each in (states.flatten(0, -2), weight, down, up))
            low = flat @ own[1].T
            out = affine(flat, own[0].T, None if bias is None else bias.to(inner))
            out.addmm_(low, own[2].T, alpha=scale)
        ctx.make, kept = kept_for(states if inner == states.dtype else flat, wanted=ctx.needs_input_grad[3])
        ctx.save_for_backward(low, *own, *kept)
        ctx.scale, ctx.kinds = scale, (states.dtype, down.dtype, up.dtype)
        return out.view(*states.shape[:-1], out.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> Any:
        """Gradients of states, down and up, where wanted."""
        low, weight, down, up, *kept = ctx.saved_tensors
        wanted, kinds = ctx.needs_input_grad, ctx.kinds
        given = slope.flatten(0, -2)
        by_low = (given @ up).mul_(ctx.scale)
        by_states = by_down = by_up = None
        if wanted[0]:
            flat = product(given, weight.T).addmm_(by_low, down)
            by_states = flat.view(*slope.shape[:-1], down.shape[1]).to(kinds[0])
        if wanted[3]:
            by_down = (by_low.T @ ctx.make(*kept).reshape(-1, down.shape[1])).to(kinds[1])
        if wanted[4]:  # the narrow matrix first: with the wide one first MKL takes four times as long
            by_up = (low.T @ given).mul_(ctx.scale).T.contiguous().to(kinds[2])
        return by_states, None, None, by_down, by_up, None


def fuse_adapters(core: nn.Module) -> None:
    """Let every LoRA layer of peft over a plain matrix run as `LowRank`, wherever that is what it computes."""
    peft = sys.modules.get("peft.tuners.lora.layer")
    kind: Any = getattr(peft, "Linear", ())
    for layer in core.modules() if peft is not None else ():
        if isinstance(layer, kind) and "forward" not in vars(layer):
            layer.forward = MethodType(_forward, layer)


def _forward(self: Any, states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    if args or kwargs or not is_plain(self, states):
        found: torch.Tensor = type(self).forward(self, states, *args, **kwargs)
        return found
    return adapted(self, states)


def is_plain(layer: Any, states: torch.Tensor) -> bool:
    """Whether a layer adds exactly one low-rank product to a frozen matrix, in one type of numbers."""
    base: Any = getattr(layer, "base_layer", None)
    if type(base) not in (nn.Linear, Conv1D) or layer.disable_adapters or layer.merged:
        return False
    names = adapters_of(layer)
    if len(names) != 1 or names[0] in layer.lora_variant:
        return False
    down, up, dropout = (part[names[0]] for part in (layer.lora_A, layer.lora_B, layer.lora_dropout))
    frozen = not any(weight.requires_grad for weight in base.parameters())
    kinds = {base.weight.dtype, down.weight.dtype, up.weight.dtype}
    lowered = torch.is_autocast_enabled(states.device.type)
    return (frozen and down.bias is None and up.bias is None and kinds == {base.weight.dtype}
            and (lowered or states.dtype == base.weight.dtype)
            and (isinstance(dropout, nn.Identity) or not layer.training))


def adapters_of(layer: Any) -> list[str]:
    """The adapters in use that the layer has."""
    return [name for name in layer.active_adapters if name in layer.lora_A]


def adapted(layer: Any, states: torch.Tensor, outputs: slice = slice(None)) -> torch.Tensor:
    """states (..., I) -> (..., O), or some of the O outputs, of a layer that `is_plain`."""
    base = layer.base_layer
    [name] = adapters_of(layer)
    weight = base.weight if type(base) is Conv1D else base.weight.T
    found: torch.Tensor = LowRank.apply(  # type: ignore[no-untyped-call]
        states, weight[:, outputs], None if base.bias is None else base.bias[outputs], layer.lora_A[name].weight,
        layer.lora_B[name].weight[outputs], layer.scaling[name])
    return found
