"""Memory of a run by part, and its peak over the phases it goes through.

Values a layer keeps for its backward pass were counted on the real layers by hooks on saved tensors (a test counts
again). Letters: T tokens, h width, a attention width, k key width, i inner width, H heads, s tokens seen.
Where attention is fused, scores do not stand in memory; with dropout on them, or a bias, they do (H s values a token).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from treetune.core.stretches import KEPT_ODDS, may_stay_in_factors, may_wait_in_factors, rows_of_chunk, rows_of_stretch
from treetune.plan.architecture import Architecture, Stack
from treetune.plan.quantity import Range, about
from treetune.plan.workload import Pass, Workload, scaled

GIB = 1 << 30
FLOAT, HALF = 4, 2
OPTIMIZER_VALUES = {"adamw": 2, "adam": 2, "sgd": 1, "muon": 2}
PROCESS_BYTES = 395 << 20
"""Python with torch, transformers and the loop imported and rows read, and what lies between its tensors; measured on
Linux (torch 2.13, CPU build)."""
ADAPTER_BYTES = 20 << 20
"""What peft adds."""
DEVICE_CONTEXT = 500 << 20
"""What a GPU keeps for its own kernels."""
ROW_BYTES = 6_000
"""A row of the data as row, example and token ids, in Python, without its text."""
SPREAD = (0.9, 1.25)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. ``parts`` are of the training step; ``phases`` are the peaks of what a run goes through."""

    parts: dict[str, float]
    phases: dict[str, float]
    peak: Range

    def as_dict(self) -> dict[str, Any]:
        return {"parts": self.parts, "phases": self.phases, "peak": self.peak.as_dict(),
                "peak_phase": max(self.phases, key=lambda name: self.phases[name])}


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """What decides the memory besides model and data.

    Attributes:
        frozen, head_only: see `Architecture.trained_parameters`. tree: rows are packed. gpu: on a device of its own.
        shards: devices that hold weights, gradients and optimizer in parts (``fsdp: full_shard``); 1: each holds all.
        data_bytes: of the rows in this process.
        stored_bytes, weight_bytes: of a weight in the file, and of one of the layers in memory (less when quantised).
    """

    lora_r: int = 0
    frozen: int = 0
    head_only: bool = False
    optim: str = "adamw"
    checkpointing: bool = False
    bf16: bool = False
    tree: bool = True
    gpu: bool = False
    shards: int = 1
    data_bytes: float = 0.0
    stored_bytes: int = FLOAT
    weight_bytes: float = FLOAT

    def trained(self, model: Architecture) -> int:
        """Weights that training changes."""
        return model.trained_parameters(lora_r=self.lora_r, frozen=self.frozen, head_only=self.head_only)

    def kept_share(self, model: Architecture) -> float:
        """Share of the layers whose activations are kept: none where nothing below the head is trained."""
        if self.lora_r:
            return 1.0
        return 0.0 if self.head_only else 1 - min(1.0, self.frozen / model.layers)


