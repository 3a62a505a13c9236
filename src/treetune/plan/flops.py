"""Floating-point operations of training and answering. A multiplication and an addition are two.

Conventions side by side: that of the GPT-3 paper (6 N D, all weights, no attention scores; Brown et al. 2020, appendix
D; Kaplan et al. 2020, arXiv 2001.08361), the same with attention scores, and what this run computes: adapters need no
gradients of the frozen weights, checkpoints need a second forward pass, logits are taken at labels only.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from treetune.plan.architecture import Architecture, Stack
from treetune.plan.workload import Workload

PETAFLOPS_DAY = 8.64e19
"""One day at 10^15 operations a second."""


@dataclass(frozen=True, slots=True)
class Flops:
    """Operations of a whole run. ``paper``: 6 N D. ``with_attention``: and the attention scores. ``run``: this run."""

    paper: float
    with_attention: float
    run: float
    evaluation: float

    @property
    def pf_days(self) -> float:
        """`paper` in petaflop/s-days."""
        return self.paper / PETAFLOPS_DAY

    def as_dict(self) -> dict[str, float]:
        return {**asdict(self), "pf_days": self.pf_days}


def paper_flops(parameters: float, tokens: float) -> float:
    """6 N D."""
    return 6.0 * parameters * tokens


def attention_flops(stack: Stack, context: float) -> float:
    """Forward operations a token of scores and weighted sums: 4 x attention width x tokens seen, per layer."""
    window = stack.window or context
    plain = (stack.layers - stack.windowed) * context
    return 4.0 * stack.attention * (plain + stack.windowed * min(context, window)) * (2 if stack.crossed else 1)


def forward_flops(model: Architecture, tokens: float, labels: float, context: float) -> float:
    """One forward pass over ``tokens`` with logits at ``labels``. An encoder-decoder's token passes half the layers."""
    weights = 2.0 * model.matrix_weights / len(model.stacks)
    scores = sum(attention_flops(stack, context) for stack in model.stacks) / len(model.stacks)
    head = 2.0 * model.output.inputs * model.output.outputs if model.output else 0.0
    return (weights + scores) * tokens + head * labels


def training_flops(
    model: Architecture, work: Workload, *, lora_r: int = 0, checkpointing: bool = False, window: int = 0,
    kept_share: float = 1.0,
) -> Flops:
    """Operations of a run.

    Args:
        window: context length of the convention with attention, 12 L s h D (half of it where a kernel skips the
            masked half); default: the run's own longest row.
        kept_share: share of the layers that a gradient passes through; those below it are frozen.
    """
    length = window or work.largest.longest
    paper = paper_flops(model.parameters, work.row_tokens)
    scores = 3.0 * work.row_tokens * sum(attention_flops(stack, length) for stack in model.stacks) / len(model.stacks)
    forward = forward_flops(model, work.tokens, work.labels, work.context)
    # adapters: forward, and back to the inputs; no gradients of the frozen weights
    factor = 2.0 if lora_r else 1.0 + 2.0 * kept_share
    adapters = 6.0 * model.lora_parameters(lora_r) * work.tokens / len(model.stacks) if lora_r else 0.0
    run = forward * (factor + (1.0 if checkpointing else 0.0)) + adapters
    share = work.evaluation_tokens / work.tokens if work.tokens else 0.0
    return Flops(paper, paper + scores, run, forward * share * work.evaluations)


def answer_flops(model: Architecture, prompt: float, new: float, samples: int = 1) -> float:
    """One answer: the prompt read once, ``new`` tokens written, ``samples`` times."""
    written = forward_flops(model, new, new, prompt + new / 2)
    return forward_flops(model, prompt, 1, prompt / 2) + samples * written
