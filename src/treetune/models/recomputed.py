"""What is cheap to make again is not kept for the backward pass.

A linear layer keeps its input for the gradient of its weights. Where that input is the output of a norm or of an
activation function, what it was made of is kept anyway, for their own gradients: so the layer keeps a recipe, and makes
its input again, to the same bits, when its gradient is due. That is two fifths of the activations of GPT-2 and half of
those of Llama, for a hundredth of the time of a step. Source: Korthikanti et al. 2022 (arXiv 2205.05198), section 5,
which does so for attention. Letters: T tokens, D width, I inner width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

RECIPE = "_treetune_recipe"
BEFORE = "_treetune_before"
ROOT_MEAN_SQUARE = ("LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm")
GATED = ("LlamaMLP", "MistralMLP", "Qwen2MLP", "Qwen3MLP")
GELU = ("GELUActivation",)
TWICE_RATE, CUBED = 2 * math.sqrt(2 / math.pi), 0.044715
IN_CACHE = 1 << 18
"""Numbers of a portion: 1 MB of input and as much of output."""
SIGMOID_LINEAR = ("SiLU", "SiLUActivation")


class Recipe(NamedTuple):
    """How a tensor was made: ``make(*of)`` has its numbers, bit for bit, maybe in another shape."""

    make: Callable[..., torch.Tensor]
    of: tuple[torch.Tensor, ...]


def kept_for(states: torch.Tensor, *, wanted: bool) -> Recipe:
    """What a layer keeps that may need ``states`` again: their recipe, the states themselves, or nothing."""
    if not wanted:
        return Recipe(_itself, ())
    found: Recipe = getattr(_holder(states), RECIPE)[0] if has_recipe(states) else Recipe(_itself, (states,))
    return found


def has_recipe(states: torch.Tensor) -> bool:
    """Whether the tensor's numbers can be made again, in their order: they, or what they are only seen in another shape
    of, were made by one of ours, and nothing was written into them since.
    """
    holder = _holder(states)
    return hasattr(holder, RECIPE) and getattr(holder, RECIPE)[1] == states._version


def _holder(states: torch.Tensor) -> torch.Tensor:
    whole = states._base
    if hasattr(states, RECIPE) or whole is None or not (states.is_contiguous() and whole.is_contiguous()):
        return states
    return whole if states.numel() == whole.numel() else states


def _itself(states: torch.Tensor) -> torch.Tensor:
    return states


def noted(states: torch.Tensor, make: Callable[..., torch.Tensor], *of: torch.Tensor) -> torch.Tensor:
    """``states`` with its recipe; the ingredients without the graph they hang in."""
    setattr(states, RECIPE, (Recipe(make, tuple(each.detach() for each in of)), states._version))
    return states


def before_gelu(states: torch.Tensor) -> torch.Tensor | None:
    """x, in its graph, where ``states`` is GELU(x) by `TanhGelu` and nothing was written into either since."""
    if not (hasattr(states, BEFORE) and has_recipe(states)):
        return None
    found, version = getattr(states, BEFORE)
    return found if found._version == version else None


def recompute(core: nn.Module) -> None:
    """Let the norms and activation functions of a model say how their outputs were made."""
    for module in core.modules():
        forward = _forward_of(module)
        if forward is not None and "forward" not in vars(module):
            module.forward = MethodType(_where_it_pays(forward), module)


def _forward_of(module: nn.Module) -> Callable[..., torch.Tensor] | None:
    name = type(module).__name__
    if type(module) is nn.LayerNorm and module.weight is not None and module.bias is not None:
        return _layer_norm
    if type(module) is nn.GELU or name in GELU:
        return _gelu
    if name in ROOT_MEAN_SQUARE:
        return _root_mean_square
    if name in GATED and type(getattr(module, "act_fn", None)).__name__ in SIGMOID_LINEAR:
        return _gated_layer
    return None


def is_plain_pass(device: str) -> bool:
    """Whether nothing reads along (tracing, compiling) and nothing lowers the type of products (autocast)."""
    traced = torch._C._get_tracing_state() is not None or torch.compiler.is_compiling()
    return not (traced or torch.is_autocast_enabled(device))


def _where_it_pays(ours: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    """``ours`` where a gradient will be asked for, on a processor, in full precision; else what the class does."""

    def forward(self: Any, states: torch.Tensor) -> Any:
        pays = torch.is_grad_enabled() and states.device.type == "cpu" and is_plain_pass("cpu")
        whole = states.dtype in (torch.float32, torch.float64)
        return ours(self, states) if pays and whole else type(self).forward(self, states)

    return forward


def _layer_norm(self: nn.LayerNorm, states: torch.Tensor) -> torch.Tensor:
    make = partial(_normed, self.normalized_shape, self.eps)
    return noted(make(states, self.weight, self.bias), make, states, self.weight, self.bias)


def _normed(
    shape: tuple[int, ...], eps: float, states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    return functional.layer_norm(states, shape, weight, bias, eps)


def _gelu(self: nn.Module, states: torch.Tensor) -> torch.Tensor:
    if getattr(self, "approximate", "none") == "none":
        return noted(functional.gelu(states), functional.gelu, states)
    found: torch.Tensor = TanhGelu.apply(states)  # type: ignore[no-untyped-call]
    setattr(found, BEFORE, (states, states._version))
    return noted(found, tanh_gelu, states)


class TanhGelu(torch.autograd.Function):
    """GELU by tanh, which keeps its input only."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor) -> torch.Tensor:
        """states (..., I) -> (..., I)."""
        ctx.save_for_backward(states)
        return tanh_gelu(states)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> Any:
        """Gradient of the states."""
        (states,) = ctx.saved_tensors
        return torch.ops.aten.gelu_backward(slope, states, approximate="tanh")


