"""Labels by scoring: the probability of each candidate answer, as branches of one tree behind the row's prompt."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from treetune.core.records import Example, Prediction
from treetune.models.batches import batches_of
from treetune.models.decoder import label_log_probs
from treetune.models.load import LoadedModel
from treetune.models.tokens import tokenize_candidates

MAX_TOKENS = 768  # of a packed pass; a model is proved exact at this size before it is trained


@torch.no_grad()
def score_labels(
    loaded: LoadedModel, examples: Sequence[Example], *, max_length: int, layout: str, rows_per_pass: int
) -> list[Prediction]:
    """Normalise the candidates' log-probabilities over the labels and answer with the likeliest.

    Scores: ``probability`` of the answer, ``probability:<label>`` of each, ``margin`` to the runner-up.
    """
    result: list[Prediction] = []
    for start in range(0, len(examples), rows_per_pass):
        began = time.perf_counter()
        part = examples[start : start + rows_per_pass]
        tokenized = tokenize_candidates(part, loaded.tokenizer, max_length)
        logs: list[list[float]] = [[] for _ in tokenized]
        for batch in batches_of(tokenized, layout, len(tokenized), MAX_TOKENS):
            values = label_log_probs(loaded.model, batch.to(loaded.model.device)).cpu()
            for owner, value in zip(batch.label_example.tolist(), values.tolist(), strict=True):
                logs[owner].append(value)
        seconds = (time.perf_counter() - began) / len(part)
        place = 0
        for example in part:
            count = len(example.candidates)
            own = slice(place, place + count)
            result.append(_prediction(example, logs[own], tokenized[place].num_cut, seconds))
            place += count
    return result


def _prediction(example: Example, logs: list[list[float]], num_cut: int, seconds: float) -> Prediction:
    labels = list(example.candidates)
    total = np.array([sum(values) for values in logs])
    shifted = np.exp(total - total.max())
    probability = shifted / shifted.sum()
    best = int(probability.argmax())
    ranked = np.sort(probability)
    scores = {
        "probability": float(probability[best]),
        "margin": float(ranked[-1] - ranked[-2]),
        **{f"probability:{label}": float(value) for label, value in zip(labels, probability, strict=True)},
    }
    return Prediction(
        row=example.row, row_id=example.row_id, split=example.split, answer=labels[best],
        text=example.candidates[labels[best]], scores=scores, token_log_probs=tuple(logs[best]), finished=True,
        num_cut=num_cut, seconds=seconds,
    )
