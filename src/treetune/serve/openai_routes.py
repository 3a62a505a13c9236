"""OpenAI's routes over tuned runs: ``model`` names a run, the last message or the prompt holds its row.

Of a question the context comes first: in a system message, or in front of a line that begins with ``Question:``.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse

from treetune.core.errors import TreetuneError, UsageError
from treetune.core.records import OutputKind
from treetune.serve.answering import to_json
from treetune.serve.bodies import Chat, Completion, OpenAIBody
from treetune.serve.desk import Desk
from treetune.serve.refused import Refused, as_refused
from treetune.serve.runs import Served

MARKS = ("Question:", "question:", "问题：", "问题:")


def add_openai_routes(app: FastAPI, desk: Desk) -> None:
    """``/v1/models``, ``/v1/chat/completions``, ``/v1/completions``."""

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model_of(each) for each in desk.runs.served.values()]}

    @app.get("/v1/models/{name}")
    async def model(name: str) -> dict[str, Any]:
        return model_of(find(desk, name))

    @app.post("/v1/chat/completions")
    async def chat(request: Request, body: Chat) -> Response:
        served = find(desk, body.model)
        return await reply(desk, served, body, [chat_row(served, body)], request, ChatShape(served.name))

    @app.post("/v1/completions")
    async def completions(request: Request, body: Completion) -> Response:
        served = find(desk, body.model)
        prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
        rows = [row_of_text(served, prompt, "") for prompt in prompts]
        return await reply(desk, served, body, rows, request, TextShape(served.name))


def find(desk: Desk, name: str) -> Served:
    """The run a client calls its model; a name to look up, never a path and never fetched.

    Raises:
        Refused: 404 E6030.
    """
    served = desk.runs.find(name)
    if served is None:
        raise Refused(404, UsageError("E6030", "there is no such model here", allowed=", ".join(desk.runs.served)),
                      param="model")
    return served


def model_of(served: Served) -> dict[str, Any]:
    """A run in OpenAI's words."""
    return {"id": served.name, "object": "model", "created": served.loaded, "owned_by": "treetune",
            "task": served.run.task.NAME, "weights_sha256": served.digest}


def chat_row(served: Served, body: Chat) -> dict[str, Any]:
    """The row in a chat: the last message is what is asked, system messages are its context.

    Raises:
        Refused: 422 E6031 the last message is not the user's.
    """
    if body.messages[-1].role != "user":
        raise Refused(422, UsageError("E6031", "the last message has to be the user's"), param="messages")
    context = "\n".join(each.text for each in body.messages if each.role in ("system", "developer"))
    return row_of_text(served, body.messages[-1].text, context)


def row_of_text(served: Served, text: str, context: str) -> dict[str, Any]:
    """The task's columns from plain text.

    Raises:
        Refused: 422 E6032 a question without its context.
    """
    task = served.run.task
    first, *others = [column.name for column in task.COLUMNS
                      if column.required and column.name not in task.ANSWER_COLUMNS]
    if not others:
        return {first: text}
    for mark in () if context else MARKS:
        before, found, after = text.rpartition(mark)
        if found and before.strip():
            context, text = before, after
            break
    if not context.strip():
        raise Refused(422, UsageError(
            "E6032", "there is no context to answer from", allowed="a system message, or CONTEXT, a line break, "
            "Question: QUESTION", do="send the passage along with the question"), param="messages")
    return {first: context, others[0]: text}


async def reply(
    desk: Desk, served: Served, body: OpenAIBody, rows: list[dict[str, Any]], request: Request, shape: ChatShape
) -> Response:
    """All choices at once, or a stream of one."""
    check_length(served, body)
    if body.stream:
        if len(rows) > 1:
            raise Refused(422, UsageError("E6033", "a stream holds one answer; send one prompt"), param="prompt")
        pieces = await desk.watch(lambda on_text: desk.ticket(served, rows[0], on_text=on_text, count_tokens=True))
        usage = body.stream_options is not None and body.stream_options.include_usage
        return StreamingResponse(chunks(pieces, shape, usage), media_type="text/event-stream")
    tickets = [desk.ticket(served, row, count_tokens=True) for row in rows]
    answers = await desk.ask(tickets, request.receive)
    whole = {**shape.head(answers[0]["id"]), "object": shape.whole, "usage": usage_of(answers),
             "choices": [{"index": place, **shape.choice(answer), "finish_reason": finish(answer), "logprobs": None}
                         for place, answer in enumerate(answers)],
             "treetune": [extension(answer) for answer in answers]}
    return Response(to_json(whole), media_type="application/json")


