"""Optimizers by name, all torch's own.

``adamw`` Loshchilov & Hutter 2019 (arXiv 1711.05101); ``adam`` Kingma & Ba 2015 (arXiv 1412.6980); ``sgd`` is
exactly ``θ ← θ − η ∇L``; ``muon`` Jordan et al. 2024 for the matrices of the layers, with the scale of Liu et al.
2025 (arXiv 2502.16982, section 2.2) so that one learning rate serves it and the AdamW of all other weights.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

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
    embeddings = {id(weight) for module in (model.get_input_embeddings(), model.get_output_embeddings())
                  if module is not None for weight in module.parameters()}  # type: ignore[operator]
    hidden = [w for name, w in trainable if w.dim() == 2 and id(w) not in embeddings and "wpe" not in name]
    rest = [w for _, w in trainable if not any(w is other for other in hidden)]
    muon = torch.optim.Muon(hidden, lr=learning_rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
    return [muon, _adamw(rest, learning_rate, decay)]


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
