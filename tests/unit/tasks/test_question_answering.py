"""Question answering: prompts in two languages, every shape of answers, answers not in the context."""

from typing import Any

import pytest

from treetune.core.errors import DataError
from treetune.core.records import Row
from treetune.tasks import question_answering
from treetune.tasks.contract import TaskOptions

AUTO = TaskOptions()
CONTEXT = "Ada was born in London. London is old."


def row(**values: Any) -> Row:
    return Row({"context": CONTEXT, "question": "Where was Ada born?", **values}, "qa.jsonl", 5, 4, "train")


def test_an_english_row_asks_in_english() -> None:
    example = question_answering.example_from_row(row(answers=["London"], answer_start=[16]), AUTO)
    assert example.prompt_text == f"{CONTEXT}\nQuestion: Where was Ada born?\nAnswer:"
    assert [part.cuttable for part in example.prompt] == [True, False, False, False]
    assert (example.completion, example.answers) == (" London", ("London",))
    assert (example.language, example.source) == ("en", CONTEXT)


def test_a_chinese_row_asks_in_chinese() -> None:
    values = {"context": "泉水有五十八度。", "question": "多少度？", "answers": ["五十八度"],
              "answer_start": [3]}
    example = question_answering.example_from_row(row(**values), AUTO)
    assert example.prompt_text == "泉水有五十八度。\n问题：多少度？\n答案："
    assert (example.completion, example.language) == ("五十八度", "zh")


@pytest.mark.parametrize(("language", "end", "none"), [
    ("en", "\nAnswer:", " unanswerable"), ("zh", "\n答案：", "无法回答"),
])
def test_the_language_that_was_set_wins_over_the_script(language: str, end: str, none: str) -> None:
    example = question_answering.example_from_row(row(answers=[]), TaskOptions((), language))
    assert example.prompt_text.endswith(end)
    assert example.completion == none


@pytest.mark.parametrize("values", [
    {"answers": "London"}, {"answers": ["London"]}, {"answers": ("London",)},
    {"answers": ["London", " London"]},
    {"answers": ["London"], "answer_start": [24]}, {"answers": "London", "answer_start": 16},
    {"answers": "London", "answer_start": "16"}, {"answers": "London", "answer_start": ""},
    {"answers": "London", "answer_start": 16.0}, {"answers": "London", "answer_start": "--1"},
    {"answers": ["London", "London"], "answer_start": [16]}, {"answers": ["London"], "answer_start": [None]},
    {"answers": {"text": ["London"], "answer_start": [16]}}, {"answers": {"text": "London"}},
    {"answers": {"text": ["London"]}, "answer_start": [24]},
    {"answers": ["London"], "is_impossible": False}, {"answers": ["London"], "is_impossible": "false"},
])
def test_every_shape_of_answers_is_read(values: dict[str, Any]) -> None:
    assert question_answering.example_from_row(row(**values), AUTO).answers == ("London",)


def test_several_answers_stay_in_order_and_the_first_is_learnt() -> None:
    example = question_answering.example_from_row(row(answers=["in London", "London", "in London"]), AUTO)
    assert example.answers == ("in London", "London")
    assert example.completion == " in London"


@pytest.mark.parametrize("values", [
    {"answers": []}, {"answers": ""}, {"answers": [""]}, {"answers": {"text": [], "answer_start": []}},
    {"answers": ["not there"], "is_impossible": True}, {"is_impossible": True}, {"is_impossible": "true"},
    {"answers": ["not there"], "is_impossible": "TRUE"}, {"answers": ["not there"], "is_impossible": "1"},
])
def test_an_unanswerable_row_is_learnt_as_such(values: dict[str, Any]) -> None:
    example = question_answering.example_from_row(row(**values), AUTO)
    assert example.answers == ("",)
    assert example.completion == " unanswerable"
    assert question_answering.answer_from_text(example.completion, example) == ""


@pytest.mark.parametrize("values", [
    {"answers": "Paris"}, {"answers": ["London", "Paris"]}, {"answers": ["london"]},
    {"answers": ["London"], "answer_start": [15]}, {"answers": ["London"], "answer_start": ["17"]},
    {"answers": ["London"], "answer_start": [17.0]}, {"answers": ["London"], "answer_start": "17.0"},
    {"answers": ["London"], "answer_start": [400]}, {"answers": ["is old"], "answer_start": [-7]},
    {"answers": {"text": ["London"], "answer_start": [0]}}, {"answers": [5]}, {"answers": 5},
    {"answers": [None]}, {"answers": [["London"]]},
])
def test_an_answer_that_does_not_stand_in_its_context_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(DataError) as caught:
        question_answering.example_from_row(row(**values), AUTO)
    assert caught.value.code == "E1204"
    assert caught.value.where == "qa.jsonl, line 5, column 'answers'"


