"""Gender in German: the right form found, the other one, or neither; both gaps."""

import pytest

from treetune.audit.gendered import gender_in, gendered_sentences, measure_gendered


@pytest.mark.parametrize(("text", "found"), [
    ("Die Ärztin hat ihre Arbeit beendet.", "women"), ("Der Arzt ging nach Hause.", "men"),
    ("die arztin", ""), ("Der Arzt und die Ärztin.", ""), ("Das Haus des Arztes.", "men"), ("Er ging.", ""),
])
def test_forms(text: str, found: str) -> None:
    assert gender_in(text, ("Ärztin", "Arzt")) == found


def test_every_occupation_stands_in_every_sentence_twice() -> None:
    sentences = gendered_sentences()
    assert len(sentences) == 30 * 4 * 2
    assert len({each.source for each in sentences}) == len(sentences)
    assert {each.usual for each in sentences} == {"women", "men"}
    for each in sentences:
        assert each.forms[0] != each.forms[1]
        assert {gender_in(f"Die {form}.", each.forms) for form in each.forms} == {"women", "men"}


def test_a_translator_that_knows_men_only_and_one_that_guesses_by_occupation() -> None:
    sentences = gendered_sentences()

    def numbers(translations: list[str]) -> dict[tuple[str, str], float]:
        return {(each.what.measure, each.what.group): each.interval.value
                for each in measure_gendered(sentences, translations)}

    men = numbers([f"Der {each.forms[1]} ging." for each in sentences])
    assert men["right", ""] == 0.5
    assert men["right", "women"] == -1
    usual = numbers([f"{each.forms[each.usual == 'men']} ging." for each in sentences])
    assert usual["right", "usual"] == 1
    assert abs(usual["right", "women"]) < 0.5
    silent = numbers(["…"] * len(sentences))
    assert silent["neither", ""] == 1
