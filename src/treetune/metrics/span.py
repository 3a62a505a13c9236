"""Exact match and F1 of question answering, for English-like and for Chinese answers.

English and others: SQuAD (Rajpurkar et al. 2016, section 6.1; the official script's normalisation). Chinese:
CMRC 2018 (Cui et al. 2019, evaluation metrics; the official cmrc2018_evaluate.py).
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher

from treetune.metrics.segment import is_chinese, is_han
from treetune.metrics.statistics import RowStatistics, mean_statistics, require_rows

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
# What the official CMRC script drops: no full stop or comma of ASCII, so that "3.5" stays.
_CHINESE_PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
_LATIN_WORDS = re.compile(r"\w+(?:[.,]\w+)*|[^\w\s]")


def exact_match_statistics(
    answers: Sequence[str], references: Sequence[Sequence[str]], languages: Sequence[str]
) -> RowStatistics:
    """Share of rows whose normalised answer equals one of the references, 0-1.

    Args:
        references: (N,) accepted answers a row; none, or an empty text, means unanswerable: right exactly
            when the answer is empty.
        languages: (N,) language code of each row; Chinese rows are normalised as CMRC 2018 does.
    """
    return _best(answers, references, languages, "exact_match", exact_match)


def f1_statistics(
    answers: Sequence[str], references: Sequence[Sequence[str]], languages: Sequence[str]
) -> RowStatistics:
    """Mean over rows of the best F1 against the references, 0-1; arguments as in `exact_match_statistics`."""
    return _best(answers, references, languages, "f1", f1)


def _best(
    answers: Sequence[str],
    references: Sequence[Sequence[str]],
    languages: Sequence[str],
    name: str,
    measure: Callable[[str, str, bool], float],
) -> RowStatistics:
    require_rows(answers, references)
    chinese = [is_chinese(language) for language in languages]
    values = [
        max(measure(answer, reference, zh) for reference in row or ("",))
        for answer, row, zh in zip(answers, references, chinese, strict=True)
    ]
    count = sum(chinese)
    return mean_statistics(values, f"{name}|squad {len(values) - count} rows, cmrc2018 {count} rows")


def exact_match(answer: str, reference: str, chinese: bool) -> float:
    """1 when both are equal after normalisation, else 0."""
    normalise = normalise_chinese if chinese else normalise_english
    return float(normalise(answer) == normalise(reference))


def f1(answer: str, reference: str, chinese: bool) -> float:
    """Harmonic mean of precision and recall of the shared tokens, 0-1; 1 when both are empty, 0 when one is.

    SQuAD counts shared words whatever their order. CMRC 2018 counts the longest run of segments that both
    have in one piece (the paper says longest common sequence; the official script takes the contiguous one).
    """
    split = chinese_segments if chinese else english_words
    given, wanted = split(answer), split(reference)
    if not given or not wanted:
        return float(given == wanted)
    if chinese:
        shared = SequenceMatcher(None, given, wanted, autojunk=False).find_longest_match().size
    else:
        shared = (Counter(given) & Counter(wanted)).total()
    return 2 * shared / (len(given) + len(wanted))


def normalise_english(text: str) -> str:
    """SQuAD: lower case, no ASCII punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def english_words(text: str) -> list[str]:
    """Words of the normalised text."""
    return normalise_english(text).split()


def normalise_chinese(text: str) -> str:
    """CMRC 2018: lower case, outer white space and CMRC's punctuation dropped."""
    return "".join(mark for mark in text.lower().strip() if mark not in _CHINESE_PUNCTUATION)


def chinese_segments(text: str) -> list[str]:
    """CMRC 2018's mixed segmentation: each Han character alone, other text in words, its punctuation dropped.

    Words of other scripts are split by a regular expression where the official script calls nltk, which needs
    a data file. ``"共15.5 km，北"`` -> ``["共", "15.5", "km", "北"]``.
    """
    segments: list[str] = []
    latin = ""
    for mark in normalise_chinese(text):
        if is_han(mark):
            segments += [*_LATIN_WORDS.findall(latin), mark]
            latin = ""
        else:
            latin += mark
    return segments + _LATIN_WORDS.findall(latin)
