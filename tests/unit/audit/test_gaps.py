"""Group gaps: fairlearn's numbers, groups from any column, small groups named, planted gaps found."""

import warnings
from typing import Any

import numpy as np
import pytest

from treetune.audit.gaps import groups_in, measure_gaps, quartered, row_measures
from treetune.audit.measured import findings
from treetune.core.errors import UsageError
from treetune.core.records import Row

LABELS = ("positive", "negative")


def rows_with(**columns: list[Any]) -> list[Row]:
    names = list(columns)
    return [Row(dict(zip(names, cells, strict=True)), "rows.csv", line, line, "test")
            for line, cells in enumerate(zip(*columns.values(), strict=True))]


def simulated(seed: int, count: int = 300, lost: float = 0.0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    groups = random.choice(["a", "b", "c"], p=[0.5, 0.3, 0.2], size=count)
    right = random.random(count) < 0.8 - lost * (groups == "b")
    expected = random.choice(LABELS, size=count)
    answers = np.where(right, expected, np.where(expected == "positive", "negative", "positive"))
    confidence = random.random(count)
    return {"groups": groups, "right": right, "expected": expected, "answers": answers, "confidence": confidence}


def measures_of(data: dict[str, Any]) -> list[Any]:
    return row_measures(data["right"].astype(float), data["confidence"], ~data["right"], data["confidence"] > 0.4,
                        data["expected"].tolist(), data["answers"].tolist(), LABELS)


@pytest.mark.parametrize("seed", range(3))
def test_values_and_differences_are_those_of_fairlearn(seed: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("fairlearn", reason="the second opinion is not installed")
        from fairlearn.metrics import MetricFrame, selection_rate, true_positive_rate
        from sklearn.metrics import accuracy_score
    data = simulated(seed)
    accepted = data["confidence"] > 0.4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quality = MetricFrame(metrics=accuracy_score, y_true=data["expected"], y_pred=data["answers"],
                              sensitive_features=data["groups"]).by_group
        frame = MetricFrame(metrics={"selection": selection_rate, "recall": true_positive_rate},
                            y_true=data["expected"] == "positive", y_pred=data["answers"] == "positive",
                            sensitive_features=data["groups"]).by_group
        acceptance = MetricFrame(metrics=selection_rate, y_true=accepted, y_pred=accepted,
                                 sensitive_features=data["groups"]).by_group
        kept = MetricFrame(metrics=accuracy_score, y_true=data["expected"][accepted], y_pred=data["answers"][accepted],
                           sensitive_features=data["groups"][accepted]).by_group
    gaps = measure_gaps("region", data["groups"].tolist(), measures_of(data), None)
    levels = {(each["measure"], each["group"]): each["value"] for each in gaps.levels}
    for name in "abc":
        assert levels["quality", name] == pytest.approx(quality[name])
        assert levels["recall:positive", name] == pytest.approx(frame["recall"][name])
        assert levels["acceptance", name] == pytest.approx(acceptance[name])
        assert levels["accepted_error", name] == pytest.approx(1 - kept[name])
    two = measure_gaps("region", np.where(data["groups"] == "b", "b", "a").tolist(), measures_of(data), None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        difference = MetricFrame(metrics=accuracy_score, y_true=data["expected"], y_pred=data["answers"],
                                 sensitive_features=np.where(data["groups"] == "b", "b", "a")).difference()
    [gap] = [test for test in two.tests if test.what.measure == "quality"]
    assert abs(gap.interval.value) == pytest.approx(difference)


def test_two_groups_are_one_test_and_three_are_three() -> None:
    data = simulated(0)
    quality = measures_of(data)[:1]
    assert len(measure_gaps("x", data["groups"].tolist(), quality, None).tests) == 3
    two = measure_gaps("x", np.where(data["groups"] == "a", "a", "z").tolist(), quality, None).tests
    assert [(test.what.group, test.what.against) for test in two] in ([("a", "z")], [("z", "a")])


def test_small_groups_are_named_not_tested_and_rows_without_group_are_counted() -> None:
    groups = ["big"] * 60 + ["other"] * 40 + ["small"] * 12 + [""] * 8
    [quality] = row_measures(np.ones(120), np.ones(120), None, None)
    gaps = measure_gaps("x", groups, [quality], None)
    assert gaps.too_small == (("small", "quality", 12),)
    assert gaps.missing == 8
    assert {test.what.group for test in gaps.tests} == {"big", "other"}
    assert all(sum(test.counts) == 112 for test in gaps.tests)


def test_a_gap_far_above_the_printed_one_is_found_and_one_far_below_is_not() -> None:
    def quality_of_b(lost: float, seed: int) -> dict[str, Any]:
        data = simulated(seed, 600, lost)
        tests = measure_gaps("x", data["groups"].tolist(), measures_of(data), None).tests
        return next(each for each in findings(tests) if (each["measure"], each["group"]) == ("quality", "b"))

    printed = quality_of_b(0.0, 0)["detectable"]
    assert 0.1 < printed < 0.2
    assert sum(quality_of_b(2 * printed, seed)["found"] for seed in range(10)) == 10
    assert sum(quality_of_b(0.2 * printed, seed)["found"] for seed in range(10)) <= 1


def test_measures_that_cannot_be_known_are_left_out() -> None:
    nothing = np.zeros(3, dtype=bool)
    assert [each.name for each in row_measures(np.ones(3), np.ones(3), None, None)] == ["quality"]
    assert [each.name for each in row_measures(np.ones(3), np.ones(3), nothing, nothing)] == [
        "quality", "calibration", "acceptance"]
    calibration = row_measures(np.ones(2), np.array([0.9, np.nan]), np.array([False, True]), None)[1]
    assert calibration.values[0] == pytest.approx(-0.1)
    assert calibration.where.tolist() == [True, False]


def test_a_column_goes_by_the_files_name_or_ours() -> None:
    rows = rows_with(text=["x", "y"], Region=["north", None], n=[1, 2.5])
    assert groups_in("Region", rows, {}, "rows.csv") == ["north", ""]
    assert groups_in("n", rows, {}, "rows.csv") == ["1", "2.5"]
    renamed = rows_with(source=["en", "de"], text=["x", "y"])
    assert groups_in("lang", renamed, {"lang": "source"}, "rows.csv") == ["en", "de"]
    assert groups_in("source", renamed, {"lang": "source"}, "rows.csv") == ["en", "de"]


def test_a_wrong_column_is_refused_with_the_nearest_name_of_the_file() -> None:
    with pytest.raises(UsageError) as caught:
        groups_in("regoin", rows_with(text=["x"], source=["north"]), {"Region": "source"}, "rows.csv")
    assert caught.value.code == "E2710"
    assert "--by Region" in str(caught.value)
    assert "source" not in caught.value.found


def test_many_numbers_become_quarters_and_few_stay() -> None:
    ages = [str(age) for age in range(20, 60)]
    quarters = quartered([*ages, ""])
    assert quarters[-1] == ""
    assert set(quarters) == {"20 … 29", "30 … 39", "40 … 49", "50 … 59", ""}
    assert quartered(["1", "2", "1"]) == ["1", "2", "1"]
    words = [f"w{place}" for place in range(20)]
    assert quartered(words) == words