def test_the_refusal_shows_what_stands_at_the_start() -> None:
    with pytest.raises(DataError) as caught:
        question_answering.example_from_row(row(answers=["London"], answer_start=[4]), AUTO)
    assert caught.value.found == "'London'"
    assert "'was bo'" in caught.value.allowed


@pytest.mark.parametrize(("values", "column"), [
    ({"context": " ", "answers": []}, "context"), ({"question": "", "answers": []}, "question"),
    ({"question": None, "answers": []}, "question"), ({}, "answers"), ({"answers": None}, "answers"),
    ({"answers": {"answer_start": [3]}}, "answers"),
])
def test_an_empty_cell_is_refused(values: dict[str, Any], column: str) -> None:
    with pytest.raises(DataError) as caught:
        question_answering.example_from_row(row(**values), AUTO)
    assert caught.value.code == "E1202"
    assert caught.value.where == f"qa.jsonl, line 5, column {column!r}"


def test_rows_to_predict_need_no_answers_and_keep_those_they_have() -> None:
    bare = question_answering.example_from_row(row(), AUTO, with_answer=False)
    assert (bare.completion, bare.answers) == ("", ())
    known = question_answering.example_from_row(row(answers=["London"]), AUTO, with_answer=False)
    assert (known.completion, known.answers) == (" London", ("London",))
    with pytest.raises(DataError, match="E1204"):
        question_answering.example_from_row(row(answers=["Paris"]), AUTO, with_answer=False)


def test_starts_count_characters_not_bytes_or_halves() -> None:
    given = row(context="😀é水 London", answers=["London"], answer_start=[4])
    assert question_answering.example_from_row(given, AUTO).answers == ("London",)


@pytest.mark.parametrize("answer", ["London", "the river\nThames", "two  blanks"])
def test_the_completion_is_read_back_as_the_answer_in_one_line(answer: str) -> None:
    example = question_answering.example_from_row(row(context=f"It is {answer}.", answers=[answer]), AUTO)
    assert example.answers == (answer,)
    assert question_answering.answer_from_text(example.completion, example) == " ".join(answer.split())


@pytest.mark.parametrize(("text", "answer"), [
    (" London\nQuestion: more", "London"), ("  in   London ", "in London"),
    (" unanswerable", ""), ("无法回答\n", ""), ("", ""), ("\n\n London", "London"),
])
def test_the_first_line_is_the_answer(text: str, answer: str) -> None:
    example = question_answering.example_from_row(row(), AUTO, with_answer=False)
    assert question_answering.answer_from_text(text, example) == answer


def test_other_columns_are_groups() -> None:
    example = question_answering.example_from_row(row(answers=["London"], id="q1", title="Ada"), AUTO)
    assert example.groups == {"title": "Ada"}
    assert example.row_id == "q1"
    assert question_answering.options_from_rows([], "zh") == TaskOptions((), "zh")


@pytest.mark.parametrize(("values", "spans"), [
    ({"answers": ["London"], "answer_start": [24]}, [(24, 30)]),
    ({"answers": ["London"]}, [(16, 22)]),
    ({"answers": "London"}, [(16, 22)]),
    ({"answers": "old", "answer_start": 34}, [(34, 37)]),
    ({"answers": ["old", "London"], "answer_start": ["34", "24.0"]}, [(34, 37), (24, 30)]),
    ({"answers": {"text": [" London", "London"], "answer_start": [23, 16]}}, [(24, 30)]),
    ({"answers": []}, []), ({"answers": ["London"], "is_impossible": True}, []), ({}, []),
])
@pytest.mark.parametrize("lead", ["", "\n  "])
def test_spans_are_where_the_answers_stand_in_the_stripped_context(
    values: dict[str, Any], spans: list[tuple[int, int]], lead: str
) -> None:
    def moved(start: Any) -> Any:
        if isinstance(start, list):
            return [moved(each) for each in start]
        return int(float(start)) + len(lead)

    given = dict(values)
    if "answer_start" in given:
        given["answer_start"] = moved(given["answer_start"])
    if isinstance(given.get("answers"), dict):
        given["answers"] = {**given["answers"], "answer_start": moved(given["answers"]["answer_start"])}
    example = question_answering.example_from_row(
        row(**{**given, "context": lead + CONTEXT}), AUTO, with_answer="answers" in values)
    assert list(example.spans) == spans
    assert example.question == "Where was Ada born?"
    assert [example.source[start:end] for start, end in example.spans] == [each for each in example.answers if each]
