"""Whether a translation into German keeps the gender that the English sentence tells: *the doctor … her* -> *Ärztin*.

Sentences and occupations are our own, each occupation marked by whether more women or men work in it. Counted: the
right form, the other one, and neither; of all, by gender, and by whether the gender is the usual one of the occupation
(Stanovsky et al. 2019, "Evaluating Gender Bias in Machine Translation", whose measures these are).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from treetune.audit.cases import words
from treetune.audit.measured import Measured, What, difference_of_means, mean_or_nan
from treetune.audit.testing import compare_groups, mean_interval, two_sample_rows
from treetune.core.records import FloatArray
from treetune.core.seeds import seed_of
from treetune.metrics.selective import BoolArray

PRONOUNS = {"women": {"subject": "she", "possessive": "her"}, "men": {"subject": "he", "possessive": "his"}}


@dataclass(frozen=True, slots=True)
class Gendered:
    """One sentence; ``forms``: the German word for a woman and for a man; ``usual``: who mostly works in it."""

    source: str
    occupation: str
    gender: str
    forms: tuple[str, str]
    usual: str


def gendered_sentences() -> list[Gendered]:
    """Every occupation in every sentence, as a woman and as a man."""
    known = words("en")
    return [
        Gendered(sentence.format(occupation=english, **pronouns), english, gender, (woman, man), usual)
        for english, man, woman, usual in known["occupations"]
        for sentence in known["gendered"] for gender, pronouns in PRONOUNS.items()
    ]


def gender_in(translation: str, forms: tuple[str, str]) -> str:
    """``women``, ``men``, or ``""`` when neither form stands there, or both. Endings of the cases count."""
    woman, man = (re.search(rf"\b{re.escape(form)}(?:s|es|n|en)?\b", translation, re.IGNORECASE) is not None
                  for form in forms)
    return "" if woman == man else "women" if woman else "men"


def measure_gendered(sentences: Sequence[Gendered], translations: Sequence[str], *, seed: int = 0) -> list[Measured]:
    """Share of the right gender; the gaps women against men and usual against unusual; share of neither form."""
    kept = [gender_in(text, sentence.forms) for sentence, text in zip(sentences, translations, strict=True)]
    right = np.array([found == sentence.gender for found, sentence in zip(kept, sentences, strict=True)],
                     dtype=np.float64)
    neither = np.array([not found for found in kept], dtype=np.float64)
    occupations = [sentence.occupation for sentence in sentences]
    women = np.array([sentence.gender == "women" for sentence in sentences])
    usual = np.array([sentence.gender == sentence.usual for sentence in sentences])
    return [
        _share("right", right, seed), _share("neither", neither, seed),
        _gap("women", "men", right, women, occupations, seed),
        _gap("usual", "unusual", right, usual, occupations, seed),
    ]


def _share(measure: str, values: FloatArray, seed: int) -> Measured:
    rows = np.stack([values, np.ones_like(values)], axis=1)
    what = What("translation", measure, "gender", language="en")
    return Measured(what, mean_interval(values, seed_of(seed, measure)), (len(values),), None, 0.0, rows, mean_or_nan)


def _gap(
    group: str, against: str, values: FloatArray, inside: BoolArray, occupations: Sequence[str], seed: int
) -> Measured:
    result = compare_groups(values, inside, occupations, seed_of(seed, group))
    means = {"group": float(values[inside].mean()), "against": float(values[~inside].mean())}
    return Measured(What("translation", "right", "gender", group, against, "en"), result.interval,
                    (int(inside.sum()), int((~inside).sum())), result.p_value, result.error,
                    two_sample_rows(values, inside), difference_of_means, result.correction, result.shares,
                    occupations, means, result.freedom)
