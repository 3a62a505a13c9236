"""Well-known shapes of records brought to plain columns: SQuAD, alpaca, chat messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from treetune.core.errors import DataError

Record = dict[str, Any]


def flatten_squad(record: Record) -> Iterator[Record]:
    """The questions of a SQuAD article (an object with ``paragraphs``) as rows; any other record as it is.

    A row has ``id, context, question, answers`` (list of text), ``answer_start`` (list of int),
    ``is_impossible``, ``title`` where the article has one, and whatever else its question carries.

    Raises:
        DataError: E1111 when a paragraph or a question is not as SQuAD has it.
    """
    if not isinstance(record.get("paragraphs"), list):
        yield record
        return
    article = {"title": record["title"]} if "title" in record else {}
    for paragraph in _parts(record, "paragraphs"):
        shared = {**article, "context": paragraph.get("context")}
        for question in _parts(paragraph, "qas"):
            impossible = question.get("is_impossible", False)
            plain = plain_answers({"answers": question.get("answers", []), "answer_start": []})
            yield {"id": None, **shared, **question, **plain, "is_impossible": impossible}


def _parts(record: Record, key: str) -> list[Record]:
    parts = record.get(key)
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        kind = type(parts).__name__
        raise DataError("E1111", "{column!r} is not a list of objects", column=key, found=kind)
    return parts


def normalise(record: Record) -> Record:
    """The record with answers, alpaca fields and messages as plain columns; other columns stay.

    - ``answers`` as ``{"text": [...], "answer_start": [...]}`` or ``[{"text": ..., "answer_start": ...}]``
      become the lists ``answers`` and ``answer_start``.
    - ``instruction``, ``input``, ``output`` (alpaca) and ``messages`` give ``prompt`` and ``completion``,
      when the record has neither. Of messages the last one of the assistant is the completion; the contents
      before it, one a line, are the prompt.
    - ``prompt`` and ``completion`` that are lists of messages become their contents, one a line.
    """
    record = plain_answers(record)
    if "prompt" in record or "completion" in record:
        contents = {name: _contents(record.get(name)) for name in ("prompt", "completion")}
        return record | {name: "\n".join(parts) for name, parts in contents.items() if parts is not None}
    if isinstance(record.get("instruction"), str) and isinstance(record.get("output"), str):
        pieces = [record["instruction"], record.get("input")]
        prompt = "\n".join(piece for piece in pieces if isinstance(piece, str) and piece)
        return record | {"prompt": prompt, "completion": record["output"]}
    return record | _from_messages(record.get("messages"))


def plain_answers(record: Record) -> Record:
    """``answers`` of objects as two lists; a record without such answers is returned as it is."""
    answers = record.get("answers")
    if isinstance(answers, dict) and isinstance(answers.get("text"), list | tuple):
        texts, starts = list(answers["text"]), answers.get("answer_start")
    elif isinstance(answers, list) and answers and all(isinstance(a, dict) and "text" in a for a in answers):
        texts, starts = [one["text"] for one in answers], [one.get("answer_start") for one in answers]
        starts = None if None in starts else starts
    else:
        return record
    plain = record | {"answers": texts}
    return plain | {"answer_start": list(starts)} if isinstance(starts, list | tuple) else plain


def _contents(messages: Any) -> list[str] | None:
    """Contents of a list of ``{"role": ..., "content": text}``; None when it is something else."""
    if not isinstance(messages, list) or not messages:
        return None
    contents = [message.get("content") if isinstance(message, dict) else None for message in messages]
    texts = [content for content in contents if isinstance(content, str)]
    return texts if len(texts) == len(messages) else None


def _from_messages(messages: Any) -> Record:
    contents = _contents(messages)
    if contents is None:
        return {}
    spoken = [place for place, message in enumerate(messages) if message.get("role") == "assistant"]
    if not spoken:
        return {"prompt": "\n".join(contents)}
    last = spoken[-1]
    return {"prompt": "\n".join(contents[:last]), "completion": contents[last]}
