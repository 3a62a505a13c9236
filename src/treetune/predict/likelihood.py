"""How likely the model finds given answers: log-probabilities of the reference completions, token by token."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from treetune.core.records import TokenizedExample
from treetune.models.batches import batches_of
from treetune.models.decoder import label_log_probs
from treetune.models.load import LoadedModel


@torch.no_grad()
def completion_log_probs(
    loaded: LoadedModel, examples: Sequence[TokenizedExample], layout: str, rows_per_pass: int = 32,
    max_tokens: int = 768,
) -> list[list[float]]:
    """Natural-log probability of each completion token (end-of-text included), one list an example."""
    loaded.model.eval()
    result: list[list[float]] = [[] for _ in examples]
    for start in range(0, len(examples), rows_per_pass):
        for batch in batches_of(examples[start : start + rows_per_pass], layout, rows_per_pass, max_tokens):
            values = label_log_probs(loaded.model, batch.to(loaded.model.device)).cpu().tolist()
            for owner, value in zip(batch.label_example.tolist(), values, strict=True):
                result[start + owner].append(value)
    return result
