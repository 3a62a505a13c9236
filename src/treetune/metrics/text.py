"""BLEU, chrF and ROUGE: the numbers papers print, as per-row statistics.

BLEU and chrF are sacrebleu's own (Post 2018, "A Call for Clarity in Reporting BLEU Scores"): its statistics
of a row, summed, give its corpus score to the last bit. ROUGE is rouge_score's (Lin 2004), with a tokenizer
that does not drop the letters of other scripts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.metadata import version
from typing import Any

import numpy as np

from treetune.core.records import FloatArray
from treetune.metrics.segment import is_chinese, is_mostly_ascii, words
from treetune.metrics.statistics import RowStatistics, mean_statistics, require_rows

References = Sequence[Sequence[str]]
ROUGE_KINDS = ("rouge1", "rouge2", "rougeL")
BLEU_TOKENIZERS = ("13a", "zh")


def bleu_statistics(
    answers: Sequence[str], references: References, *, tokenizer: str = "13a"
) -> RowStatistics:
    """Corpus BLEU (Papineni et al. 2002) as sacrebleu computes it, 0-100.

    Args:
        answers: (N,) texts. references: (N,) one or more texts a row; numbers may differ.
        tokenizer: ``13a``, or ``zh`` which splits Han characters.

    Returns:
        rows (N, 10): answer length, closest reference length, 4 matched and 4 total n-gram counts.
    """
    from sacrebleu.metrics import BLEU

    return _from_sacrebleu(BLEU(tokenize=tokenizer, force=True), answers, references)


def chrf_statistics(answers: Sequence[str], references: References) -> RowStatistics:
    """Corpus chrF2 (Popović 2015) as sacrebleu computes it, 0-100; by character, so alike in every language.

    Returns:
        rows (N, 18): for character n-grams of length 1-6, counts in answer, in best reference, and matched.
    """
    from sacrebleu.metrics import CHRF

    return _from_sacrebleu(CHRF(), answers, references)


def _from_sacrebleu(metric: Any, answers: Sequence[str], references: References) -> RowStatistics:
    """Statistics of a sacrebleu metric. sacrebleu wants references as streams, None where a row has fewer."""
    require_rows(answers, references)
    streams = [
        [row[place] if place < len(row) else None for row in references]
        for place in range(max(map(len, references)))
    ]
    rows = np.array(metric._extract_corpus_statistics(answers, streams), dtype=np.float64)

    def score(sums: FloatArray) -> FloatArray:
        whole = np.rint(sums).astype(np.int64).reshape(-1, sums.shape[-1])
        values = [metric._compute_score_from_stats(line).score for line in whole.tolist()]
        return np.array(values, dtype=np.float64).reshape(sums.shape[:-1])

    return RowStatistics(rows, score, metric.get_signature().format())


def rouge_statistics(
    answers: Sequence[str], references: References, languages: Sequence[str], *, kind: str
) -> RowStatistics:
    """Mean ROUGE F over rows (Lin 2004), 0-1; of several references, the best.

    English and German rows: rouge_score's tokenizer with Porter stemming. Chinese rows, and rows whose
    references have fewer than half of their letters in a-z (rouge_score would drop the others): words of any
    script, each Han character alone, no stemming.

    Args:
        languages: (N,) language code of each row. kind: ``rouge1``, ``rouge2`` or ``rougeL``.
    """
    require_rows(answers, references)
    by_character = [
        is_chinese(language) or not is_mostly_ascii("".join(row))
        for row, language in zip(references, languages, strict=True)
    ]
    values = [
        float(_rouge_scorer(kind, alone).score_multi(row, answer)[kind].fmeasure)
        for answer, row, alone in zip(answers, references, by_character, strict=True)
    ]
    alone = sum(by_character)
    signature = (
        f"{kind}|f1|tok:porter {len(values) - alone} rows, characters {alone} rows"
        f"|rouge_score:{version('rouge-score')}"
    )
    return mean_statistics(values, signature)


class _AnyScript:
    """Tokenizer for rouge_score that keeps every script."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


class _PorterWords:
    """rouge_score's default tokenizer with stemming, remembering stems (the stemmer is slow)."""

    def __init__(self) -> None:
        from rouge_score import tokenize, tokenizers

        self._tokenize = tokenize.tokenize
        self.stem = lru_cache(maxsize=1 << 16)(tokenizers.porter.PorterStemmer().stem)

    def tokenize(self, text: str) -> list[str]:
        found: list[str] = self._tokenize(text, self)
        return found


@cache
def _porter_words() -> _PorterWords:
    return _PorterWords()


@cache
def _rouge_scorer(kind: str, by_character: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    if not re.fullmatch("rouge[12L]", kind):
        raise ValueError(f"kind {kind!r} is not one of {', '.join(ROUGE_KINDS)}")
    return RougeScorer([kind], tokenizer=_AnyScript() if by_character else _porter_words())
