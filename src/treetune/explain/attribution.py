"""What each word adds to the answer: gradient times input, integrated gradients, Shapley values, leaving one out.

Integrated gradients: Sundararajan et al. 2017 (arXiv 1703.01365), Gauss-Legendre along the straight path. Shapley
values by sampled orders, each with its reverse: Castro et al. 2009; Mitchell et al. 2022 (antithetic orders).
Letters: L tokens, W words, V varied words, D width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from treetune.core.errors import UsageError
from treetune.core.records import FloatArray
from treetune.core.seeds import generator
from treetune.explain.subject import Subject, all_but, varied
from treetune.explain.words import sums_of_words

STEPS = 32
ORDERS = 20
MAX_UNITS = 40
INPUTS_PER_PASS = 8
Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Attribution:
    """What each word adds to the log-odds of the answer, in nats.

    Attributes:
        values: (W,) one a word, 0 where a word was not varied. places: (V,) words that were.
        score: log-odds with all words. without: with none of the varied ones (of the baseline, for gradients).
        gap: what is missing from ``values`` to ``score - without``, as a share of it; None where that is no claim.
        note: what was simplified, ``""`` else. evaluations: inputs computed. seconds: for all of it.
    """

    method: str
    values: FloatArray
    places: Places
    score: float
    without: float
    gap: float | None
    note: str
    evaluations: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Found:
    """What a method returns to `attribute`; see `Attribution`."""

    values: FloatArray
    score: float
    without: float
    gap: float | None
    evaluations: int
    note: str = ""


def attribute(
    subject: Subject, method: str, *, seed: int = 0, with_instruction: bool = False
) -> Attribution:
    """One explanation.

    Raises:
        UsageError: E2607 unknown method, E2601 no words.
    """
    if method not in METHODS:
        raise UsageError("E2607", "there is no such method of explanation", found=method, allowed=", ".join(METHODS),
                         do="choose one of them")
    places = varied(subject, with_instruction=with_instruction)
    began = time.perf_counter()
    found = METHODS[method](subject, places, seed)
    return Attribution(method, found.values, places, found.score, found.without, found.gap, found.note,
                       found.evaluations, time.perf_counter() - began)


def gradient_x_input(subject: Subject, places: Places, seed: int = 0) -> Found:
    """One forward and one backward pass: how the answer would change with a small change of each word.

    Measured from the baseline, as integrated gradients with one step at the input itself.
    """
    point, start = subject.embedded(), _start(subject, places)
    score, slope = _slopes(subject, point[None])
    by_token = ((point - start).double() * slope[0].double()).sum(-1).cpu().numpy()
    return Found(_at(sums_of_words(subject.words, by_token), places), float(score[0]), float("nan"), None, 1)


def integrated_gradients(
    subject: Subject, places: Places, seed: int = 0, steps: int = STEPS, baseline: torch.Tensor | None = None
) -> Found:
    """The gradient's mean along the way from a baseline to the input; the values add up to what the answer gains.

    Args:
        baseline: (D,) what stands at the varied words at the start; None: the subject's own.
    """
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    alphas, weights = (nodes + 1) / 2, weights / 2
    point, start = subject.embedded(), _start(subject, places, baseline)
    total = torch.zeros_like(point, dtype=torch.float64)
    for first in range(0, steps, INPUTS_PER_PASS):
        part = torch.from_numpy(alphas[first : first + INPUTS_PER_PASS]).to(point)
        _, slopes = _slopes(subject, start + part[:, None, None] * (point - start))
        share = torch.from_numpy(weights[first : first + INPUTS_PER_PASS]).to(slopes.device)
        total += (slopes.double() * share[:, None, None]).sum(0)
    by_token = ((point - start).double() * total).sum(-1).cpu().numpy()
    with torch.no_grad():
        score, without = subject.scores_of_embedded(torch.stack([point, start])).tolist()
    values = _at(sums_of_words(subject.words, by_token), places)
    gained = score - without
    return Found(values, score, without, abs(gained - float(values.sum())) / max(abs(gained), 1e-9), steps + 2)


def shapley(
    subject: Subject, places: Places, seed: int = 0, orders: int = ORDERS, max_units: int = MAX_UNITS
) -> Found:
    """What a word adds, on average over random orders in which the words are put back one by one.

    Of more than ``max_units`` words neighbours are put back together and share their value equally.
    """
    groups = np.array_split(places, min(len(places), max_units))
    random = generator(seed, "shapley")
    half = [random.permutation(len(groups)) for _ in range((orders + 1) // 2)]
    chosen = [order for one in half for order in (one, one[::-1])][:orders]
    rows = np.concatenate([_put_back(subject, places, groups, order) for order in chosen])
    distinct, which = np.unique(rows, axis=0, return_inverse=True)
    scores = subject.scores_kept(distinct)[which.reshape(-1)].reshape(len(chosen), len(groups) + 1)
    values = np.zeros(len(subject.words))
    for order, line in zip(chosen, scores, strict=True):
        for number, gain in zip(order, np.diff(line), strict=True):
            values[groups[number]] += gain / len(groups[number]) / len(chosen)
    note = "" if len(groups) == len(places) else f"{len(places)} words in {len(groups)} groups"
    return Found(values, float(scores[0, -1]), float(scores[0, 0]), 0.0, len(distinct), note)


def _put_back(subject: Subject, places: Places, groups: list[Places], order: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(groups + 1, W) which words stand: at first none of the varied ones, then one group more each time."""
    rows = np.tile(all_but(subject, places), (len(order) + 1, 1))
    for number, group in enumerate(order):
        rows[number + 1 :, groups[group]] = True
    return rows


def occlusion(subject: Subject, places: Places, seed: int = 0) -> Found:
    """What the answer loses when one word is taken away and the others stay."""
    rows = np.stack([all_but(subject, []), all_but(subject, places), *(all_but(subject, [each]) for each in places)])
    scores = subject.scores_kept(rows)
    values = np.zeros(len(subject.words))
    values[places] = scores[0] - scores[2:]
    return Found(values, float(scores[0]), float(scores[1]), None, len(rows))


METHODS: Mapping[str, Callable[..., Found]] = {
    "integrated_gradients": integrated_gradients,
    "gradient_x_input": gradient_x_input,
    "shapley": shapley,
    "occlusion": occlusion,
}


def _start(subject: Subject, places: Places, baseline: torch.Tensor | None = None) -> torch.Tensor:
    """(L, D) the input with the baseline at every token of the varied words."""
    start = subject.embedded().clone()
    tokens = [token for place in places for token in subject.words[place].tokens]
    start[tokens] = subject.baseline() if baseline is None else baseline.to(start)
    return start


def _slopes(subject: Subject, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N,) scores and (N, L, D) their gradients by the inputs."""
    inputs = inputs.detach().requires_grad_()
    with torch.enable_grad():
        scores = subject.scores_of_embedded(inputs)
        [slopes] = torch.autograd.grad(scores.sum(), inputs)
    return scores.detach(), slopes


def _at(values: FloatArray, places: Places) -> FloatArray:
    """``values`` at the varied words, 0 elsewhere."""
    kept = np.zeros_like(values)
    kept[places] = values[places]
    return kept
