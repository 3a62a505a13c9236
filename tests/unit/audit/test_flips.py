"""Our own sentences: whole, even, and a shift is found when it is the group's and not one name's."""

import string

import numpy as np
import pytest

from treetune.audit.cases import LANGUAGES, Case, cases_of, words
from treetune.audit.flips import measure_flips
from treetune.audit.measured import Measured, findings

TASKS = ("sentiment", "question_answering", "translation")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("task", TASKS)
def test_every_case_is_filled_distinct_and_its_groups_meet_every_template(task: str, language: str) -> None:
    cases = cases_of(task, language, "de")
    assert len(cases) > 100
    assert len({(case.attribute, *case.values.values()) for case in cases}) == len(cases)
    for case in cases:
        text = " ".join(case.values.values())
        assert not set(text) & set("{}")
        assert case.term in text or case.term == case.group or case.attribute == "pronoun"
        if task == "question_answering":
            assert case.expected in case.values["context"]
    for attribute in {case.attribute for case in cases}:
        own = [(case.template, case.group, case.term) for case in cases if case.attribute == attribute]
        templates = {template for template, _, _ in own}
        pairs = {(group, term) for _, group, term in own}
        assert len(own) == len(templates) * len(pairs)


@pytest.mark.parametrize("language", LANGUAGES)
def test_templates_are_balanced_and_terms_stand_in_one_group(language: str) -> None:
    known = words(language)
    for templates in known["sentiment"].values():
        moods = [mood for mood, _ in templates]
        assert len({moods.count(mood) for mood in ("positive", "negative", "neutral")}) == 1
        for _, text in templates:
            assert {name for _, name, _, _ in string.Formatter().parse(text) if name} <= {
                "person", "subject", "object", "possessive"}
    for attribute in known["attributes"]:
        terms = [str(term) for group in attribute["groups"].values() for term in group]
        assert len(terms) == len(set(terms))
        assert len({len(group) for group in attribute["groups"].values()}) == 1


def test_there_is_nothing_for_summaries_and_other_languages() -> None:
    assert cases_of("summarization", "en") == []
    assert cases_of("sentiment", "fr") == []


def cases_about(attribute: str) -> list[Case]:
    return [case for case in cases_of("sentiment", "en") if case.attribute == attribute]


def tones(cases: list[Case], seed: int, **lower: float) -> np.ndarray:
    random = np.random.default_rng(seed)
    sentence = random.normal(size=99)
    return np.array([sentence[case.template] + random.normal(0, 0.05)
                     - lower.get(case.group, 0.0) - lower.get(case.term, 0.0) for case in cases])


def shift_of(cases: list[Case], values: np.ndarray, group: str) -> Measured:
    answers = np.where(values > 0, "positive", "negative").tolist()
    return next(each for each in measure_flips(cases, values, answers, "tone")
                if each.what.measure == "tone" and each.what.group == group)


def test_a_groups_shift_is_found_with_its_size() -> None:
    cases = cases_about("names: gender")
    found = shift_of(cases, tones(cases, 0, men=0.2), "women")
    assert found.what.against == "men"
    assert found.p_value is not None
    assert found.p_value < 0.01
    assert found.interval.low < 0.2 < found.interval.high


def test_one_disliked_name_is_no_dislike_of_a_group() -> None:
    cases = cases_about("names: gender")
    found = [shift_of(cases, tones(cases, seed, Peter=1.0), "women") for seed in range(8)]
    assert all(each.interval.value > 0.1 and each.interval.low <= 0.01 for each in found)
    assert sum(each.p_value is not None and each.p_value < 0.05 for each in found) <= 2


def test_flip_rates_are_counted_by_pairs() -> None:
    cases = cases_about("age")
    values = np.zeros(len(cases))
    answers = ["negative" if case.group == "old" and case.template < 3 else "positive" for case in cases]
    rate = next(each for each in measure_flips(cases, values, answers, "tone") if each.what.measure == "changed")
    assert rate.interval.value == pytest.approx(3 / 30)
    assert rate.parts["within"] == 0
    assert rate.parts["pairs"] == 30 * 6 * 6
    same = measure_flips(cases, values, ["positive"] * len(cases), "tone")[0]
    assert (same.interval.value, same.interval.low) == (0, 0)
    assert same.interval.high > 0.05


def test_models_without_bias_raise_few_alarms() -> None:
    cases = [*cases_about("names: gender"), *cases_about("age")]
    alarms = 0
    for seed in range(40):
        random = np.random.default_rng(1000 + seed)
        name = {case.term: random.normal(0, 0.1) for case in cases}
        values = tones(cases, seed) + np.array([name[case.term] for case in cases])
        answers = np.where(values > 0, "positive", "negative").tolist()
        alarms += any(each.get("found") for each in findings(measure_flips(cases, values, answers, "tone")))
    assert alarms <= 5  # 2 expected; 6 or more with chance 0.014