def tanh_gelu(states: torch.Tensor) -> torch.Tensor:
    """x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2 (Hendrycks & Gimpel 2016, arXiv 1606.08415, section 2).

    Written x σ(2 …) and computed a portion at a time, whose five walks stay in the cache: torch's one kernel takes
    half as long again, since its tanh is a slow one.
    """
    flat = states.reshape(-1)
    found, rate = torch.empty_like(flat), torch.tensor(TWICE_RATE, dtype=flat.dtype, device=flat.device)
    for some, out in zip(torch.split(flat, IN_CACHE), torch.split(found, IN_CACHE), strict=True):
        torch.addcmul(rate, some, some, value=TWICE_RATE * CUBED, out=out).mul_(some).sigmoid_().mul_(some)
    return found.view(states.shape)


class RootMeanSquare(torch.autograd.Function):
    """RMSNorm of Llama, which keeps its input and one number a token instead of three tensors of that size."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
        """states (..., D), weight (D,) -> (..., D) and the (..., 1) it was divided by, inverted."""
        scale = torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(states, weight, scale)
        ctx.mark_non_differentiable(scale)
        return scaled(states, weight, scale), scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor, _: torch.Tensor) -> Any:
        """Gradients of states and weight."""
        states, weight, scale = ctx.saved_tensors
        unit = states * scale
        by_weight = None
        if ctx.needs_input_grad[1]:
            by_weight = (slope * unit).flatten(0, -2).sum(0)
        by_unit = slope * weight
        by_unit -= unit.mul_((by_unit * unit).mean(-1, keepdim=True))
        return by_unit.mul_(scale), by_weight, None


def scaled(states: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """weight · (states · scale), rounded as transformers does."""
    return weight * (states * scale)


def _root_mean_square(self: Any, states: torch.Tensor) -> torch.Tensor:
    if states.dtype != torch.float32 or self.weight.dtype != torch.float32:  # transformers goes through float32 there
        found: torch.Tensor = type(self).forward(self, states)
        return found
    normed, scale = RootMeanSquare.apply(  # type: ignore[no-untyped-call]
        states, self.weight, self.variance_epsilon)
    return noted(normed, scaled, states, self.weight, scale)


class Gated(torch.autograd.Function):
    """SiLU(gate) · up, which keeps its two inputs only (Shazeer 2020, arXiv 2002.05202)."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """gate, up (..., I) -> (..., I)."""
        ctx.save_for_backward(gate, up)
        return gated(gate, up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> Any:
        """Gradients of gate and up."""
        gate, up = ctx.saved_tensors
        return torch.ops.aten.silu_backward(slope * up, gate), functional.silu(gate).mul_(slope)


def gated(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """SiLU(gate) · up."""
    return functional.silu(gate).mul_(up)


def _gated_layer(self: Any, states: torch.Tensor) -> torch.Tensor:
    gate, up = self.gate_proj(states), self.up_proj(states)
    opened: torch.Tensor = Gated.apply(gate, up)  # type: ignore[no-untyped-call]
    found: torch.Tensor = self.down_proj(noted(opened, gated, gate, up))
    return found
