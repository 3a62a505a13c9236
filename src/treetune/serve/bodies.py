"""What clients may send: closed schemas with every length bounded, made from a task's own columns."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from treetune.serve.limits import Limits
from treetune.serve.runs import asked_columns
from treetune.tasks.contract import Task

Name = Annotated[str, Field(max_length=64, description="name of a run; left out: the first that does the task")]
MAX_TOKENS = 1_000_000


class Closed(BaseModel):
    """No field but those named, no coercion of text to numbers, no infinity."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)


def row_body(task: Task, limits: Limits) -> type[BaseModel]:
    """One row of the task."""
    text = Annotated[str, Field(min_length=1, max_length=limits.characters)]
    optional = Annotated[str | None, Field(max_length=limits.characters)]
    fields: dict[str, Any] = {}
    for column in asked_columns(task):
        kind = text if column.required else optional
        fields[column.name] = (kind, Field(... if column.required else None, description=column.meaning))
    title = task.NAME.title().replace("_", "")
    return create_model(f"{title}Row", __base__=Closed, **fields)


def ask_body(task: Task, limits: Limits) -> type[BaseModel]:
    """One row and how it is to be answered."""
    row = row_body(task, limits)
    stream = Annotated[bool, Field(description="server-sent events: text while it is written, then the answer")]
    return create_model(row.__name__.replace("Row", "Request"), __base__=row, run=(Name | None, None),
                        stream=(stream, False))


def batch_body(task: Task, limits: Limits) -> type[BaseModel]:
    """Many rows."""
    row = row_body(task, limits)
    rows = Annotated[list[row], Field(min_length=1, max_length=limits.rows)]  # type: ignore[valid-type]
    return create_model(row.__name__.replace("Row", "Batch"), __base__=Closed, rows=(rows, ...),
                        run=(Name | None, None))


class Explain(Closed):
    """A row whose answer is to be explained."""

    run: Annotated[str, Field(max_length=64)]
    row: Annotated[dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=50_000)]],
                   Field(min_length=1, max_length=8)]


class Settle(Closed):
    """What a person says of a row."""

    run: Annotated[str, Field(max_length=64)]
    verdict: Literal["confirm", "correct"]
    answer: Annotated[str, Field(max_length=50_000, description="the right answer, for correct")] = ""


class TextPart(Closed):
    """A piece of a message."""

    type: Literal["text"]
    text: Annotated[str, Field(max_length=50_000)]


class Message(Closed):
    """A message of a chat. ``system`` or ``developer`` may hold the context of a question."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, Field(max_length=50_000)] | Annotated[list[TextPart], Field(max_length=64)]
    name: Annotated[str | None, Field(max_length=64)] = None

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(Closed):
    """OpenAI's ``stream_options``."""

    include_usage: bool = False


class OpenAIBody(Closed):
    """What both of OpenAI's routes take. Answers are greedy: settings that would change them are refused."""

    model: Annotated[str, Field(max_length=64, description="name of a run, see /v1/models")]
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: Annotated[float | None, Field(ge=0, le=0, strict=False, description="0 only")] = None
    top_p: Annotated[float | None, Field(gt=0, le=1, strict=False, description="without effect: greedy")] = None
    n: Annotated[int | None, Field(ge=1, le=1)] = None
    max_tokens: Annotated[int | None, Field(
        ge=1, le=MAX_TOKENS, description="not below the run's own: a cut answer is not the one the gate judged")] = None
    seed: Annotated[int | None, Field(ge=-(2**63), le=2**63 - 1, description="without effect: greedy")] = None
    user: Annotated[str | None, Field(max_length=256, description="not kept")] = None

    @property
    def limit(self) -> int | None:
        return self.max_tokens


class Chat(OpenAIBody):
    """``/v1/chat/completions``"""

    messages: Annotated[list[Message], Field(min_length=1, max_length=64)]
    max_completion_tokens: Annotated[int | None, Field(ge=1, le=MAX_TOKENS)] = None

    @property
    def limit(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class Completion(OpenAIBody):
    """``/v1/completions``"""

    prompt: Annotated[str, Field(max_length=50_000)] | Annotated[
        list[Annotated[str, Field(max_length=50_000)]], Field(min_length=1, max_length=128)]
