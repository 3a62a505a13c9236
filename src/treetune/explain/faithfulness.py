"""Is the explanation true: does the answer change when the words it names are taken away, more than by chance.

Comprehensiveness and sufficiency: DeYoung et al. 2020 (arXiv 1911.03429), section 4. Deletion curve: Petsiuk et al.
2018 (arXiv 1806.07421). Both against random orders and against "rare words first", in pairs on the same rows. Taking
words away makes inputs the model was not trained on; both sides of a comparison suffer that alike.
Sanity: Adebayo et al. 2018 (arXiv 1810.03292): a map that random weights do not change explains nothing.
"""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import spearmanr

from treetune.core.records import Comparison, FloatArray
from treetune.core.seeds import generator, seed_of
from treetune.explain.attribution import attribute
from treetune.explain.subject import BoolArray, Subject, all_but, varied
from treetune.explain.words import UNIT
from treetune.metrics.interval import bootstrap, paired_bootstrap

SHARES = (0.1, 0.2, 0.5)  # of the words, for comprehensiveness and sufficiency
CURVE = tuple(step / 10 for step in range(11))
RANDOM_ORDERS = 5
METRICS = ("comprehensiveness", "sufficiency", "deletion")
HIGHER_IS_BETTER = {"comprehensiveness": True, "sufficiency": False, "deletion": False}
RANDOM, FREQUENCY = "random", "rare_words_first"
Order = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """How true the methods' explanations are on a set of rows.

    Attributes:
        values: method -> (N, 3) per row, in the order of ``METRICS``; ``random`` is a mean over orders.
        curves: method -> (N, 11) chance of the answer against its runner-up with 0, 10, … 100 % of the words gone.
        seconds: method -> mean time of an explanation. removal: how words were taken away.
    """

    values: Mapping[str, FloatArray]
    curves: Mapping[str, FloatArray]
    seconds: Mapping[str, float]
    removal: str
    cluster: tuple[Hashable, ...] | None = None

    def against(self, method: str, other: str, metric: str, seed: int = 0) -> Comparison:
        """Paired difference (method - other) of a metric."""
        place = METRICS.index(metric)
        ours, theirs = (_with_count(self.values[name][:, place]) for name in (method, other))
        return paired_bootstrap(ours, theirs, _mean, seed=seed, metric=metric, cluster=self.cluster)

    def beats_random(self, method: str) -> bool:
        """Whether its deletion curve falls faster than random order's, the whole 95 % interval of the difference."""
        return self.against(method, RANDOM, "deletion").interval.high < 0

    def as_dict(self) -> dict[str, Any]:
        """For ``explain.json`` and the report."""
        return {"rows": len(next(iter(self.values.values()))), "removal": self.removal,
                "methods": {name: self._method(name) for name in self.values}}

    def _method(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = {
            metric: asdict(bootstrap(_with_count(self.values[name][:, place]), _mean, seed=0, cluster=self.cluster))
            for place, metric in enumerate(METRICS)
        }
        found |= {"curve": [round(float(each), 5) for each in self.curves[name].mean(0)],
                  "seconds": round(self.seconds.get(name, 0.0), 4)}
        if name not in (RANDOM, FREQUENCY):
            found["against"] = {other: {metric: asdict(self.against(name, other, metric)) for metric in METRICS}
                                for other in (RANDOM, FREQUENCY)}
            found["beats_random"] = self.beats_random(name)
        return found


def measure_faithfulness(
    subjects: Iterable[Subject], methods: Sequence[str], counts: Mapping[str, int], *, seed: int = 0,
    cluster: Sequence[Hashable] | None = None, on_row: Callable[[int], None] | None = None,
) -> Faithfulness:
    """Explain each subject by every method and see what taking the named words away does.

    Args:
        counts: how often each word stands in the training rows, for the order "rare words first".
        cluster: what belongs together in the intervals, e.g. the passage; one a subject.
    """
    values: dict[str, list[FloatArray]] = {name: [] for name in (*methods, RANDOM, FREQUENCY)}
    curves: dict[str, list[FloatArray]] = {name: [] for name in values}
    seconds = dict.fromkeys(methods, 0.0)
    removal = ""
    for number, subject in enumerate(subjects):
        places, removal = varied(subject), subject.removal
        orders: list[tuple[str, Order]] = []
        for name in methods:
            began = time.perf_counter()
            found = attribute(subject, name, seed=seed)
            seconds[name] += time.perf_counter() - began
            orders.append((name, places[np.argsort(-found.values[places], kind="stable")]))
        random = generator(seed_of(seed, "faithfulness"), str(number))
        orders += [(RANDOM, random.permutation(places)) for _ in range(RANDOM_ORDERS)]
        rarity = [counts.get(subject.words[place].text.casefold(), 0) for place in places]
        orders.append((FREQUENCY, places[np.argsort(rarity, kind="stable")]))
        _measure(subject, orders, values, curves)
        if on_row:
            on_row(number)
    count = max(1, len(values[RANDOM]))
    return Faithfulness({name: np.stack(rows) for name, rows in values.items()},
                        {name: np.stack(rows) for name, rows in curves.items()},
                        {name: total / count for name, total in seconds.items()}, removal,
                        tuple(cluster) if cluster is not None else None)


def _measure(
    subject: Subject, orders: Sequence[tuple[str, Order]], values: dict[str, list[FloatArray]],
    curves: dict[str, list[FloatArray]],
) -> None:
    """Add one row's numbers; all orders' inputs are computed together, so that they share what they can."""
    rows = np.concatenate([_inputs(subject, order) for _, order in orders])
    distinct, which = np.unique(rows, axis=0, return_inverse=True)
    chances = expit(subject.scores_kept(distinct))[which.reshape(-1)].reshape(len(orders), -1)
    mine: dict[str, list[FloatArray]] = {}
    for (name, _), chance in zip(orders, chances, strict=True):
        mine.setdefault(name, []).append(chance)
    for name, several in mine.items():
        chance = np.mean(several, axis=0)
        curve, alone = chance[: len(CURVE)], chance[len(CURVE) :]
        whole = curve[0]
        gone = [curve[CURVE.index(share)] for share in SHARES]
        area = float(np.trapezoid(curve, CURVE))
        values[name].append(np.array([whole - np.mean(gone), whole - np.mean(alone), area]))
        curves[name].append(curve)


def _inputs(subject: Subject, order: Order) -> BoolArray:
    """(11 + 3, W): the first words of the order taken away, then only the first words kept; at least one word."""
    sizes = [0, *(max(1, round(share * len(order))) for share in CURVE[1:])]
    gone = [all_but(subject, order[:size]) for size in sizes]
    alone = [all_but(subject, order[max(1, round(share * len(order))) :]) for share in SHARES]
    return np.stack([*gone, *alone])


def word_counts(texts: Iterable[str]) -> Counter[str]:
    """How often each word, or Chinese character, stands in the texts; case does not matter."""
    return Counter(match.group().casefold() for text in texts for match in UNIT.finditer(text))


def map_correlation(subjects: Sequence[Subject], method: str, seed: int = 0) -> float:
    """Mean rank correlation of a method's maps with those it makes of the same model with shuffled weights.

    Near 0: the map comes from what the model learnt. Near 1: it does not, whatever else speaks for it.
    """
    shuffled = shuffled_copy(subjects[0], seed)
    found = []
    for subject in subjects:
        places = varied(subject)
        if len(places) > 2:
            other = replace(cast(Any, subject), loaded=shuffled)
            maps = [np.abs(attribute(each, method, seed=seed).values[places]) for each in (subject, other)]
            value = spearmanr(*maps).statistic
            found.append(0.0 if np.isnan(value) else float(value))
    return float(np.mean(found)) if found else float("nan")


def shuffled_copy(subject: Subject, seed: int) -> Any:
    """The subject's model with the entries of each weight in random order: same sizes and scales, nothing learnt."""
    loaded = cast(Any, subject).loaded
    model = copy.deepcopy(loaded.model)
    source = torch.Generator().manual_seed(seed_of(seed, "shuffle"))
    with torch.no_grad():
        for weight in model.parameters():
            order = torch.randperm(weight.numel(), generator=source).to(weight.device)
            weight.copy_(weight.flatten()[order].view_as(weight))
    return replace(loaded, model=model)


def _with_count(values: FloatArray) -> FloatArray:
    return np.stack([values, np.ones(len(values))], axis=1)


def _mean(sums: FloatArray) -> FloatArray:
    return np.asarray(sums[..., 0] / sums[..., 1])
