"""Several systems on the same examples: scores, paired comparisons with one of them, confusion counts."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from treetune.core.errors import RunError, UsageError
from treetune.core.records import Comparison, Example, Interval, Score
from treetune.evaluate.score import Resampling, comparison_of, score_of, statistics_of
from treetune.metrics.interval import LEVEL, NUM_RESAMPLES, Clusters
from treetune.metrics.label import confusion_matrix, labels_in
from treetune.metrics.statistics import RowStatistics

Counts = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured.

    Attributes:
        scores: system -> one score a metric, in the order asked for.
        reference_system: the system the others are compared with, "" for none.
        comparisons: other system -> (it - reference system), one a metric. p-values are not corrected for
            several comparisons.
        labels: label names in order, () where answers are not labels.
        confusion: system -> (L, L + 1) counts: line = expected, column = answered, last column = no label.
        counts: ``rows``, ``units`` (what is resampled: rows or clusters) and ``language:<code>``.
        seed, num_resamples: of the intervals.
    """

    scores: Mapping[str, tuple[Score, ...]]
    reference_system: str
    comparisons: Mapping[str, tuple[Comparison, ...]]
    labels: tuple[str, ...]
    confusion: Mapping[str, Counts]
    counts: Mapping[str, int]
    seed: int
    num_resamples: int

    def as_dict(self) -> dict[str, Any]:
        """Plain lists, dicts, texts and numbers, ready for JSON."""
        return {
            "scores": {name: [_score_as_dict(score) for score in row] for name, row in self.scores.items()},
            "reference_system": self.reference_system,
            "comparisons": {
                name: [_comparison_as_dict(one) for one in row] for name, row in self.comparisons.items()
            },
            "labels": list(self.labels),
            "confusion": {name: [list(line) for line in table] for name, table in self.confusion.items()},
            "counts": dict(self.counts),
            "seed": self.seed,
            "num_resamples": self.num_resamples,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Evaluation:
        """What `as_dict` wrote.

        Raises:
            RunError: E5401 when it is not that.
        """
        try:
            return cls(
                scores={name: tuple(map(_score, row)) for name, row in value["scores"].items()},
                reference_system=str(value["reference_system"]),
                comparisons={
                    name: tuple(map(_comparison, row)) for name, row in value["comparisons"].items()
                },
                labels=tuple(value["labels"]),
                confusion={name: _counts(table) for name, table in value["confusion"].items()},
                counts={name: int(count) for name, count in value["counts"].items()},
                seed=int(value["seed"]),
                num_resamples=int(value["num_resamples"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RunError("E5401", "the saved evaluation cannot be read", found=repr(error),
                           allowed="what treetune evaluate wrote", do="evaluate the run again") from error


def evaluate_systems(
    systems: Mapping[str, Sequence[str]],
    examples: Sequence[Example],
    metrics: Sequence[str],
    *,
    seed: int,
    labels: Sequence[str] = (),
    cluster: Clusters | None = None,
    reference_system: str = "",
    num_resamples: int = NUM_RESAMPLES,
    level: float = LEVEL,
) -> Evaluation:
    """Scores of every system, and its paired difference to one of them.

    Args:
        systems: name -> (N,) answers, one an example.
        labels: names in a fixed order; (): the examples' candidates.
        reference_system: compare every other system with this one; "": no comparisons.
        Others as in `treetune.evaluate.score.evaluate`, whose errors this raises, too.

    Raises:
        UsageError: E2403 when ``reference_system`` is none of the systems.
    """
    if reference_system and reference_system not in systems:
        raise _no_system(reference_system, list(systems))
    how = Resampling(seed, num_resamples, level, cluster)
    references = [example.answers for example in examples]
    fixed = tuple(labels) or tuple(examples[0].candidates if examples else ())
    names = fixed or labels_in([answer for row in systems.values() for answer in row], references)
    statistics = {
        system: {metric: statistics_of(metric, answers, examples, names) for metric in metrics}
        for system, answers in systems.items()
    }
    return Evaluation(
        scores={
            system: tuple(score_of(metric, found, how) for metric, found in row.items())
            for system, row in statistics.items()
        },
        reference_system=reference_system,
        comparisons=_comparisons(statistics, reference_system, how),
        labels=fixed,
        confusion={
            system: _counts(confusion_matrix(answers, references, fixed).tolist())
            for system, answers in systems.items() if fixed
        },
        counts=_count(examples, cluster),
        seed=seed,
        num_resamples=num_resamples,
    )


def _comparisons(
    statistics: Mapping[str, Mapping[str, RowStatistics]], reference: str, how: Resampling
) -> dict[str, tuple[Comparison, ...]]:
    if not reference:
        return {}
    base = statistics[reference]
    return {
        system: tuple(comparison_of(metric, found, base[metric], how) for metric, found in row.items())
        for system, row in statistics.items() if system != reference
    }


def _count(examples: Sequence[Example], cluster: Clusters | None) -> dict[str, int]:
    languages = Counter(example.language for example in examples)
    units = len(examples) if cluster is None else len(set(cluster))
    by_language = {f"language:{code}": count for code, count in sorted(languages.items())}
    return {"rows": len(examples), "units": units, **by_language}


def _no_system(name: str, known: list[str]) -> UsageError:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return UsageError("E2403", "there is no system {name!r} to compare with", name=name, found=name,
                      allowed=", ".join(known), near=near[0] if near else "",
                      do="write {near}" if near else "choose one of them")


def _counts(table: Sequence[Sequence[int]]) -> Counts:
    return tuple(tuple(int(count) for count in line) for line in table)


def _interval_as_dict(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high, "level": interval.level}


def _score_as_dict(score: Score) -> dict[str, Any]:
    return {"metric": score.metric, **_interval_as_dict(score.interval), "count": score.count,
            "signature": score.signature}


def _comparison_as_dict(comparison: Comparison) -> dict[str, Any]:
    return {"metric": comparison.metric, **_interval_as_dict(comparison.interval), "count": comparison.count,
            "p_value": comparison.p_value}


def _interval(value: Mapping[str, Any]) -> Interval:
    return Interval(*(float(value[name]) for name in ("value", "low", "high", "level")))


def _score(value: Mapping[str, Any]) -> Score:
    return Score(str(value["metric"]), _interval(value), int(value["count"]), str(value["signature"]))


def _comparison(value: Mapping[str, Any]) -> Comparison:
    return Comparison(str(value["metric"]), _interval(value), float(value["p_value"]), int(value["count"]))
