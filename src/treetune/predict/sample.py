"""Several drawn answers to each row: how much they agree with the one given says something of how sure the model is.

The copies of a row stand beside one another, so that where prompts are shared they share theirs, and an
encoder-decoder reads a source once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from treetune.core.records import Example
from treetune.core.seeds import generator
from treetune.models.load import LoadedModel
from treetune.predict.answers import predict_answers
from treetune.predict.draw import Draw
from treetune.predict.engines.contract import Decoding
from treetune.tasks.contract import Task


@dataclass(frozen=True, slots=True)
class Sampling:
    """``count`` answers a row are drawn at ``temperature`` > 0; ``seed`` and the row's text fix what is drawn."""

    count: int
    temperature: float
    seed: int


def sampled_answers(
    loaded: LoadedModel, task: Task, examples: Sequence[Example], decoding: Decoding, sampling: Sampling
) -> list[list[str]]:
    """The drawn answers of each example, written under the conditions of the run's own answers."""
    copies = [example for example in examples for _ in range(sampling.count)]
    numbers = np.array([
        generator(sampling.seed, "agreement", each.source, each.question, number).random(decoding.max_new_tokens)
        for each in examples for number in range(sampling.count)
    ]).reshape(len(copies), decoding.max_new_tokens)
    found = predict_answers(
        loaded, task, copies, max_length=decoding.max_length, max_new_tokens=decoding.max_new_tokens,
        layout=decoding.layout, answers_from=decoding.answers_from,
        no_repeat_ngram_size=decoding.no_repeat_ngram_size, draw=Draw(sampling.temperature, numbers),
    )
    texts = [each.answer for each in found]
    return [texts[start : start + sampling.count] for start in range(0, len(texts), sampling.count)]
