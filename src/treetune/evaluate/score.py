"""Metrics by name: answers and examples in, a score with its interval out.

| name | what | range |
|---|---|---|
| accuracy, macro_f1 | labels | 0-1 |
| exact_match, f1 | spans: SQuAD, or CMRC 2018 in Chinese rows | 0-1 |
| rouge1, rouge2, rougeL | mean F over rows | 0-1 |
| bleu, chrf | corpus scores of sacrebleu | 0-100 |

Higher is better for all of them. Of several reference answers the best counts (BLEU pools their n-grams).
Perplexity needs log-probabilities, not answers: `perplexity_score`, `bits_per_byte_score`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from treetune.core.errors import DataError, UsageError
from treetune.core.records import Comparison, Example, Interval, Score
from treetune.metrics import label, language_model, span, text
from treetune.metrics.interval import (
    LEVEL,
    NUM_RESAMPLES,
    Clusters,
    bootstrap,
    paired_bootstrap,
    wilson,
)
from treetune.metrics.segment import is_chinese
from treetune.metrics.statistics import RowStatistics

Examples = Sequence[Example]
Measure = Callable[[Sequence[str], Examples, Sequence[str]], RowStatistics]


@dataclass(frozen=True, slots=True)
class Metric:
    """One entry of the registry.

    Attributes:
        measure: (answers, examples, labels) -> statistics; labels matter to macro_f1 only.
        best: value of a perfect system, 1 or 100; the worst is 0.
        is_mean: whether it is the mean over rows of a number between 0 and 1.
        knows_unanswerable: whether an example without reference answer means "there is no answer".
    """

    name: str
    measure: Measure
    best: float = 1.0
    is_mean: bool = True
    knows_unanswerable: bool = False


@dataclass(frozen=True, slots=True)
class Resampling:
    """How intervals and p-values are made; see `treetune.metrics.interval`.

    Attributes:
        cluster: one id a row, rows of one id are drawn together; None: each row by itself. level: 0-1.
    """

    seed: int
    num_resamples: int = NUM_RESAMPLES
    level: float = LEVEL
    cluster: Clusters | None = None


def evaluate(
    answers: Sequence[str],
    examples: Examples,
    metrics: Sequence[str],
    *,
    seed: int,
    labels: Sequence[str] = (),
    cluster: Clusters | None = None,
    num_resamples: int = NUM_RESAMPLES,
    level: float = LEVEL,
) -> tuple[Score, ...]:
    """Scores of one system, in the order of ``metrics``.

    Args:
        answers: (N,) one an example, in the same order.
        seed: of the resamples; the same for all metrics, so all see the same rows.
        labels: label names in a fixed order; () : those that occur.
        cluster: (N,) ids; see `passages_of`.
        level: of the intervals, 0-1.

    Raises:
        DataError: E1401 a row without reference, E1402 no rows, E1404 not one answer an example.
        UsageError: E2401 unknown metric, E2404 level or number of resamples out of range.
    """
    how = Resampling(seed, num_resamples, level, cluster)
    return tuple(
        score_of(metric, statistics_of(metric, answers, examples, labels), how) for metric in metrics
    )


def compare(
    answers_a: Sequence[str],
    answers_b: Sequence[str],
    examples: Examples,
    metric: str,
    *,
    seed: int,
    labels: Sequence[str] = (),
    cluster: Clusters | None = None,
    num_resamples: int = NUM_RESAMPLES,
    level: float = LEVEL,
) -> Comparison:
    """Paired difference (a - b) of two systems on the same examples; the rest as in `evaluate`."""
    names = tuple(labels) or label.labels_in([*answers_a, *answers_b], _references(examples))
    how = Resampling(seed, num_resamples, level, cluster)
    return comparison_of(
        metric,
        statistics_of(metric, answers_a, examples, names),
        statistics_of(metric, answers_b, examples, names),
        how,
    )


def statistics_of(
    metric: str, answers: Sequence[str], examples: Examples, labels: Sequence[str] = ()
) -> RowStatistics:
    """Per-row statistics of one metric; errors as in `evaluate`."""
    entry = find_metric(metric)
    if len(answers) != len(examples):
        raise DataError("E1404", "the number of answers is not the number of examples",
                        found=f"{len(answers)} answers", allowed=f"{len(examples)}, one an example",
                        do="predict for exactly these rows")
    bare = [example for example in examples if not example.answers]
    if bare and (len(bare) == len(examples) or not entry.knows_unanswerable):
        raise DataError("E1401", "the row has no reference answer, so it cannot be scored",
                        where=f"row {bare[0].row_id}",
                        found=f"{len(bare)} of {len(examples)} rows without answer",
                        allowed="a reference answer in every row", do="give rows with their answers")
    return entry.measure(answers, examples, labels)


def score_of(metric: str, statistics: RowStatistics, how: Resampling) -> Score:
    """The score of these statistics with its interval; the signature tells how the interval was made."""
    interval, method = _interval(METRICS.get(metric), statistics, how)
    return Score(metric, interval, statistics.count, f"{statistics.signature}|{method}")


def comparison_of(metric: str, a: RowStatistics, b: RowStatistics, how: Resampling) -> Comparison:
    """Paired difference (a - b)."""
    return paired_bootstrap(a.rows, b.rows, a.score, seed=how.seed, num_resamples=how.num_resamples,
                            level=how.level, cluster=how.cluster, metric=metric)


def perplexity_score(token_log_probs: Sequence[Sequence[float]], how: Resampling) -> Score:
    """Perplexity per token over all rows, from natural-log probabilities of the references' tokens."""
    return score_of("perplexity", language_model.perplexity_statistics(token_log_probs), how)


