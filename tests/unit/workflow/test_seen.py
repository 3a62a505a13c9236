"""Content digests: the same question is the same however it is dressed, another one is another."""

from treetune.core.records import Example
from treetune.workflow.seen import content_digest, content_digests


def example(source: str, question: str = "", answer: str = "a") -> Example:
    return Example(0, "0", "train", (), answer, (answer,), {}, source, "en", {}, question)


def test_case_space_and_width_do_not_matter_nor_does_the_answer() -> None:
    assert content_digest(example("A  film")) == content_digest(example(" a ｆilm ", answer="b"))
    assert content_digest(example("A film")) != content_digest(example("A film."))


def test_two_questions_about_one_passage_are_two_rows() -> None:
    assert content_digest(example("text", "who")) != content_digest(example("text", "when"))
    assert content_digest(example("text", "who")) != content_digest(example("text who"))


def test_each_content_stands_once_in_order() -> None:
    found = content_digests([example("b"), example("a"), example("A")])
    assert found == sorted(set(found))
    assert len(found) == 2
