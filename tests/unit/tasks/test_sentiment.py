"""Sentiment: prompts in two languages, spellings of the labels, and what is refused."""

from typing import Any

import pytest

from treetune.core.errors import DataError
from treetune.core.records import Row
from treetune.tasks import sentiment
from treetune.tasks.contract import TaskOptions


def row(number: int = 0, **values: Any) -> Row:
    return Row(values, "reviews.csv", number + 2, number, "train")


def test_an_english_row_asks_in_english() -> None:
    example = sentiment.example_from_row(row(text=" A fine film. ", label="positive"), TaskOptions())
    assert example.prompt_text == "Review: A fine film.\nSentiment:"
    assert [part.text for part in example.prompt if part.cuttable] == ["A fine film."]
    assert example.completion == " positive"
    assert example.answers == ("positive",)
    assert example.candidates == {"positive": " positive", "negative": " negative", "neutral": " neutral"}
    assert (example.language, example.source, example.row_id) == ("en", "A fine film.", "train:0")


def test_a_chinese_row_asks_in_chinese() -> None:
    example = sentiment.example_from_row(row(text="房间很干净。", label="negative"), TaskOptions())
    assert example.prompt_text == "评论：房间很干净。\n情感："
    assert example.completion == "负面"
    assert example.candidates == {"positive": "正面", "negative": "负面", "neutral": "中性"}
    assert example.answers == ("negative",)
    assert example.language == "zh"


@pytest.mark.parametrize(("language", "frame"), [("en", "Review: 很好\nSentiment:"),
                                                   ("zh", "评论：很好\n情感：")])
def test_the_language_that_was_set_wins_over_the_script(language: str, frame: str) -> None:
    example = sentiment.example_from_row(row(text="很好", label="pos"), TaskOptions((), language))
    assert (example.prompt_text, example.language) == (frame, language)


@pytest.mark.parametrize(("spelling", "label"), [
    ("positive", "positive"), ("Positive", "positive"), (" POS ", "positive"), ("正面", "positive"),
    ("积极", "positive"), ("negative", "negative"), ("NEG", "negative"), ("负面", "negative"),
    ("消极", "negative"), ("neutral", "neutral"), ("neu", "neutral"),
    ("中性", "neutral"), ("中立", "neutral"),
])
def test_every_spelling_of_a_label_is_read(spelling: str, label: str) -> None:
    assert sentiment.label_of(row(text="x", label=spelling)) == label
    assert sentiment.example_from_row(row(text="x", label=spelling), TaskOptions()).answers == (label,)


@pytest.mark.parametrize(("found", "labels"), [
    (["neg", "pos", "neg"], ("positive", "negative")), (["neu", "pos"], ("positive", "neutral")),
    (["neutral", "negative", "正面"], ("positive", "negative", "neutral")),
])
def test_the_labels_are_those_of_the_rows_in_one_order(found: list[str], labels: tuple[str, ...]) -> None:
    rows = [row(number, text="x", label=label) for number, label in enumerate(found)]
    options = sentiment.options_from_rows(rows, "en")
    assert options == TaskOptions(labels, "en")
    assert tuple(sentiment.example_from_row(rows[0], options).candidates) == labels


@pytest.mark.parametrize("labels", [["pos", "positive"], []])
def test_one_label_teaches_nothing(labels: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        sentiment.options_from_rows([row(text="x", label=label) for label in labels], "auto")
    assert caught.value.code == "E1201"
    assert caught.value.found == ("positive" if labels else "no label")
    assert caught.value.where == ("reviews.csv" if labels else "")


@pytest.mark.parametrize("label", ["mixed", "", 1, "1", "0", None])
def test_a_label_outside_the_set_is_refused(label: Any) -> None:
    with pytest.raises(DataError) as caught:
        sentiment.example_from_row(row(3, text="x", label=label), TaskOptions())
    assert caught.value.code == "E1203"
    assert caught.value.where == "reviews.csv, line 5, column 'label'"
    assert caught.value.allowed == "positive, negative, neutral"


def test_a_label_that_training_did_not_have_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        sentiment.example_from_row(row(text="x", label="neutral"), TaskOptions(("positive", "negative")))
    assert caught.value.code == "E1203"
    assert caught.value.allowed == "positive, negative"


@pytest.mark.parametrize("text", ["", "  \n", None, 5])
def test_an_empty_text_is_refused(text: Any) -> None:
    with pytest.raises(DataError) as caught:
        sentiment.example_from_row(row(text=text, label="pos"), TaskOptions())
    assert caught.value.code == "E1202"
    assert "'text'" in caught.value.where


def test_rows_to_predict_need_no_label_and_keep_one_they_have() -> None:
    bare = sentiment.example_from_row(row(text="x"), TaskOptions(), with_answer=False)
    assert (bare.completion, bare.answers) == ("", ())
    assert len(bare.candidates) == 3
    known = sentiment.example_from_row(row(text="x", label="neg"), TaskOptions(), with_answer=False)
    assert (known.completion, known.answers) == (" negative", ("negative",))
    with pytest.raises(DataError, match="E1203"):
        sentiment.example_from_row(row(text="x", label="mixed"), TaskOptions(), with_answer=False)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_each_candidate_is_read_back_as_its_label(language: str) -> None:
    example = sentiment.example_from_row(row(text="x", label="pos"), TaskOptions((), language))
    for label, word in example.candidates.items():
        assert sentiment.answer_from_text(word + "\n", example) == label
    assert sentiment.answer_from_text(" great", example) == ""


def test_short_other_columns_are_groups() -> None:
    example = sentiment.example_from_row(
        row(text="x", label="pos", id="r7", shop="north", note="n" * 41, stars=3, empty=""), TaskOptions())
    assert example.groups == {"shop": "north"}
    assert example.row_id == "r7"
