"""Scores: what each is, which one is chosen, and that an answer with a fault never has one."""

import math
from dataclasses import replace

import numpy as np
import pytest

from treetune.core.records import Prediction
from treetune.decide.scores import (
    COMBINED,
    PLAIN,
    ScoreChoice,
    choose_score,
    cross_fitted,
    fault_of,
    feature_table,
    features_of,
    folds,
)


def prediction(probability: float, **others: float) -> Prediction:
    return Prediction(0, "0", "test", "a", "a", {"probability": probability, **others}, (-0.5, -0.1), True, 0, 0.0)


def test_features_by_hand() -> None:
    found = features_of(prediction(0.5, **{"margin": 0.25, "probability:a": 0.5, "probability:b": 0.25,
                                           "probability:c": 0.25}))
    entropy = 0.5 * math.log(2) + 0.5 * math.log(4)
    assert found == pytest.approx({"probability": 0.5, "margin": 0.25, "negative_entropy": -entropy,
                                   "mean_log_prob": -0.3, "min_log_prob": -0.5})
    assert set(features_of(replace(prediction(0.5), token_log_probs=()))) == {PLAIN}


def test_only_features_that_all_have_are_in_the_table() -> None:
    table = feature_table([prediction(0.5, margin=0.1), prediction(0.7)])
    assert set(table) == {PLAIN, "mean_log_prob", "min_log_prob"}


@pytest.mark.parametrize(("changed", "fault"), [
    ({"finished": False}, "unfinished"), ({"scores": {"probability": math.nan}}, "not_finite"),
    ({"token_log_probs": (-1.0, -math.inf)}, "not_finite"), ({}, ""),
])
def test_faults(changed: dict[str, object], fault: str) -> None:
    own = replace(prediction(0.99), **changed)  # type: ignore[arg-type]
    assert fault_of(own) == fault
    scores = ScoreChoice(PLAIN).values([prediction(0.5), own])
    assert scores[0] == 0.5
    assert (scores[1] == -np.inf) == bool(fault)


def rows(count: int, informative: bool, seed: int = 0) -> tuple[list[Prediction], np.ndarray, list[str]]:
    """Wrongness depends on the margin; the probability knows it too (or, if not informative, the margin is noise)."""
    random = np.random.default_rng(seed)
    truth = random.uniform(size=count)
    wrong = random.uniform(size=count) < 0.8 * (1 - truth)
    noise = random.uniform(size=count)
    pairs = zip(noise if informative else truth, truth if informative else noise, strict=True)
    made = [replace(prediction(float(p), margin=float(m)), token_log_probs=()) for p, m in pairs]
    return made, wrong, [str(place) for place in range(count)]


def test_a_better_score_takes_the_plain_one_s_place() -> None:
    choice, found = choose_score(*rows(600, informative=True))
    assert choice.name in ("margin", COMBINED)
    by_name = {each.name: each for each in found}
    assert by_name[choice.name].low > 0
    assert by_name["margin"].auroc > by_name[PLAIN].auroc + 0.1  # type: ignore[operator]
    assert by_name["margin"].rejection_ratio > by_name[PLAIN].rejection_ratio  # type: ignore[operator]


def test_noise_seldom_takes_the_plain_one_s_place() -> None:
    kept = [choose_score(*rows(300, informative=False, seed=seed))[0].name == PLAIN for seed in range(8)]
    assert sum(kept) >= 7


def test_with_few_rows_or_one_kind_of_answer_the_plain_score_stays() -> None:
    made, wrong, groups = rows(90, informative=True)
    assert choose_score(made, wrong, groups)[0].name == PLAIN
    made, wrong, groups = rows(300, informative=True)
    choice, found = choose_score(made, np.zeros_like(wrong), groups)
    assert choice.name == PLAIN
    assert found[0].auroc is None
    assert choose_score([replace(made[0], finished=False)], wrong[:1], groups[:1])[1] == []


def test_a_choice_written_and_read_scores_the_same() -> None:
    random = np.random.default_rng(3)
    made, wrong, groups = [], [], []
    for place in range(500):
        one, two = random.normal(size=2)
        wrong.append(bool(random.uniform() < 1 / (1 + math.exp(1.5 * one + 1.5 * two))))
        made.append(replace(prediction(1 / (1 + math.exp(-one)), margin=two), token_log_probs=()))
        groups.append(str(place))
    choice, _ = choose_score(made, np.array(wrong), groups)
    assert choice.name == COMBINED
    again = ScoreChoice.from_dict(choice.as_dict())
    assert again.values(made).tolist() == choice.values(made).tolist()
    assert again.values([]).tolist() == []


def test_rows_of_one_group_are_held_out_together_and_the_fit_is_not_flattered() -> None:
    groups = [f"g{place // 4}" for place in range(400)]
    fold = folds(groups)
    assert all(len({*fold[place * 4:place * 4 + 4]}) == 1 for place in range(100))
    random = np.random.default_rng(4)
    wrong = np.repeat(random.uniform(size=100) < 0.5, 4)
    noise = np.repeat(random.normal(size=(100, 30)), 4, axis=0)
    held_out = cross_fitted(noise, wrong, groups)
    assert abs(float(np.corrcoef(held_out, ~wrong)[0, 1])) < 0.3
