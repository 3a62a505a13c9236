"""Optimizers by name, torch's own but for Muon.

``adamw`` Loshchilov & Hutter 2019 (arXiv 1711.05101); ``adam`` Kingma & Ba 2015 (arXiv 1412.6980); ``sgd`` is
exactly ``θ ← θ − η ∇L``; ``muon`` Jordan et al. 2024 for the matrices of the layers, with the scale of Liu et al.
2025 (arXiv 2502.16982, section 2.2) so that one learning rate serves it and the AdamW of all other weights.
torch's own Muon works in bfloat16, which took 20 times as long as float32 on our CPUs (2.6 s a step of the base).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from treetune.models.shard import own_rows, part_like, whole

DEFAULT_DECAY = {"adamw": 0.01, "muon": 0.01, "adam": 0.0, "sgd": 0.0}


def build_optimizers(model: nn.Module, optim: str, learning_rate: float, weight_decay: float | None) -> list[
    torch.optim.Optimizer
]:
    """One optimizer, or two for muon, over the trainable weights.

    Weight decay applies to matrices only, never to biases and norms. All but plain SGD are the fused kernels
    where torch has them.
    """
    decay = DEFAULT_DECAY[optim] if weight_decay is None else weight_decay
    trainable = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    if optim == "sgd":
        return [torch.optim.SGD(_groups((w for _, w in trainable), decay), lr=learning_rate)]
    if optim == "adam":
        return [torch.optim.Adam(_groups((w for _, w in trainable), decay), lr=learning_rate, fused=True)]
    if optim == "adamw":
        return [_adamw((w for _, w in trainable), learning_rate, decay)]
    transformer: Any = model
    ends = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    ends += [module for module in (transformer.get_output_embeddings(),) if module is not None]
    embeddings = {id(weight) for module in ends for weight in module.parameters()}
    hidden = [w for _, w in trainable if w.dim() == 2 and id(w) not in embeddings]
    rest = [w for _, w in trainable if not any(w is other for other in hidden)]
    found: list[torch.optim.Optimizer] = [Muon(hidden, learning_rate, decay)] if hidden else []
    return [*found, _adamw(rest, learning_rate, decay)] if rest else found


def start_state(optimizers: list[torch.optim.Optimizer]) -> None:
    """Make the state of Adam's kind before the first step, as torch would in it; none where one stands already.

    Made in the first step, among gradients and activations that are freed again, it would leave memory in pieces
    that later steps cannot use: 50 to 100 MB of an 82 M GPT-2.
    """
    for optimizer in optimizers:
        if not isinstance(optimizer, torch.optim.Adam) or optimizer.state:
            continue
        for weight in (weight for group in optimizer.param_groups for weight in group["params"]):
            optimizer.state[weight] = {
                "step": torch.zeros((), dtype=torch.float32, device=weight.device),
                "exp_avg": torch.zeros_like(weight, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(weight, memory_format=torch.preserve_format),
            }


def is_fused_adam(optimizer: torch.optim.Optimizer) -> bool:
    """Whether one kernel takes the step of each weight, by Adam or AdamW."""
    return isinstance(optimizer, torch.optim.Adam) and all(group["fused"] for group in optimizer.param_groups)


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal before it is applied; for matrices only. Works in the weights' own precision."""

    def __init__(self, weights: list[nn.Parameter], lr: float, weight_decay: float, momentum: float = 0.95) -> None:
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(weight)
                own, grad, average = (local(tensor) for tensor in (weight, weight.grad, state["momentum"]))
                average.lerp_(grad, 1 - group["momentum"])
                direction = direction_of(weight, grad.lerp(average, group["momentum"]))
                scale = 0.2 * max(weight.shape) ** 0.5
                own.mul_(1 - group["lr"] * group["weight_decay"])
                own.add_(direction, alpha=-group["lr"] * scale)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """What lies in this process of a tensor that may be in parts."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def direction_of(weight: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The orthogonal matrix of those rows; of a weight in parts, this process's rows of that of all."""
    if not isinstance(weight, DTensor):
        return orthogonal(rows)
    return orthogonal(whole(part_like(weight, rows)))[own_rows(weight)]


def orthogonal(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Approximately the nearest (semi-)orthogonal matrix, by a quintic Newton-Schulz iteration (Jordan et al. 2024)."""
    flat = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    value = flat / (flat.norm() + 1e-7)
    for _ in range(steps):
        gram = value @ value.T
        value = 3.4445 * value + (-4.7750 * gram + 2.0315 * gram @ gram) @ value
    result: torch.Tensor = value.T if matrix.shape[0] > matrix.shape[1] else value
    return result


def _adamw(weights: Iterable[nn.Parameter], learning_rate: float, decay: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(_groups(weights, decay), lr=learning_rate, betas=(0.9, 0.95), eps=1e-8, fused=True)


def _groups(weights: Iterable[nn.Parameter], decay: float) -> list[dict[str, object]]:
    """Matrices with decay, everything else without."""
    listed = list(weights)
    groups: list[dict[str, object]] = [
        {"params": [w for w in listed if w.dim() >= 2], "weight_decay": decay},
        {"params": [w for w in listed if w.dim() < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def set_learning_rate(optimizers: list[torch.optim.Optimizer], value: float) -> None:
    """The same learning rate for every group."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = value
