"""The bound within every group by itself: a threshold each, and all of them hold together.

Each of G groups is tested at (1 - confidence) / G (Bonferroni), so the chance that any of the G promises is broken is
at most 1 - confidence; then the bound over all accepted answers holds, too. Which groups are tested depends on how many
rows they have, never on their outcomes.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from treetune.core.records import FloatArray
from treetune.decide.judged import Judged
from treetune.decide.sequence import Promise, thresholds_to_test, walk
from treetune.metrics.interval import wilson
from treetune.metrics.risk import accepted_rows_needed

MIN_TUNE_ROWS = 30  # below, the thresholds of all tune rows are tested

Side = tuple[FloatArray, Judged]


def fit_groups(column: str, tune: Side, used: Side, promise: Promise) -> dict[str, Any]:
    """One walk a group.

    Args:
        tune, used: (N,) scores and the rows, with their ``parts``.

    Returns:
        ``groups``: by value threshold (None: accepts nothing), rows, accepted, wrong, share, and ``tested``: False
        where there are fewer rows than a flawless proof takes. ``lowest`` threshold, None when no group passes.
    """
    names, counts = np.unique(np.array(used[1].parts), return_counts=True)
    tested, failure = _testable(names.tolist(), counts.tolist(), promise)
    own = Promise(promise.max_error, 1 - failure)
    groups = {name: _group(name, tune, used, own, name in tested) for name in names.tolist()}
    thresholds = [each["threshold"] for each in groups.values() if each["threshold"] is not None]
    return {"column": column, "confidence_each": own.confidence, "groups": groups,
            "rows_each": accepted_rows_needed(own.max_error, own.confidence),
            "lowest": min(thresholds, default=None)}


def _testable(names: list[str], counts: list[int], promise: Promise) -> tuple[set[str], float]:
    """Groups with enough rows, and the failure chance each may use: the more there are, the more rows each needs."""
    order = sorted(zip(counts, names, strict=True), reverse=True)
    best: tuple[set[str], float] = (set(), promise.failure_chance)
    for number, (count, _) in enumerate(order, 1):
        failure = promise.failure_chance / number
        needed = accepted_rows_needed(promise.max_error, 1 - failure)
        if needed is None or count < needed:
            break
        best = ({name for _, name in order[:number]}, failure)
    return best


def _group(name: str, tune: Side, used: Side, promise: Promise, tested: bool) -> dict[str, Any]:
    tune_scores, tune_rows = tune
    scores, rows = used
    inside = np.array([part == name for part in rows.parts])
    at_home = np.array([part == name for part in tune_rows.parts])
    if at_home.sum() < MIN_TUNE_ROWS:
        at_home = np.ones(len(tune_scores), dtype=bool)
    threshold = None
    if tested:
        order = thresholds_to_test(tune_scores[at_home], tune_rows.wrong[at_home], int(inside.sum()), promise)
        threshold = walk(order, scores[inside], rows.wrong[inside], promise).threshold
    accepted = inside & (scores >= (np.inf if threshold is None else threshold))
    count = int(accepted.sum())
    return {"threshold": threshold, "tested": tested, "rows": int(inside.sum()), "accepted": count,
            "wrong": int((accepted & rows.wrong).sum()),
            "share": asdict(wilson(count / int(inside.sum()), int(inside.sum())))}
