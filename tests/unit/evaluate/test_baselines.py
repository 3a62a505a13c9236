"""Baselines answer without a model."""

from dataclasses import replace

import pytest

from treetune.core.errors import DataError, UsageError
from treetune.evaluate.baselines import BASELINES, answers_of

PASSAGE = "The town has a bridge. The tower is 40 metres high! Who built it? Nobody knows."
CHINESE = "云顶山小火车全长十一公里，要穿过九个隧道。上山用时五十分钟。冬季积雪时停运。"


def test_majority_is_the_most_frequent_training_answer(make_examples) -> None:
    train = make_examples([["b"], ["a"], ["b"], ["a"], ["c"], []])
    assert answers_of("majority", make_examples([["x"], ["y"]]), train) == ["a", "a"]  # a tie: first by name
    with pytest.raises(DataError, match="E1405"):
        answers_of("majority", make_examples([["x"]]))


def test_sources_and_their_first_sentences(make_examples) -> None:
    examples = make_examples([["x"]] * 3, ["en", "zh", "en"], [PASSAGE, CHINESE, ""])
    assert answers_of("copy_source", examples) == [PASSAGE, CHINESE, ""]
    first = ["The town has a bridge.", "云顶山小火车全长十一公里，要穿过九个隧道。", ""]
    assert answers_of("lead_sentence", examples) == answers_of("first_sentence", examples) == first
    assert answers_of("lead_3", examples) == [PASSAGE.removesuffix(" Nobody knows."), CHINESE, ""]


def test_the_sentence_that_shares_most_words_with_the_question(make_examples) -> None:
    questions = ["How high is the tower?", "Which town has a bridge?"]
    examples = make_examples([["x"]] * 2, sources=[PASSAGE] * 2, questions=questions)
    assert answers_of("question_overlap_sentence", examples) == [
        "The tower is 40 metres high!", "The town has a bridge.",
    ]


def test_question_overlap_in_chinese_and_alone(make_examples) -> None:
    examples = make_examples([["x"]], "zh", [CHINESE], ["上山需要多少分钟？"])
    assert answers_of("question_overlap_sentence", examples) == ["上山用时五十分钟。"]
    assert answers_of("question_overlap_sentence", make_examples([["x"]])) == [""]


def test_the_instruction_does_not_count_as_question(make_examples) -> None:
    # "Answer from the text" shares three words with the first sentence, the question one with the second.
    source = "An answer from text. Snow fell."
    examples = make_examples([["x"]] * 2, sources=[source] * 2, questions=["Did snow melt?", "Any rain?"])
    assert answers_of("question_overlap_sentence", examples)[0] == "Snow fell."


def test_unknown_names(make_examples) -> None:
    assert set(BASELINES) >= {"majority", "copy_source", "lead_3"}
    with pytest.raises(UsageError, match=r"E2402.*'lead_2'") as caught:
        answers_of("lead_2", make_examples([["x"]]))
    assert "write lead_3" in str(caught.value)


def test_a_runs_instruction_changes_no_baseline(make_examples) -> None:
    questions = ["How high is the tower?", "Which town has a bridge?"]
    plain = make_examples([["x"]] * 2, sources=[PASSAGE] * 2, questions=questions)
    told = [replace(each, instruction="Say how high the tower is, or which town has a bridge.") for each in plain]
    for name in BASELINES:
        assert answers_of(name, told, plain) == answers_of(name, plain, plain)
