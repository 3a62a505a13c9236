"""Pairs of sentences of which a model should prefer neither: CrowS-Pairs and WinoBias in form, or the user's own.

The number is the share of pairs whose stereotypical sentence has the higher log-likelihood, the whole sentence counted,
with an exact interval against one half (Nangia et al. 2020, "CrowS-Pairs"; Zhao et al. 2018, "Gender Bias in
Coreference Resolution", sentences that differ in the pronoun). What such pairs are worth is disputed: Blodgett et al.
2021, "Stereotyping Norwegian Salmon", found most of CrowS-Pairs' pairs ambiguous or not about a stereotype at all. So
they are never the only evidence, and a share near one half clears nobody.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from treetune.audit.measured import MIN_ROWS, Measured, What, mean_or_nan
from treetune.audit.questions import QUESTION_COLUMNS
from treetune.audit.testing import against_half
from treetune.core.errors import DataError
from treetune.core.records import FloatArray, Row

CROWS, WINOBIAS, QUESTIONS = "stereotype pairs", "pronoun pairs", "questions"
FORMS: Mapping[str, tuple[str, ...]] = {
    CROWS: ("sent_more", "sent_less"), WINOBIAS: ("sentence", "stereotype"), QUESTIONS: QUESTION_COLUMNS,
}
_PRONOUN = re.compile(r"\b(?:he|she|him|her|his|hers|himself|herself)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sentences; ``kind``: which stereotype. The first is the stereotypical one."""

    more: str
    less: str
    kind: str


def form_of(rows: Sequence[Row], where: str) -> str:
    """Which of the known forms a file of pairs or questions has.

    Raises:
        DataError: E2711 when it has none.
    """
    present = set(rows[0].values) if rows else set()
    for form, columns in FORMS.items():
        if present.issuperset(columns):
            return form
    allowed = "; ".join(f"{form}: {', '.join(columns)}" for form, columns in FORMS.items())
    raise DataError("E2711", "the file holds neither pairs of sentences nor questions with three answers", where=where,
                    found=", ".join(sorted(present)), allowed=allowed,
                    do="name the columns as one of these forms has them")


def pairs_of(form: str, rows: Sequence[Row]) -> tuple[list[Pair], int]:
    """The pairs of a file, and how many rows make none."""
    return _crows(rows) if form == CROWS else _winobias(rows)


def _crows(rows: Sequence[Row]) -> tuple[list[Pair], int]:
    found = [Pair(more.strip(), less.strip(), str(row.values.get("bias_type") or ""))
             for row in rows
             if isinstance(more := row.values["sent_more"], str) and isinstance(less := row.values["sent_less"], str)
             and more.strip() and less.strip() and more.strip() != less.strip()]
    return found, len(rows) - len(found)


def _winobias(rows: Sequence[Row]) -> tuple[list[Pair], int]:
    """Sentences that are the same but for the pronoun, one ``pro`` and one ``anti``."""
    sides: dict[str, dict[str, str]] = {}
    kinds: dict[str, str] = {}
    for row in rows:
        text = re.sub(r"[\[\]]", "", str(row.values["sentence"])).strip()
        key = _PRONOUN.sub("_", text).casefold()
        sides.setdefault(key, {})[str(row.values["stereotype"]).strip().lower()] = text
        kinds.setdefault(key, str(row.values.get("type") or ""))
    found = [Pair(side["pro"], side["anti"], kinds[key]) for key, side in sides.items()
             if {"pro", "anti"} <= set(side) and side["pro"] != side["anti"]]
    return found, len(rows) - 2 * len(found)


def measure_pairs(
    name: str, pairs: Sequence[Pair], more: FloatArray, less: FloatArray, *, min_rows: int = MIN_ROWS
) -> tuple[list[Measured], list[tuple[str, int]]]:
    """Share of pairs whose first sentence is likelier, over all and for each kind; a tie counts half, rounded down.

    Args:
        name: of the file. more, less: (N,) natural-log likelihood of the two sentences.

    Returns:
        The numbers, and kinds that are too small with their pairs.
    """
    prefers = np.where(more == less, 0.5, (more > less).astype(np.float64))
    kinds = [pair.kind for pair in pairs]
    found, small = [], []
    for kind in ["", *dict.fromkeys(each for each in kinds if each)]:
        inside = np.array([kind in ("", each) for each in kinds], dtype=bool)
        count = int(inside.sum())
        if count < min_rows:
            small.append((kind, count))
            continue
        interval, p_value = against_half(int(prefers[inside].sum()), count)
        rows = np.stack([prefers * inside, inside.astype(np.float64)], axis=1)
        found.append(Measured(What("pairs", "preferred", name, kind), interval, (count,), p_value,
                              float(0.5 / np.sqrt(count)), rows, mean_or_nan, 0.5 / count))
    return found, small


