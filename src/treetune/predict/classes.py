"""Labels by an encoder's label head: its probabilities are over the task's labels alone."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from treetune.core.records import Example, FloatArray, Prediction
from treetune.models.classes import encode, log_probs
from treetune.models.encoder import EncoderRow, batches_of
from treetune.models.load import LoadedModel


@torch.no_grad()
def predict_classes(
    loaded: LoadedModel, examples: Sequence[Example], *, max_length: int, rows_per_pass: int, layout: str = "padded"
) -> list[Prediction]:
    """The likeliest label of each example. ``layout``: ``packed`` only where it was proved of the model.

    Scores: ``probability`` of the answer, ``probability:<label>`` of each, ``margin`` to the runner-up.
    """
    loaded.model.eval()
    rows = encode(examples, loaded.tokenizer, max_length)
    result: dict[int, Prediction] = {}
    for batch in batches_of(rows, layout, rows_per_pass, rows_per_pass * max_length):
        began = time.perf_counter()
        logs = log_probs(loaded.model, batch.to(loaded.model.device)).double().cpu().numpy()
        seconds = (time.perf_counter() - began) / len(logs)
        for place, own in zip(batch.order.tolist(), logs, strict=True):
            result[place] = _prediction(examples[place], rows[place], own, seconds)
    return [result[place] for place in range(len(examples))]


def _prediction(example: Example, row: EncoderRow, logs: FloatArray, seconds: float) -> Prediction:
    labels = list(example.candidates)
    best = int(logs.argmax())
    return Prediction(
        row=example.row, row_id=example.row_id, split=example.split, answer=labels[best], text=labels[best],
        scores=label_scores(labels, logs), token_log_probs=(float(logs[best]),), finished=True, num_cut=row.num_cut,
        seconds=seconds,
    )


def label_scores(labels: Sequence[str], logs: FloatArray) -> dict[str, float]:
    """Probabilities over the labels from log-probabilities that need not be normalised, by name, and the margin."""
    shifted = np.exp(logs - logs.max())
    probability = shifted / shifted.sum()
    ranked = np.sort(probability)
    return {
        "probability": float(ranked[-1]), "margin": float(ranked[-1] - ranked[-2]),
        **{f"probability:{label}": float(value) for label, value in zip(labels, probability, strict=True)},
    }