def check_length(served: Served, body: OpenAIBody) -> None:
    """A limit below the run's own would cut answers the gate judged whole.

    Raises:
        Refused: 422 E6034.
    """
    own = served.run.max_new_tokens
    if body.limit is not None and body.limit < own and served.run.task.OUTPUT is not OutputKind.LABEL:
        raise Refused(422, UsageError("E6034", "answers of this run may have more tokens than that",
                                      found=str(body.limit), allowed=f"{own} or more", do="leave the limit out"),
                      param="max_tokens")


async def chunks(pieces: AsyncIterator[str | dict[str, Any] | None], shape: ChatShape, usage: bool) -> AsyncIterator[
        str]:
    """OpenAI's stream: text, the end with its reason and decision, and ``[DONE]``."""
    head = {**shape.head(f"stream-{time.time_ns():x}"), "object": shape.part}
    sent = ""
    try:
        if shape.opens:
            yield _data({**head, "choices": [_part({"delta": {"role": "assistant", "content": ""}}, None)]})
        async for piece in pieces:
            if piece is None:
                yield ": still working\n\n"
            elif isinstance(piece, str):
                sent += piece
                yield _data({**head, "choices": [_part(shape.delta(piece), None)]})
            else:
                rest = (piece["answer"] or "")[len(sent) :]
                if rest:
                    yield _data({**head, "choices": [_part(shape.delta(rest), None)]})
                last = shape.refusal(piece) if piece["answer"] is None else shape.delta("")
                yield _data({**head, "choices": [_part(last, finish(piece))], "treetune": [extension(piece)]})
                if usage:
                    yield _data({**head, "choices": [], "usage": usage_of([piece])})
    except Refused as refusal:
        yield _data(refusal.body())
    except TreetuneError as error:
        yield _data(as_refused(error).body())
    yield "data: [DONE]\n\n"


def _data(value: Any) -> str:
    return f"data: {to_json(value)}\n\n"


def _part(delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
    return {"index": 0, **delta, "finish_reason": reason, "logprobs": None}


class ChatShape:
    """How a chat's answers look."""

    whole, part = "chat.completion", "chat.completion.chunk"
    opens = True

    def __init__(self, name: str) -> None:
        self.name = name

    def head(self, identity: str) -> dict[str, Any]:
        """What every object begins with."""
        return {"id": identity, "created": int(time.time()), "model": self.name}

    def choice(self, answer: dict[str, Any]) -> dict[str, Any]:
        """A whole answer; held back, its message has no content and says why."""
        return {"message": {"role": "assistant", "content": answer["answer"],
                            "refusal": None if answer["answer"] is not None else why(answer)}}

    def delta(self, text: str) -> dict[str, Any]:
        """A piece of text."""
        return {"delta": {"content": text} if text else {}}

    def refusal(self, answer: dict[str, Any]) -> dict[str, Any]:
        """In place of text."""
        return {"delta": {"refusal": why(answer)}}


class TextShape(ChatShape):
    """How plain completions look; they have no place for a refusal but the finish reason."""

    whole = part = "text_completion"
    opens = False

    def choice(self, answer: dict[str, Any]) -> dict[str, Any]:
        return {"text": answer["answer"] or ""}

    def delta(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def refusal(self, answer: dict[str, Any]) -> dict[str, Any]:
        return {"text": ""}


def why(answer: dict[str, Any]) -> str:
    """Why an answer is held back, in words."""
    return "; ".join(each["text"] for each in answer["decision"]["reasons"]) or str(answer["decision"]["verdict"])


def finish(answer: dict[str, Any]) -> str:
    """OpenAI's reason for the end."""
    if answer["answer"] is None:
        return "content_filter"
    return "stop" if answer["finished"] else "length"


def usage_of(answers: list[dict[str, Any]]) -> dict[str, int]:
    """Tokens read and written."""
    read = sum(answer["usage"]["prompt_tokens"] for answer in answers)
    written = sum(answer["usage"]["completion_tokens"] for answer in answers)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def extension(answer: dict[str, Any]) -> dict[str, Any]:
    """What OpenAI has no field for. A proposal is for the person who reviews; it is not sent here."""
    return {name: value for name, value in answer.items() if name not in ("answer", "proposal", "usage")}
