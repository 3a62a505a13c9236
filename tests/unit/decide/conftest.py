"""Judged predictions of a model whose probabilities are honest."""

from collections.abc import Callable

import numpy as np
import pytest

from treetune.core.records import Prediction
from treetune.decide.judged import Judged

LABELS = ("negative", "neutral", "positive")


def judged_rows(count: int, seed: int = 0, sharpness: float = 6.0, group_size: int = 1) -> Judged:
    """Answers to ``count`` rows in groups of ``group_size``, over three labels; sharper models are surer and better."""
    random = np.random.default_rng(seed)
    logits = sharpness * random.normal(size=(count, len(LABELS)))
    probability = np.exp(logits - logits.max(1, keepdims=True))
    probability /= probability.sum(1, keepdims=True)
    predictions, wrong, truths = [], [], []
    for place, own in enumerate(probability):
        truth = int(random.choice(len(LABELS), p=own))
        best, order = int(own.argmax()), np.sort(own)
        scores = {"probability": float(own[best]), "margin": float(order[-1] - order[-2]),
                  **{f"probability:{label}": float(p) for label, p in zip(LABELS, own, strict=True)}}
        predictions.append(Prediction(place, f"r{place}", "calibration", LABELS[best], LABELS[best], scores,
                                      (float(np.log(own[best])),), True, 0, 0.0))
        wrong.append(best != truth)
        truths.append(LABELS[truth])
    groups = tuple(f"{seed}-{place // group_size}" for place in range(count))
    return Judged(tuple(predictions), np.array(wrong), groups, tuple(truths))


@pytest.fixture(scope="session")
def make_judged() -> Callable[..., Judged]:
    """(count, seed, sharpness, group_size) -> rows."""
    return judged_rows
