"""What a row leaves in a model: its representation, its loss, and the gradient of its loss, made short.

Gradients are those of the adapters where the run has them, else of the last layer, recomputed at the tuned weights.
What frozen and earlier weights would contribute is not in them. Shortened by a count sketch (Charikar et al. 2002; as
projection of gradients: Park et al. 2023, arXiv 2303.14186), which keeps dot products on average.
Letters: N rows, D width, K sketch, P parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from treetune.core.records import Example
from treetune.core.seeds import seed_of
from treetune.models.batches import right_padded
from treetune.models.engine import core_model
from treetune.models.family import load_head
from treetune.models.load import LoadedModel

SKETCH = 1024
ROWS_PER_PASS = 16
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Traces:
    """N rows. gradients: (N, K) sketched. losses: (N,) nats a label token."""

    gradients: Floats
    losses: Floats


def representations(loaded: LoadedModel, examples: Sequence[Example], max_length: int) -> Floats:
    """(N, D) last hidden state where a decoder begins its answer; the mean over the input for the other families."""
    head: Any = load_head(loaded.head)
    rows = head.encode(examples, loaded.tokenizer, max_length)
    loaded.model.eval()
    found: list[Floats | None] = [None] * len(rows)
    order = sorted(range(len(rows)), key=lambda place: int(rows[place].num_tokens))
    for start in range(0, len(rows), ROWS_PER_PASS):
        part = order[start : start + ROWS_PER_PASS]
        for place, state in zip(part, _states(loaded, [rows[each] for each in part]), strict=True):
            found[place] = state
    by_example: dict[int, list[Floats]] = {}
    for number, (row, state) in enumerate(zip(rows, found, strict=True)):
        assert state is not None
        by_example.setdefault(int(getattr(row, "place", number)), []).append(state)
    return np.stack([np.mean(by_example[place], axis=0) for place in range(len(examples))])


@torch.no_grad()
def _states(loaded: LoadedModel, rows: Sequence[Any]) -> Floats:
    core, device = core_model(loaded.model), loaded.model.device
    ids = [np.asarray(getattr(row, "prompt_ids", None) if loaded.head in ("causal", "seq2seq") else row.input_ids)
           for row in rows]
    given, mask = right_padded(ids)
    inputs = {"input_ids": torch.from_numpy(given).to(device), "attention_mask": torch.from_numpy(mask).to(device)}
    base = core.get_encoder() if loaded.head == "seq2seq" else core.base_model
    states = base(**inputs)[0].float()
    if loaded.head == "causal":
        last = torch.tensor([len(own) - 1 for own in ids], device=device)
        picked = states[torch.arange(len(ids), device=device), last]
    else:
        weights = inputs["attention_mask"][..., None].float()
        picked = (states * weights).sum(1) / weights.sum(1)
    result: Floats = picked.cpu().numpy()
    return result


def traces(
    loaded: LoadedModel, examples: Sequence[Example], max_length: int, *, sketch: int = SKETCH, seed: int = 0,
    on_row: Callable[[int], None] | None = None,
) -> Traces:
    """Loss and sketched gradient of every example by itself: one forward and one backward pass each."""
    head: Any = load_head(loaded.head)
    rows = head.encode(examples, loaded.tokenizer, max_length)
    chosen = chosen_parameters(loaded.model)
    lengths = [weight.numel() for weight in chosen]
    random = torch.Generator().manual_seed(seed_of(seed, "sketch"))
    bucket = torch.randint(0, sketch, (sum(lengths),), generator=random)
    sign = torch.randint(0, 2, (sum(lengths),), generator=random).float() * 2 - 1
    before = [(weight, weight.requires_grad) for weight in loaded.model.parameters()]
    gradients = np.zeros((len(examples), sketch), dtype=np.float32)
    losses = np.zeros((len(examples), 2), dtype=np.float32)
    loaded.model.eval()
    try:
        loaded.model.requires_grad_(False)
        for weight in chosen:
            weight.requires_grad_(True)
        for number, row in enumerate(rows):
            [batch] = head.batches_of([row], "padded", 1, max(int(row.num_tokens), 1))
            with torch.enable_grad():
                loss = head.loss_sum(loaded.model, batch.to(loaded.model.device))
                slopes = torch.autograd.grad(loss.total, chosen)
            flat = torch.cat([slope.detach().float().flatten() for slope in slopes]).cpu() * sign
            place = int(getattr(row, "place", number))
            gradients[place] += torch.zeros(sketch).index_add_(0, bucket, flat).numpy()
            losses[place] += (float(loss.total.detach()), float(loss.count))
            if on_row:
                on_row(number)
    finally:
        for weight, wanted in before:
            weight.requires_grad_(wanted)
    return Traces(gradients, (losses[:, 0] / np.maximum(losses[:, 1], 1e-9)).astype(np.float32))


def chosen_parameters(model: Any) -> list[torch.nn.Parameter]:
    """Adapters where there are some, else the last layer of the longest stack and a task head of its own."""
    adapters = [weight for name, weight in model.named_parameters() if "lora_" in name]
    if adapters:
        return adapters
    core = core_model(model)
    stacks = [module for module in core.modules() if isinstance(module, torch.nn.ModuleList) and len(module)]
    longest = max(len(stack) for stack in stacks)
    last = [stack for stack in stacks if len(stack) == longest][-1][-1]
    heads = [module for name, module in core.named_children() if name in ("classifier", "qa_outputs", "score")]
    return [weight for module in (last, *heads) for weight in module.parameters() if weight.is_floating_point()]
