"""Predictions from what other engines give back: an answer's text with the log-probabilities of its tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from treetune.core.records import Example, Prediction
from treetune.predict.classes import label_scores
from treetune.tasks.contract import Task


def text_prediction(
    task: Task, example: Example, text: str, logs: Sequence[float], *, finished: bool, num_cut: int, seconds: float
) -> Prediction:
    """A written answer.

    Args:
        logs: natural-log probability of each token, end-of-text included; () where the engine gives none: then every
            score is NaN, so that no gate lets the answer through.
    """
    total = float(np.sum(logs)) if logs else float("nan")
    scores = {"probability": float(np.exp(total)), "mean_log_prob": total / max(1, len(logs)),
              "min_log_prob": float(min(logs, default=float("nan")))}
    return Prediction(
        row=example.row, row_id=example.row_id, split=example.split, answer=task.answer_from_text(text, example),
        text=text, scores=scores, token_log_probs=tuple(logs), finished=finished, num_cut=num_cut, seconds=seconds,
    )


def label_prediction(
    example: Example, logs: Sequence[Sequence[float]], *, num_cut: int, seconds: float
) -> Prediction:
    """The likeliest label; ``logs``: for each candidate the natural-log probability of each of its tokens."""
    labels = list(example.candidates)
    total = np.array([sum(own) for own in logs])
    best = int(total.argmax())
    return Prediction(
        row=example.row, row_id=example.row_id, split=example.split, answer=labels[best],
        text=example.candidates[labels[best]], scores=label_scores(labels, total),
        token_log_probs=tuple(logs[best]), finished=True, num_cut=num_cut, seconds=seconds,
    )