def layer_values(
    stack: Stack, one: Pass, *, tree: bool, source_tokens: int = 0, raw: bool = False, again: bool = False
) -> float:
    """Values that one layer keeps for the backward pass of ``one``.

    Args:
        source_tokens: tokens of the other stack whose keys and values a crossed layer keeps.
        raw: the model as it came, before `treetune.models.engine` made one kernel of its GELU.
        again: norms, activation functions and what attention of short blocks gave are computed twice instead of kept.
    """
    tokens, width = one.tokens, stack.width
    kept = float(stack.norms * (stack.norm_values - again * stack.norm_again) * width)
    mixed = 0 if again and tree and one.pairs else 2 if tree else 1  # what attention gave; in a tree also put together
    kept += (1 + mixed) * stack.attention + 2 * stack.keys
    kept += (stack.inner_values - again * stack.inner_again + (stack.formula_values if raw else 0)) * stack.inner
    if stack.query_norm:
        kept += (1 if again else 2) * (stack.attention + stack.keys)
    if stack.crossed:
        kept += 2 * stack.attention
    if stack.dropout:
        kept += stack.norms * width
    if stack.explicit:
        kept += (3 if stack.dropout else 1) * stack.heads * one.longest
        if stack.crossed:
            kept += (3 if stack.dropout else 1) * stack.heads * max(1, source_tokens // max(1, one.rows))
    odds = 0 if again and stack.heads * one.pairs > KEPT_ODDS else stack.heads * one.pairs
    gathered = 2 * stack.keys * one.keys + odds if tree else 0
    return kept * tokens + gathered + (2 * stack.attention * source_tokens if stack.crossed else 0)


def activation_bytes(model: Architecture, one: Pass, settings: MemorySettings, *, raw: bool = False) -> float:
    """What a forward pass leaves for the backward pass, without logits. ``raw``: see `layer_values`."""
    size = HALF if settings.bf16 else FLOAT
    again = model.family == "decoder" and not (raw or settings.bf16 or settings.gpu)
    total = 0.0
    for stack in model.stacks:
        encoding = len(model.stacks) > 1 and not stack.crossed
        side = Pass(one.source_tokens, one.sources, one.source_longest, 0) if encoding else one
        each = layer_values(stack, side, tree=settings.tree and model.family == "decoder",
                            source_tokens=one.source_tokens, raw=raw, again=again)
        layers = stack.layers * settings.kept_share(model)
        if settings.checkpointing:
            total += side.tokens * stack.width * layers + each
        else:
            total += each * layers
        total += (3 if model.family != "decoder" else 2) * side.tokens * stack.width  # embedding and last norm
    return total * size


def logits_bytes(model: Architecture, one: Pass, settings: MemorySettings) -> float:
    """Logits, what is made of them, and the gradient of the output matrix, at the labelled tokens."""
    if model.output is None:
        return 0.0
    vocabulary = model.output.outputs
    whole = float(one.labels * vocabulary * FLOAT)
    matrix = float(vocabulary * model.width * FLOAT)
    frozen = settings.lora_r > 0
    if model.family == "decoder":  # in stretches of equal length, logarithms and slopes in the place of the logits
        size = FLOAT + 2 * HALF if settings.bf16 else FLOAT  # beside the products in half precision
        if model.tied and not (frozen or settings.gpu) and may_wait_in_factors(one.labels, model.width, vocabulary):
            return one.labels * vocabulary * size  # multiplied out when the activations are gone
        return rows_of_stretch(one.labels, vocabulary) * vocabulary * size + (0 if frozen else matrix)
    return whole * 3 + (0 if frozen else matrix)


def proof_bytes(model: Architecture, one: Pass, settings: MemorySettings, trained: float) -> float:
    """What the proof of exactness takes beside the weights: one of two passes, whichever is larger; no dropout.

    First the separate rows through the model as it came, at most a quarter of the tokens or a single row at a
    time, with logits that stand whole; then a tree of them all, with the gradients of the former kept beside its own.

    Args:
        one: the rows of the proof. trained: weights with a gradient.
    """
    calm = replace(model, stacks=tuple(replace(stack, dropout=False, explicit=False) for stack in model.stacks))
    few = scaled(one, max(0.25, 1 / max(1, one.rows)))
    few = replace(few, tokens=max(few.tokens, one.longest))
    vocabulary = model.output.outputs if model.output else 0
    stretch = rows_of_chunk(vocabulary) // 4
    states = min(few.labels, max(stretch, math.ceil(one.labels / one.rows)))
    plain = MemorySettings(lora_r=settings.lora_r, tree=False, checkpointing=settings.checkpointing, gpu=settings.gpu)
    apart = activation_bytes(calm, few, plain, raw=True) + 3 * float(states * vocabulary * FLOAT)
    together = activation_bytes(calm, one, replace(plain, tree=settings.tree)) + logits_bytes(model, one, plain)
    return FLOAT * trained + max(apart, FLOAT * trained + together)


def gathered_bytes(model: Architecture, settings: MemorySettings, trained: float) -> float:
    """Of weights held in parts, what stands whole for a while: all outside the layers, the layer at work, and the
    next one on its way; of the trained share their gradients, a layer's twice until its sum is taken; and copies in
    half precision, which a layer's backward pass needs unless it recomputes the layer.
    """
    if settings.shards == 1:
        return 0.0
    outside = float(model.parameters - model.matrix_weights)
    whole = outside + 2 * model.matrix_weights / max(1, model.layers)
    copied = (whole if settings.checkpointing else model.parameters) if settings.bf16 else 0.0
    return FLOAT * whole * (1 + trained / model.parameters) + HALF * copied


def never_made_bytes(model: Architecture, work: Workload, settings: MemorySettings) -> float:
    """Of the gradients, that of a tied matrix where labels are so few that it stays in factors to the end of a step."""
    all_trained = not (settings.lora_r or settings.frozen or settings.head_only)
    alone = settings.shards == 1 and not settings.gpu and settings.optim != "sgd"
    if model.family != "decoder" or model.output is None or not (model.tied and all_trained and alone):
        return 0.0
    labels, tokens = (math.ceil(count / max(1, work.steps)) for count in (work.labels, work.tokens))
    vocabulary, width = model.output.outputs, model.width
    return float(vocabulary * width * FLOAT) if may_stay_in_factors(labels, width, tokens, vocabulary) else 0.0


def memory_of(model: Architecture, work: Workload, settings: MemorySettings) -> Memory:
    """Peak memory of one process on one device."""
    adapters = model.lora_parameters(settings.lora_r) if settings.lora_r else 0
    trained = settings.trained(model) / settings.shards
    held = (model.parameters + adapters) / settings.shards
    inside = model.matrix_weights / settings.shards
    weights = FLOAT * (held - inside) + settings.weight_bytes * inside
    weights += HALF * held if settings.bf16 and settings.shards == 1 else 0
    weights += gathered_bytes(model, settings, settings.trained(model))
    process = float(DEVICE_CONTEXT if settings.gpu else PROCESS_BYTES + (ADAPTER_BYTES if adapters else 0))
    parts = {
        "process": process, "data": 0.0 if settings.gpu else settings.data_bytes, "weights": weights,
        "gradients": FLOAT * trained - never_made_bytes(model, work, settings),
        "optimizer": FLOAT * trained * OPTIMIZER_VALUES[settings.optim],
        "activations": activation_bytes(model, work.largest, settings),
        "logits": logits_bytes(model, work.largest, settings),
    }
    always = parts["process"] + parts["data"] + weights
    step = parts["activations"] + parts["logits"] + parts["gradients"]
    phases = {
        "loading": always + (0 if settings.gpu else settings.stored_bytes * model.parameters),
        "training": always + parts["optimizer"] + step,
        "saving": always + parts["optimizer"] + (0 if settings.gpu else FLOAT * trained),
    }
    if work.proof is not None:
        phases["proof"] = always + proof_bytes(model, work.proof, settings, trained)
    return Memory(parts, phases, about(max(phases.values()), *SPREAD))


def cache_bytes(model: Architecture, tokens: int, rows: int, size: int = FLOAT) -> float:
    """Keys and values of ``rows`` rows of ``tokens`` tokens, kept while answers are written."""
    writing = model.stacks[-1]
    return 2.0 * writing.layers * writing.keys * size * tokens * rows * (2 if writing.crossed else 1)
