"""SQuAD, alpaca and chat messages become plain columns."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from treetune.core.errors import DataError
from treetune.data import ReadResult
from treetune.data.shapes import flatten_squad, normalise

ReadText = Callable[..., ReadResult]
ARTICLE = {
    "title": "Rhine",
    "paragraphs": [
        {"context": "The Rhine is long.", "qas": [
            {"id": "q1", "question": "What?", "answers": [
                {"text": "The Rhine", "answer_start": 0}, {"text": "Rhine", "answer_start": 4}]},
            {"id": "q2", "question": "Who?", "answers": [], "is_impossible": True,
             "plausible_answers": [{"text": "long", "answer_start": 13}]},
        ]},
        {"context": "It is wet.", "qas": [{"question": "How?", "id": "q3", "answers": [{"text": "wet"}]}]},
    ],
}


def test_a_squad_article_becomes_one_row_a_question() -> None:
    first, second, third = flatten_squad(ARTICLE)
    assert first == {
        "id": "q1", "title": "Rhine", "context": "The Rhine is long.", "question": "What?",
        "answers": ["The Rhine", "Rhine"], "answer_start": [0, 4], "is_impossible": False,
    }
    assert (second["answers"], second["answer_start"], second["is_impossible"]) == ([], [], True)
    assert second["plausible_answers"] == [{"text": "long", "answer_start": 13}]
    assert (third["context"], third["answers"], third["answer_start"]) == ("It is wet.", ["wet"], [])


def test_a_squad_file_numbers_its_questions(read_text: ReadText) -> None:
    articles = [ARTICLE, ARTICLE]
    for content in (articles, {"version": "1.1", "data": articles}):
        rows = read_text(json.dumps(content), "a.json").rows
        assert [row.line for row in rows] == [1, 2, 3, 4, 5, 6]
        assert [row.id for row in rows[:3]] == ["q1", "q2", "q3"]
    lines = read_text(f"{json.dumps(ARTICLE)}\n{json.dumps(ARTICLE)}\n", "a.jsonl").rows
    assert [row.line for row in lines] == [1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("paragraphs", [[1], [{"context": "a"}], [{"qas": {}}], [{"qas": ["a"]}]])
def test_a_squad_article_that_is_not_one_is_refused(paragraphs: list[Any]) -> None:
    with pytest.raises(DataError, match="E1111"):
        list(flatten_squad({"paragraphs": paragraphs}))


@pytest.mark.parametrize(("answers", "texts", "starts"), [
    ({"text": ["a", "b"], "answer_start": [1, 2]}, ["a", "b"], [1, 2]),
    ({"text": [], "answer_start": []}, [], []),
    ({"text": ["a"]}, ["a"], None),
    ([{"text": "a", "answer_start": 1}, {"text": "b", "answer_start": 2}], ["a", "b"], [1, 2]),
    ([{"text": "a"}], ["a"], None),
    (["a", "b"], ["a", "b"], None),
    ("a", "a", None),
    ([], [], None),
    ({"text": "a"}, {"text": "a"}, None),
])
def test_answers_become_lists(answers: Any, texts: Any, starts: Any) -> None:
    record = normalise({"question": "q", "answers": answers})
    assert record["answers"] == texts
    assert record.get("answer_start") == starts


@pytest.mark.parametrize(("record", "prompt", "completion"), [
    ({"instruction": "Add.", "input": "1 1", "output": "2"}, "Add.\n1 1", "2"),
    ({"instruction": "Sing.", "input": "", "output": "la"}, "Sing.", "la"),
    ({"instruction": "Sing.", "output": "la"}, "Sing.", "la"),
    ({"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"},
                   {"role": "assistant", "content": "Hello"}]}, "Be kind.\nHi", "Hello"),
    ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                   {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]}, "a\nb\nc", "d"),
    ({"messages": [{"role": "user", "content": "a"}]}, "a", None),
    ({"messages": [{"role": "user"}]}, None, None),
    ({"messages": ["a"]}, None, None),
    ({"messages": []}, None, None),
    ({"instruction": "Sing.", "output": ["la"]}, None, None),
    ({"prompt": "p", "completion": "c", "instruction": "i", "output": "o"}, "p", "c"),
    ({"prompt": "p", "messages": [{"role": "user", "content": "a"}]}, "p", None),
    ({"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]},
     "a", "b"),
])
def test_prompt_and_completion(record: dict[str, Any], prompt: str | None, completion: str | None) -> None:
    result = normalise(record)
    assert (result.get("prompt"), result.get("completion")) == (prompt, completion)
    others = {name: value for name, value in record.items() if name not in ("prompt", "completion")}
    assert others.items() <= result.items()
