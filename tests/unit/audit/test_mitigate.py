"""Changed training rows: copies with the same answer, draws that make group and label independent."""

from collections import Counter

import numpy as np

from treetune.audit.mitigate import balanced, with_counterfactuals
from treetune.audit.swaps import swaps_of
from treetune.core.records import Row


def row(number: int, text: str, label: str, **more: str) -> Row:
    return Row({"text": text, "label": label, **more}, "f", number, number, "train")


def test_every_row_is_followed_by_its_copy_with_the_same_label() -> None:
    rows = [row(0, "she cried", "negative", id="a"), row(1, "dull", "negative"), row(2, "his film", "positive")]
    made, counts = with_counterfactuals("sentiment", rows, swaps_of("en"))
    assert [each.values["text"] for each in made] == ["she cried", "he cried", "dull", "his film", "her film"]
    assert [each.values["label"] for each in made] == ["negative"] * 3 + ["positive"] * 2
    assert made[1].values["id"] == "a~1"
    assert made[4].values["counterfactual_of"] == "train:2"
    assert sum(counts.values()) == 2
    assert len({each.id for each in made}) == 5


def test_balanced_draws_make_group_and_label_independent() -> None:
    rows = [row(place, "x", "") for place in range(2000)]
    groups = ["a"] * 1000 + ["b"] * 1000
    labels = ["pos"] * 900 + ["neg"] * 100 + ["pos"] * 100 + ["neg"] * 900
    made, weights = balanced(rows, groups, labels, 0)
    assert len(made) == 2000
    counts = Counter((groups[each.number], labels[each.number]) for each in made)
    assert all(400 < count < 600 for count in counts.values())
    assert weights["a / pos"] < 1 < weights["a / neg"]
    assert [each.number for each in balanced(rows, groups, labels, 0)[0]] == [each.number for each in made]


def test_without_labels_groups_alone_are_evened_and_rare_ones_are_not_drawn_without_end() -> None:
    rows = [row(place, "x", "") for place in range(1000)]
    groups = ["big"] * 990 + ["small"] * 10
    made, weights = balanced(rows, groups, [""] * 1000, 0)
    assert weights["small"] == 10
    assert 20 < np.sum([groups[each.number] == "small" for each in made]) < 200
