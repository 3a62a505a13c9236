"""From documents to blocks of tokens for language-model training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from treetune.core.records import IntArray, TokenizedExample
from treetune.core.seeds import generator

CHUNK_DOCUMENTS = 2000
CHUNK_CHARACTERS = 20_000


def stream_ids(documents: Iterable[str], tokenizer: Any, num_tokens: int) -> IntArray:
    """The first ``num_tokens`` tokens of the documents, each document behind an end-of-text token.

    Shorter when the documents hold fewer.
    """
    end = int(tokenizer.eos_token_id)
    parts: list[IntArray] = []
    size = 0
    for chunk in _chunks(documents):
        for ids in tokenizer(chunk, add_special_tokens=False, split_special_tokens=True)["input_ids"]:
            parts.append(np.array([end, *ids], dtype=np.int32).astype(np.int64))
            size += len(ids) + 1
        if size >= num_tokens:
            break
    return np.concatenate(parts)[:num_tokens] if parts else np.zeros(0, dtype=np.int64)


def _chunks(documents: Iterable[str]) -> Iterator[list[str]]:
    """Lists of documents small enough to tokenize at once; very long ones are passed on line by line."""
    chunk: list[str] = []
    size = 0
    for document in documents:
        chunk.append(document)
        size += len(document)
        if len(chunk) == CHUNK_DOCUMENTS or size > CHUNK_CHARACTERS * 50:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def shuffled(documents: Sequence[str], seed: int, name: str) -> list[str]:
    """The documents in an order that depends on (seed, name) only."""
    order = generator(seed, "documents", name).permutation(len(documents))
    return [documents[place] for place in order]


def blocks(ids: IntArray, length: int, first_row: int) -> list[TokenizedExample]:
    """Cut a stream into examples of ``length`` input tokens each, every token but the first one a label.

    The rest that does not fill a block is left out.
    """
    count = (len(ids) - 1) // length
    return [
        TokenizedExample(
            row=first_row + number, choice=0,
            prompt_ids=ids[number * length : number * length + 1],
            completion_ids=ids[number * length + 1 : (number + 1) * length + 1],
            num_cut=0,
        )
        for number in range(count)
    ]


def split_documents(
    documents: Sequence[str], length_of: Callable[[str], int], held_out: int, most_share: float = 0.05
) -> tuple[list[str], list[str]]:
    """(training, held out): documents from the front until they hold ``held_out`` tokens, at most ``most_share``."""
    limit = max(1, int(len(documents) * most_share))
    size = 0
    for count, document in enumerate(documents):
        if size >= held_out or count >= limit:
            return list(documents[count:]), list(documents[:count])
        size += length_of(document)
    return list(documents), []
