"""From documents to blocks of tokens for language-model training."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from treetune.core.records import IntArray, TokenizedExample
from treetune.core.seeds import generator

CHUNK_DOCUMENTS = 2000
CHUNK_CHARACTERS = 20_000
PIECES_AT_ONCE = 1000


def document_ids(documents: Iterable[str], tokenizer: Any, num_tokens: int) -> list[IntArray]:
    """The tokens of the first documents that hold ``num_tokens``, each document behind an end-of-text token.

    Fewer when the documents hold fewer.
    """
    end = int(tokenizer.eos_token_id)
    found: list[IntArray] = []
    size = 0
    for chunk in _chunks(documents):
        for ids in tokenizer(chunk, add_special_tokens=False, split_special_tokens=True)["input_ids"]:
            if size >= num_tokens:
                return found
            found.append(np.array([end, *ids], dtype=np.int64))
            size += len(ids) + 1
    return found


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


def blocks(documents: Sequence[IntArray], length: int) -> list[TokenizedExample]:
    """Documents side by side in examples of at most ``length`` input tokens, every token but the first one a label.

    A document longer than that is cut into pieces; a piece is never cut again to fill a block, so a question stays
    with its passage. Pieces are placed longest first into the fullest block that has room for them (best fit; Ding
    et al. 2024, arXiv 2404.10830), a thousand at a time, so that blocks keep the mix of the order given.
    """
    pieces = [ids[start : start + length + 1] for ids in documents for start in range(0, len(ids), length + 1)]
    found: list[TokenizedExample] = []
    for first in range(0, len(pieces), PIECES_AT_ONCE):
        for block in best_fit(pieces[first : first + PIECES_AT_ONCE], length + 1):
            ids = np.concatenate(block)
            if len(ids) > 1:
                found.append(TokenizedExample(row=0, choice=0, prompt_ids=ids[:1], completion_ids=ids[1:], num_cut=0))
    return found


def best_fit(pieces: Sequence[IntArray], room: int) -> list[list[IntArray]]:
    """Every piece in one block of at most ``room`` tokens."""
    filled: list[list[IntArray]] = []
    free: list[tuple[int, int]] = []  # (room left, block), sorted
    for piece in sorted(pieces, key=len, reverse=True):
        place = bisect_left(free, (len(piece), -1))
        if place < len(free):
            left, block = free.pop(place)
        else:
            left, block = room, len(filled)
            filled.append([])
        filled[block].append(piece)
        if left > len(piece):
            insort(free, (left - len(piece), block))
    return filled


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
