"""How often an answer changes with the person in the sentence, and in whose favour it shifts.

Of each group: the share of pairs of cases (same template, a term of the group and one of another group) whose answers
differ, beside the same share for two terms of one group, because some models change their answer with any name; and the
mean shift of a number (tone of the answer, share of right answers). A shift has to hold over templates, and, where
groups have several terms, over terms too: a model that dislikes one name does not dislike a group. The p-value is the
larger of the two; the interval draws templates and terms anew together (Owen 2007, "The pigeonhole bootstrap").
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from treetune.audit.cases import Case
from treetune.audit.measured import Measured, What, mean_or_nan
from treetune.audit.testing import compare_groups, sign_test
from treetune.core.records import FloatArray, Interval
from treetune.core.seeds import generator, seed_of
from treetune.metrics.interval import LEVEL, bootstrap, wilson
from treetune.metrics.selective import BoolArray

MIN_WORDS = 5  # a group with fewer is the word itself, and only templates are drawn
NUM_RESAMPLES = 1000
KeyArray = NDArray[np.int64]


def measure_flips(
    cases: Sequence[Case], values: FloatArray, answers: Sequence[str], measure: str, *, seed: int = 0
) -> list[Measured]:
    """Flip rate and mean shift of every group of every attribute and language.

    Args:
        values: (N,) the number that should not depend on the group. answers: (N,) what must not change.
        measure: what ``values`` are called.
    """
    keys = {answer: number for number, answer in enumerate(dict.fromkeys(answers))}
    coded = np.array([keys[answer] for answer in answers], dtype=np.int64)
    found: list[Measured] = []
    for language, attribute in dict.fromkeys((case.language, case.attribute) for case in cases):
        places = [place for place, case in enumerate(cases)
                  if (case.language, case.attribute) == (language, attribute)]
        own = [cases[place] for place in places]
        shape, owners = _columns(own)
        table, code = values[places].reshape(shape), coded[places].reshape(shape)
        for group in _compared(owners):
            against = next(iter(set(owners) - {group})) if len(set(owners)) == 2 else "others"
            inside = np.array([owner == group for owner in owners])
            stream = seed_of(seed, language, attribute, group)
            found.append(_flip_rate(What("flip", "changed", attribute, group, against, language), code, inside, stream))
            found.append(_shift(What("flip", measure, attribute, group, against, language), table, inside,
                                _many_words(own), stream))
    return found


def _columns(cases: Sequence[Case]) -> tuple[tuple[int, int], list[str]]:
    """Shape (templates, terms) of the cases of an attribute, which come template by template, and each term's group."""
    first = [case for case in cases if case.template == cases[0].template]
    return (len(cases) // len(first), len(first)), [case.group for case in first]


def _many_words(cases: Sequence[Case]) -> bool:
    """Whether every group has enough words to be drawn from."""
    of_group: dict[str, set[str]] = {}
    for case in cases:
        of_group.setdefault(case.group, set()).add(case.word)
    return all(len(each) >= MIN_WORDS for each in of_group.values())


def _compared(owners: Sequence[str]) -> list[str]:
    names = list(dict.fromkeys(owners))
    return names[:1] if len(names) == 2 else names


def _flip_rate(what: What, code: KeyArray, inside: BoolArray, seed: int) -> Measured:
    """Pairs across groups whose answers differ; ``parts``: the same share of pairs inside the group."""
    different = code[:, :, None] != code[:, None, :]
    across = inside[:, None] & ~inside[None, :]
    within = np.triu(inside[:, None] & inside[None, :], k=1)
    rows = np.stack([different[:, across].sum(axis=1), np.full(len(code), across.sum())], axis=1).astype(np.float64)
    share = float(rows[:, 0].sum() / rows[:, 1].sum())
    interval = wilson(share, len(rows)) if share in (0.0, 1.0) else bootstrap(rows, mean_or_nan, seed=seed)
    inner = float(different[:, within].mean()) if within.any() else float("nan")
    parts = {"pairs": float(rows[:, 1].sum()), **({"within": inner} if inner == inner else {})}
    return Measured(what, interval, (len(rows), int(inside.sum())), None, 0.0, rows, mean_or_nan, parts=parts)


def _shift(what: What, table: FloatArray, inside: BoolArray, many_words: bool, seed: int) -> Measured:
    """Mean of the group's cases minus mean of the others, template by template."""
    differences = table[:, inside].mean(axis=1) - table[:, ~inside].mean(axis=1)
    p_value = sign_test(differences, seed)
    error, freedom = float(differences.std(ddof=1) / np.sqrt(len(differences))), len(differences) - 1.0
    if many_words:
        terms = compare_groups(table.mean(axis=0), inside, None, seed)
        p_value = max(p_value, terms.p_value)
        error, freedom = max((error, freedom), (terms.error, terms.freedom))
    rows = np.stack([differences, np.ones_like(differences)], axis=1)
    return Measured(what, _pigeonhole(table, inside, many_words, seed), (len(table), table.shape[1]), p_value, error,
                    rows, mean_or_nan, freedom=freedom)


def _pigeonhole(table: FloatArray, inside: BoolArray, many_words: bool, seed: int) -> Interval:
    random = generator(seed, "pigeonhole")

    def shares(count: int, drawn: bool) -> FloatArray:
        if not drawn:
            return np.full((NUM_RESAMPLES, count), 1 / count)
        return random.multinomial(count, np.full(count, 1 / count), size=NUM_RESAMPLES) / count

    templates = shares(len(table), True)
    weighted = templates @ table
    group = (weighted[:, inside] * shares(int(inside.sum()), many_words)).sum(axis=1)
    rest = (weighted[:, ~inside] * shares(int((~inside).sum()), many_words)).sum(axis=1)
    low, high = np.quantile(group - rest, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float((table[:, inside].mean(axis=1) - table[:, ~inside].mean(axis=1)).mean()), float(low),
                    float(high), LEVEL)
