"""Prediction sets hold the true label as often as they say, for every label by itself."""

import numpy as np
import pytest

from treetune.metrics.conformal import class_limits, label_sets

LABELS = 3


def draw(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose rare label is badly told apart."""
    truth = random.choice(LABELS, size=count, p=[0.6, 0.3, 0.1])
    logits = random.normal(size=(count, LABELS))
    logits[np.arange(count), truth] += np.array([3.0, 2.0, 0.5])[truth]
    probability = np.exp(logits)
    return probability / probability.sum(1, keepdims=True), truth


def test_every_label_is_covered_in_the_mean_over_calibrations_and_not_much_more() -> None:
    random = np.random.default_rng(5)
    test, truth = draw(random, 20_000)
    covered = np.zeros((400, LABELS))
    for number in range(len(covered)):
        probability, own = draw(random, 600)
        inside = test >= class_limits(probability, own, 0.1)
        for label in range(LABELS):
            covered[number, label] = inside[truth == label, label].mean()
    error = covered.std(0) / np.sqrt(len(covered))
    assert np.all(covered.mean(0) >= 0.9 - 3 * error - 0.005)
    assert np.all(covered.mean(0) <= 0.9 + 1 / 50 + 3 * error + 0.005)  # the rarest label has some 60 rows


def test_a_label_with_too_few_rows_stays_possible() -> None:
    limits = class_limits(np.array([[0.9, 0.1]] * 9), np.zeros(9, dtype=int), 0.05)
    assert limits.tolist() == [0.0, 0.0]


def test_the_limit_is_the_order_statistic() -> None:
    probability = np.stack([np.arange(1, 20) / 20, 1 - np.arange(1, 20) / 20], axis=1)
    limits = class_limits(probability, np.zeros(19, dtype=int), 0.1)
    assert limits.tolist() == pytest.approx([2 / 20, 0])  # floor(20 * 0.1) = the second smallest


def test_sets_name_the_likeliest_label_first_and_may_be_empty() -> None:
    probability = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    assert label_sets(probability, np.array([0.4, 0.25, 0.9])) == [[0, 1], []]
    assert label_sets(probability, np.zeros(3)) == [[0, 1, 2], [2, 0, 1]]