def bits_per_byte_score(
    token_log_probs: Sequence[Sequence[float]], texts: Sequence[str], how: Resampling
) -> Score:
    """Bits per UTF-8 byte over all rows; ``texts`` are what the tokens stand for."""
    return score_of("bits_per_byte", language_model.bits_per_byte_statistics(token_log_probs, texts), how)


def passages_of(examples: Examples) -> tuple[str, ...]:
    """Cluster ids: examples with the same source (questions about one passage) belong together.

    An example without source stands alone.
    """
    return tuple(example.source or f"row {example.row_id}" for example in examples)


def find_metric(name: str) -> Metric:
    """The registry's entry.

    Raises:
        UsageError: E2401 for an unknown name, with the nearest known one.
    """
    if name not in METRICS:
        near = difflib.get_close_matches(name, METRICS, n=1, cutoff=0.4)
        raise UsageError("E2401", "there is no metric {name!r}", name=name, found=name,
                         allowed=", ".join(METRICS), near=near[0] if near else "",
                         do="write {near}" if near else "choose one of them")
    return METRICS[name]


def _interval(entry: Metric | None, statistics: RowStatistics, how: Resampling) -> tuple[Interval, str]:
    """Percentile bootstrap; Wilson's for a mean of exactly 0 or 1, where resampling sees no chance."""
    units = statistics.count if how.cluster is None else len(set(how.cluster))
    unit = "row" if how.cluster is None else "cluster"
    interval = bootstrap(statistics.rows, statistics.score, seed=how.seed, num_resamples=how.num_resamples,
                         level=how.level, cluster=how.cluster)
    if entry is not None and entry.is_mean and interval.value in (0.0, 1.0):
        return wilson(interval.value, units, how.level), f"ci:wilson|unit:{unit}"
    return interval, f"ci:percentile|bs:{how.num_resamples}|seed:{how.seed}|unit:{unit}"


def _references(examples: Examples) -> list[tuple[str, ...]]:
    return [example.answers for example in examples]


def _languages(examples: Examples) -> list[str]:
    return [example.language for example in examples]


def _accuracy(answers: Sequence[str], examples: Examples, labels: Sequence[str]) -> RowStatistics:
    return label.accuracy_statistics(answers, _references(examples))


def _macro_f1(answers: Sequence[str], examples: Examples, labels: Sequence[str]) -> RowStatistics:
    return label.macro_f1_statistics(answers, _references(examples), labels)


def _exact_match(answers: Sequence[str], examples: Examples, labels: Sequence[str]) -> RowStatistics:
    return span.exact_match_statistics(answers, _references(examples), _languages(examples))


def _f1(answers: Sequence[str], examples: Examples, labels: Sequence[str]) -> RowStatistics:
    return span.f1_statistics(answers, _references(examples), _languages(examples))


def _rouge(
    answers: Sequence[str], examples: Examples, labels: Sequence[str], *, kind: str
) -> RowStatistics:
    return text.rouge_statistics(answers, _references(examples), _languages(examples), kind=kind)


def _bleu(answers: Sequence[str], examples: Examples, labels: Sequence[str]) -> RowStatistics:
    """sacrebleu's ``zh`` tokenizer when at least half of the rows are Chinese, else ``13a``.

    One corpus score needs one tokenizer; where languages are mixed, the signature counts the Chinese rows.
    """
    chinese = sum(map(is_chinese, _languages(examples)))
    tokenizer = "zh" if chinese and 2 * chinese >= len(examples) else "13a"
    statistics = text.bleu_statistics(answers, _references(examples), tokenizer=tokenizer)
    if 0 < chinese < len(examples):
        mixed = f"{statistics.signature}|zh rows:{chinese} of {len(examples)}"
        return replace(statistics, signature=mixed)
    return statistics


def _chrf(answers: Sequence[str], examples: Examples, labels: Sequence[str]) -> RowStatistics:
    return text.chrf_statistics(answers, _references(examples))


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", _accuracy),
        Metric("macro_f1", _macro_f1, is_mean=False),
        Metric("exact_match", _exact_match, knows_unanswerable=True),
        Metric("f1", _f1, knows_unanswerable=True),
        Metric("bleu", _bleu, best=100.0, is_mean=False),
        Metric("chrf", _chrf, best=100.0, is_mean=False),
        *(Metric(kind, partial(_rouge, kind=kind)) for kind in text.ROUGE_KINDS),
    )
}
