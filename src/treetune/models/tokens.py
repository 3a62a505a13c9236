"""From examples to token ids. Too long rows lose tokens of cuttable prompt parts, never of the answer; counted.

Each piece of a prompt is encoded by itself, so rows with one instruction begin with exactly its tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from treetune.core.errors import DataError
from treetune.core.records import Example, IntArray, TokenizedExample


def start_ids(tokenizer: Any) -> list[int]:
    """What every row begins with: the tokenizer's own start, else its begin-of-text token if it has one."""
    own = list(tokenizer("")["input_ids"])
    if own and own[-1] != tokenizer.eos_token_id:
        return own
    return [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]


def special_ids(tokenizer: Any) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and after a text."""
    encoded = tokenizer("a", return_special_tokens_mask=True)
    own = [place for place, special in enumerate(encoded["special_tokens_mask"]) if not special]
    return list(encoded["input_ids"][: own[0]]), list(encoded["input_ids"][own[-1] + 1 :])


def encode_texts(tokenizer: Any, texts: Iterable[str]) -> dict[str, list[int]]:
    """Ids of each distinct text, without special tokens."""
    distinct = [text for text in dict.fromkeys(texts) if text]
    if not distinct:
        return {"": []}
    # a row that spells out a special token must stay text: it may not end an answer or start a document
    ids = tokenizer(distinct, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return {"": [], **dict(zip(distinct, ids, strict=True))}


def tokenize(
    examples: Sequence[Example], tokenizer: Any, max_length: int, *, with_completion: bool = True
) -> list[TokenizedExample]:
    """Prompt and completion ids of each example; the completion ends in a supervised end-of-text.

    Args:
        max_length: tokens prompt and completion may have together.
        with_completion: False for rows to generate an answer to (then ``max_length`` bounds the prompt).

    Raises:
        DataError: E1301 when a row does not fit even with all cuttable text gone.
    """
    texts = encode_texts(tokenizer, _texts(examples, with_completion))
    start = start_ids(tokenizer)
    end = int(tokenizer.eos_token_id)
    result = []
    for example in examples:
        completion = [*texts[example.completion], end] if with_completion else []
        prompt, num_cut = fit_prompt(example, texts, start, max_length - len(completion))
        result.append(TokenizedExample(example.row, 0, prompt, np.array(completion, dtype=np.int64), num_cut,
                                       len(texts[example.lead])))
    return result


def tokenize_candidates(
    examples: Sequence[Example], tokenizer: Any, max_length: int
) -> list[TokenizedExample]:
    """One tokenized example for every candidate answer of every example, all with the same prompt ids."""
    texts = encode_texts(tokenizer, [*_texts(examples, False), *(c for e in examples for c in e.candidates.values())])
    start = start_ids(tokenizer)
    end = int(tokenizer.eos_token_id)
    result = []
    for example in examples:
        completions = [[*texts[text], end] for text in example.candidates.values()]
        prompt, num_cut = fit_prompt(example, texts, start, max_length - max(map(len, completions)))
        result += [
            TokenizedExample(example.row, choice, prompt, np.array(completion, dtype=np.int64), num_cut,
                             len(texts[example.lead]))
            for choice, completion in enumerate(completions)
        ]
    return result


def instruction_length(tokenizer: Any, example: Example) -> int:
    """Tokens of the example's instruction."""
    return len(encode_texts(tokenizer, [example.lead])[example.lead])


def _texts(examples: Sequence[Example], with_completion: bool) -> Iterable[str]:
    for example in examples:
        yield from (part.text for part in example.pieces)
        if with_completion:
            yield example.completion


def fit_prompt(
    example: Example, texts: dict[str, list[int]], start: list[int], room: int
) -> tuple[IntArray, int]:
    """Prompt ids that fit into ``room`` tokens, and how many were cut off the ends of cuttable parts (last first)."""
    pieces = example.pieces
    parts = [texts[part.text] for part in pieces]
    excess = len(start) + sum(map(len, parts)) - room
    num_cut = max(excess, 0)
    for place in reversed(range(len(parts))):
        if excess > 0 and pieces[place].cuttable:
            keep = max(len(parts[place]) - excess, 0)
            excess -= len(parts[place]) - keep
            parts[place] = parts[place][:keep]
    ids = [*start, *(token for part in parts for token in part)]
    if excess > 0 or not ids:
        raise DataError(
            "E1301", "the row does not fit into the model's window even with its source cut away",
            where=f"{example.split} row {example.row_id}", found=f"{excess + room} tokens that may not be cut",
            allowed=f"{room} tokens", do="shorten the instruction or choose a model with a longer window"
            if example.instruction else "shorten the answer or choose a model with a longer window",
        )
    return np.array(ids, dtype=np.int64), num_cut
