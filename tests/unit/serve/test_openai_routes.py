"""OpenAI's own client against a server that listens: row 49."""

from pathlib import Path
from typing import Any

import openai
import pytest

KEY = "a-key-of-forty-characters-for-the-tests!"


@pytest.fixture
def server(live: Any, made_runs: dict[str, Path]) -> Any:
    return live({"mood": made_runs["sentiment"], "qa": made_runs["question_answering"],
                 "de": made_runs["translation"]}, key=KEY)


@pytest.fixture
def client(server: Any) -> Any:
    with openai.OpenAI(base_url=f"{server.address}/v1", api_key=KEY, max_retries=0) as one:
        yield one


def test_models_are_the_runs(client: Any) -> None:
    assert [each.id for each in client.models.list()] == ["mood", "qa", "de"]
    assert client.models.retrieve("qa").owned_by == "treetune"


def test_a_chat_is_answered_with_its_decision(client: Any, server: Any) -> None:
    found = client.chat.completions.create(model="mood", messages=[{"role": "user", "content": "A warm film."}])
    assert found.object == "chat.completion"
    assert found.choices[0].message.content == server.post("/v1/sentiment", {"text": "A warm film."}).json()["answer"]
    assert found.choices[0].finish_reason == "stop"
    assert found.usage.prompt_tokens > 5
    assert found.treetune[0]["decision"]["verdict"] == "ungated"


def test_a_question_brings_its_context(client: Any, server: Any) -> None:
    row = {"context": "Paris is the capital of France.", "question": "What is the capital of France?"}
    wanted = server.post("/v1/question_answering", row).json()["answer"]
    told = [{"role": "system", "content": row["context"]}, {"role": "user", "content": row["question"]}]
    parts = [{"role": "user", "content": [{"type": "text", "text": f"{row['context']}\nQuestion: {row['question']}"}]}]
    for messages in (told, parts):
        assert client.chat.completions.create(model="qa", messages=messages).choices[0].message.content == wanted
    with pytest.raises(openai.UnprocessableEntityError, match="no context"):
        client.chat.completions.create(model="qa", messages=[{"role": "user", "content": "What?"}])


def test_a_stream_adds_up(client: Any) -> None:
    asked: Any = {"model": "de", "messages": [{"role": "user", "content": "A man rides a bike."}]}
    whole = client.chat.completions.create(**asked).choices[0].message.content
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(each.choices[0].delta.content or "" for each in chunks if each.choices) == whole
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason in ("stop", "length")
    assert chunks[-2].treetune[0]["decision"]["verdict"] == "ungated"
    assert chunks[-1].usage.completion_tokens > 0
    assert not chunks[-1].choices


def test_completions_whole_and_streamed(client: Any) -> None:
    whole = client.completions.create(model="de", prompt=["A man.", "Two dogs run."])
    assert [each.index for each in whole.choices] == [0, 1]
    streamed = client.completions.create(model="de", prompt="Two dogs run.", stream=True)
    assert "".join(each.choices[0].text for each in streamed) == whole.choices[1].text
    with pytest.raises(openai.UnprocessableEntityError):
        client.completions.create(model="de", prompt=["a", "b"], stream=True)


@pytest.mark.parametrize(("changes", "kind"), [
    ({"model": "nobody"}, openai.NotFoundError), ({"model": "../mood"}, openai.NotFoundError),
    ({"temperature": 0.7}, openai.UnprocessableEntityError), ({"max_tokens": 2}, openai.UnprocessableEntityError),
    ({"messages": [{"role": "assistant", "content": "x"}]}, openai.UnprocessableEntityError),
    ({"messages": []}, openai.UnprocessableEntityError),
])
def test_errors_have_openais_shape(client: Any, changes: dict[str, Any], kind: type[Exception]) -> None:
    asked = {"model": "de", "messages": [{"role": "user", "content": "x"}], **changes}
    with pytest.raises(kind) as caught:
        client.chat.completions.create(**asked)
    error: Any = caught.value
    assert error.code.startswith("E6")
    assert error.body["message"]
    assert error.type.endswith("_error")


def test_a_wrong_key_is_an_authentication_error(server: Any) -> None:
    with openai.OpenAI(base_url=f"{server.address}/v1", api_key="wrong", max_retries=0) as client, pytest.raises(
            openai.AuthenticationError):
        client.models.list()


def test_settings_that_change_nothing_are_taken(client: Any) -> None:
    found = client.chat.completions.create(
        model="mood", messages=[{"role": "user", "content": "A warm film."}], temperature=0, seed=5, max_tokens=1,
        user="somebody", n=1, top_p=1)
    assert found.choices[0].message.content
