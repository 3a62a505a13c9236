"""An encoder with a label head: one text in, one of the labels out (AutoModelForSequenceClassification)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from treetune.core.records import Example
from treetune.models.decoder import LossSum
from treetune.models.encoder import EncoderBatch, EncoderRow, batches_of, run_encoder, segment_ids_of
from treetune.models.label_loss import at_least_float32

__all__ = ["batches_of"]
AUTO_CLASS = "AutoModelForSequenceClassification"
PEFT_TASK = "SEQ_CLS"
BRANCHES = False
PACKS = True
MAX_LENGTH = 0
ROWS_PER_PASS = 32


def encode(examples: Sequence[Example], tokenizer: Any, max_length: int) -> list[EncoderRow]:
    """Each example's source with its special tokens; the target is the label's place among the candidates.

    Longer texts lose tokens at their end, counted. Examples without an answer get the target -100.
    """
    if not examples:
        return []
    # a text that spells out a special token must stay text
    encoded = tokenizer([example.source for example in examples], split_special_tokens=True, truncation=True,
                        max_length=max_length, return_overflowing_tokens=False)
    bare = tokenizer([example.source for example in examples], split_special_tokens=True)["input_ids"]
    return [
        EncoderRow(example.row, place, np.array(encoded["input_ids"][place], dtype=np.int64),
                   segment_ids_of(tokenizer, encoded, place), np.array([label_index(example)], dtype=np.int64),
                   len(bare[place]) - len(encoded["input_ids"][place]))
        for place, example in enumerate(examples)
    ]


def label_index(example: Example) -> int:
    """Place of the reference label among the candidates, -100 where there is none."""
    return list(example.candidates).index(example.answers[0]) if example.answers else -100


def loss_sum(model: torch.nn.Module, batch: EncoderBatch) -> LossSum:
    """Negative log-likelihood of the labels in nats, as sum and count of rows."""
    logs = log_probs(model, batch)
    return LossSum(-logs.gather(-1, batch.targets).sum(), float(len(batch.targets)))


def log_probs(model: torch.nn.Module, batch: EncoderBatch) -> torch.Tensor:
    """(B, labels) natural-log probabilities, in float32 (float64 for float64 models)."""
    logits: torch.Tensor = run_encoder(model, batch).logits
    return at_least_float32(logits).log_softmax(-1)


@torch.no_grad()
def reference_log_probs(
    loaded: Any, examples: Sequence[Example], max_length: int, layout: str
) -> list[list[float]]:
    """Natural-log probability of each example's label."""
    loaded.model.eval()
    rows = encode(examples, loaded.tokenizer, max_length)
    result: list[list[float]] = [[] for _ in rows]
    for batch in batches_of(rows, layout, ROWS_PER_PASS, max_length * ROWS_PER_PASS):
        batch = batch.to(loaded.model.device)
        values = log_probs(loaded.model, batch).gather(-1, batch.targets)[:, 0]
        for place, value in zip(batch.order.tolist(), values.tolist(), strict=True):
            result[place] = [value]
    return result


def settle(examples: Sequence[Example]) -> dict[str, Any]:
    """Nothing: the labels are in the configuration since loading."""
    return {}
