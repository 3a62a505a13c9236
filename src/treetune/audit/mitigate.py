"""Training rows that may teach less bias: each with its counterfactual beside it, or groups weighed evenly.

``swap``: counterfactual augmentation (Zhao et al. 2018; Lu et al. 2018, "Gender Bias in Neural Natural Language
Processing"): every row in which a listed word stands is followed by a copy with the words exchanged and the same
answer. ``balance``: reweighing (Kamiran & Calders 2012, "Data preprocessing techniques for classification without
discrimination"): within the whole file, group and label become independent; the training loop knows no weight of a row,
so rows are drawn with these weights, with replacement, and as many as there were. Whether either helped is measured
after tuning on them (`treetune.audit.change`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from treetune.audit.swaps import Swap, swapped_rows
from treetune.core.records import Row
from treetune.core.seeds import generator

METHODS = ("swap", "balance")
MAX_WEIGHT = 10.0  # a rarer combination of group and label is not drawn more often than this


def with_counterfactuals(task: str, rows: Sequence[Row], swaps: Sequence[Swap]) -> tuple[list[Row], dict[str, int]]:
    """The rows, each followed by its swapped copies; and copies by list."""
    copies: dict[int, list[Row]] = {}
    counts: Counter[str] = Counter()
    for swap in swaps:
        for each in swapped_rows(task, rows, swap):
            name = f"{swap.name}: {' / '.join(swap.groups)}"
            source = rows[each.place]
            values = {**each.row.values, "id": f"{source.id}~{len(copies.get(each.place, ())) + 1}",
                      "counterfactual_of": source.id}
            copies.setdefault(each.place, []).append(_with_values(each.row, values))
            counts[name] += 1
    made = [each for place, row in enumerate(rows) for each in (row, *copies.get(place, ()))]
    return made, dict(counts)


def balanced(
    rows: Sequence[Row], groups: Sequence[str], labels: Sequence[str], seed: int
) -> tuple[list[Row], dict[str, float]]:
    """As many rows, drawn so that group and label are independent; and the weight of each combination.

    Args:
        groups, labels: (N,) of each row; a label of "" everywhere balances the groups alone.
    """
    pairs = list(zip(groups, labels, strict=True))
    of_group, of_label, of_pair = Counter(groups), Counter(labels), Counter(pairs)
    single = len(of_label) == 1
    weights = {
        (group, label): min(MAX_WEIGHT, len(rows) / (len(of_group) * count) if single
                            else of_group[group] * of_label[label] / (len(rows) * count))
        for (group, label), count in of_pair.items()
    }
    share = np.array([weights[pair] for pair in pairs])
    drawn = generator(seed, "balance").choice(len(rows), size=len(rows), p=share / share.sum())
    return [rows[place] for place in sorted(drawn.tolist())], {
        f"{group} / {label}" if label else group: round(weight, 4) for (group, label), weight in weights.items()
    }


def _with_values(row: Row, values: Mapping[str, Any]) -> Row:
    return Row(values, row.file, row.line, row.number, row.split)
