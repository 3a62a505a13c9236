"""Questions made from a text: in the form of the QA task, answered by the text itself, the same for the same seed."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from treetune.core.seeds import generator
from treetune.data.cloze import HAN, chinese_question, english_question, with_questions
from treetune.tasks.question_answering import FRAMES

ENGLISH = (
    "In 1888 the novel was printed by John Murray of London, and 1,200 copies were sold within three weeks. "
    "Mary Anne Evans had written most of it in a small house near the river. Nobody knew who had paid for it! "
    "\"Was it the doctor?\" asked Mr Brown, who never slept well."
)
CHINESE = (
    "北京大学是中华人民共和国教育部直属的全国重点大学，创办于1898年，初名京师大学堂。\n"
    "学校现有学生四万余人；图书馆藏书丰富。"
)
PAIR = {
    language: re.compile(re.escape(before) + r"([^\n]+)" + re.escape(after) + (r" " if language == "en" else "")
                         + r"([^\n]+)")
    for language, (before, after) in FRAMES.items()
}
WORDS = st.sampled_from(["the", "river", "Anna", "London", "of", "1,200", "boats", "walked", "'quoted'", "U.S.", "a-b",
                         "—", "(so)", "3", "end.", "what?", "no!", "x", "\n", "  "])
texts = st.lists(WORDS, max_size=40).map(" ".join) | st.text(max_size=80)
han = st.text(alphabet="北京大学图书馆藏丰富是的了。，；\n a1", max_size=120)


def pairs_of(text: str, made: str) -> list[tuple[str, str]]:
    """The questions and answers behind the text; fails where anything else stands there."""
    assert made.startswith(text)
    rest = made[len(text) :]
    pattern = PAIR["zh" if len(HAN.findall(text)) * 3 > len(text) else "en"]
    found = pattern.findall(rest)
    assert "".join(match.group() for match in pattern.finditer(rest)) == rest
    return found


@pytest.mark.parametrize(("text", "count"), [(ENGLISH, 5), (CHINESE, 4)])
def test_most_sentences_of_prose_give_a_question(text: str, count: int) -> None:
    made = [pairs_of(text, with_questions(text, count, generator(seed, "t"))) for seed in range(50)]
    assert all(len(each) <= count for each in made)
    assert sum(map(len, made)) > 50 * 2
    for question, answer in (pair for each in made for pair in each):
        assert answer in text
        assert question.endswith(("?", "？"))


@settings(max_examples=300, deadline=None)
@given(texts, st.integers(0, 6), st.integers(0, 2**32))
@example("", 3, 0)
@example("...", 3, 0)
@example("Oh no", 3, 0)
@example("A\nB C D E F\nG, H I J 5 K.", 3, 1)
def test_english_and_odd_text_is_kept_and_answers_stand_in_it(text: str, count: int, seed: int) -> None:
    found = pairs_of(text, with_questions(text, count, generator(seed, "t")))
    assert len(found) <= count
    if len(HAN.findall(text)) * 3 <= len(text):
        squeezed = " ".join(text.split())  # a question reads a sentence as one line
        for question, answer in found:
            assert answer in squeezed
            assert answer == answer.strip() != ""
            assert question.strip() == question != "?"


@settings(max_examples=300, deadline=None)
@given(han, st.integers(0, 6), st.integers(0, 2**32))
def test_chinese_text_is_kept_and_answers_stand_in_it(text: str, count: int, seed: int) -> None:
    found = pairs_of(text, with_questions(text, count, generator(seed, "t")))
    assert len(found) <= count
    if len(HAN.findall(text)) * 3 > len(text):
        for question, answer in found:
            assert answer in text
            assert 2 <= len(answer) <= 6
            assert question[:-1].replace("什么", answer, 1) in text  # the question is the clause with a hole


def test_equal_seeds_ask_the_same_and_other_seeds_something_else() -> None:
    for text in (ENGLISH, CHINESE):
        made = [with_questions(text, 3, generator(seed, "cloze")) for seed in (0, 0, 1, 2, 3)]
        assert made[0] == made[1]
        assert len(set(made)) > 2


def test_no_question_asked_for_leaves_the_text() -> None:
    assert with_questions(ENGLISH, 0, generator(0)) == ENGLISH


def test_the_kinds_of_answers_and_their_question_words() -> None:
    sentence = "Later the old house was sold to Mary Evans for 250 pounds by the bank."
    found = [english_question(sentence, generator(seed)) for seed in range(200)]
    made = dict.fromkeys(pair for pair in found if pair)
    answers = {answer for _, answer in made}
    assert {"Mary Evans", "250 pounds"} <= answers
    assert answers - {"Mary Evans", "250 pounds"}  # and some that are just words
    question_words = {"Mary Evans": ("who", "what", "which"), "250 pounds": ("when", "how many", "what")}
    for question, answer in made:
        assert any(word in question.lower() for word in question_words.get(answer, ("what",)))
        assert answer not in question or len(answer) < 4


def test_a_question_loses_some_words_but_adds_only_the_question_word() -> None:
    sentence = "Later the old house was sold to Mary Evans for nothing by the bank."
    said = set(sentence.rstrip(".").lower().split()) | {"who", "what", "which"}
    found = [pair for pair in (english_question(sentence, generator(seed)) for seed in range(200)) if pair]
    assert all(set(question.rstrip("?").lower().split()) <= said for question, _ in found)
    assert any(len(question.split()) < len(sentence.split()) - 3 for question, _ in found)


@pytest.mark.parametrize("sentence", ["", "One two three.", "Anna."])
def test_a_sentence_too_short_gives_none(sentence: str) -> None:
    assert all(english_question(sentence, generator(seed)) is None for seed in range(20))


def test_the_shortest_clause_gives_two_or_three_characters() -> None:
    found = [chinese_question("图书馆藏丰富", generator(seed)) for seed in range(50)]
    assert {len(answer) for _, answer in filter(None, found)} == {2, 3}
