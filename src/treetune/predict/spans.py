"""Answers as spans of the context: the best first and last token over all windows, against "there is no answer"."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from treetune.core.records import Example, FloatArray, Prediction
from treetune.models.encoder import EncoderRow, batches_of, run_encoder
from treetune.models.load import LoadedModel
from treetune.models.spans import encode, start_token


@dataclass(frozen=True, slots=True)
class Spans:
    """Every span an example's windows allow, each once. N spans.

    Attributes:
        characters: (N, 2) start and end in the context. scores: (N, 2) logits of first and last token.
        no_answer: (2,) logits of the start token as first and last, of the window that believes in it least.
    """

    characters: np.ndarray[tuple[int, int], np.dtype[np.int64]]
    scores: FloatArray
    no_answer: FloatArray


@torch.no_grad()
def predict_spans(
    loaded: LoadedModel, examples: Sequence[Example], *, max_length: int, max_new_tokens: int, rows_per_pass: int,
    layout: str = "padded",
) -> list[Prediction]:
    """The likeliest span of at most ``max_new_tokens`` tokens in each example's context.

    ``layout``: ``packed`` only where it was proved of the model.

    Where the training rows had questions without answer, "no answer" competes with the spans; its score is the lowest
    over the windows, because one window that holds the answer is enough.

    Scores: ``probability`` of the answer among all spans (and no answer), ``margin`` to the best other answer,
    ``probability:no_answer``, ``start`` and ``end``: the answer's characters in the context, -1 without an answer.
    """
    loaded.model.eval()
    began = time.perf_counter()
    rows = encode(examples, loaded.tokenizer, max_length)
    logits: dict[int, FloatArray] = {}
    for batch in batches_of(rows, layout, rows_per_pass, rows_per_pass * max_length):
        found = run_encoder(loaded.model, batch.to(loaded.model.device))
        both = torch.stack([found.start_logits, found.end_logits], dim=1).double().cpu().numpy()
        logits |= dict(zip(batch.order.tolist(), both, strict=True))
    windows: list[list[int]] = [[] for _ in examples]
    for number, row in enumerate(rows):
        windows[row.place].append(number)
    seconds = (time.perf_counter() - began) / len(examples)
    may_be_none = bool(getattr(loaded.model.config, "no_answer", False))
    return [
        _prediction(example, spans_in([rows[n] for n in own], [logits[n] for n in own], loaded.tokenizer,
                                      max_new_tokens), may_be_none, seconds)
        for example, own in zip(examples, windows, strict=True)
    ]


def spans_in(
    rows: Sequence[EncoderRow], logits: Sequence[FloatArray], tokenizer: object, max_tokens: int
) -> Spans:
    """The spans of all windows of one example; one that stands in two windows keeps its better score."""
    characters, scores, none = [], [], []
    for row, own in zip(rows, logits, strict=True):
        assert row.offsets is not None
        inside = np.flatnonzero(row.offsets[:, 0] >= 0)
        first, last = np.meshgrid(inside, inside, indexing="ij")
        allowed = (first <= last) & (last < first + max_tokens)
        first, last = first[allowed], last[allowed]
        characters.append(np.stack([row.offsets[first, 0], row.offsets[last, 1]], axis=1))
        scores.append(np.stack([own[0, first], own[1, last]], axis=1))
        start = start_token(row.input_ids, tokenizer)
        none.append(own[:, start])
    places, values = np.concatenate(characters), np.concatenate(scores)
    order = np.argsort(-values.sum(1), kind="stable")
    _, best = np.unique(places[order], axis=0, return_index=True)
    kept = order[np.sort(best)]
    return Spans(places[kept], values[kept], np.array(min(none, key=lambda pair: float(pair.sum()))))


def _prediction(example: Example, spans: Spans, may_be_none: bool, seconds: float) -> Prediction:
    totals = spans.scores.sum(1)
    choices = np.append(totals, spans.no_answer.sum() if may_be_none else -np.inf)
    shifted = np.exp(choices - choices.max())
    probability = shifted / shifted.sum()
    best = int(probability.argmax())
    start, end = (-1, -1) if best == len(totals) else spans.characters[best].tolist()
    text = example.source[start:end] if start >= 0 else ""
    ranked = np.sort(probability)
    scores = {
        "probability": float(probability[best]), "margin": float(ranked[-1] - ranked[-2]),
        "probability:no_answer": float(probability[-1]), "start": float(start), "end": float(end),
    }
    return Prediction(
        row=example.row, row_id=example.row_id, split=example.split, answer=" ".join(text.split()), text=text,
        scores=scores, token_log_probs=(float(np.log(probability[best])),), finished=True, num_cut=0, seconds=seconds,
    )
