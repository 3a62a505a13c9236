"""What is explained: one input, the answer it got, and the answer it might have got instead, as one number.

The number, in nats, is the log-odds of the answer against its runner-up; an explanation says what each word adds to
it. `scores_of_embedded` is for methods that need gradients, `scores_kept` for those that take words away.
Letters: N inputs, L tokens, W words, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from treetune.core.errors import UsageError
from treetune.core.records import FloatArray
from treetune.explain.words import INSTRUCTION, Word

BoolArray = NDArray[np.bool_]
DELETED, MASKED = "deleted", "masked"


@dataclass(frozen=True, slots=True)
class Answered:
    """Names of the two answers that are compared.

    Attributes:
        answer: what the model said, or what was asked about. rival: what it is compared with.
        tokens: the answer's pieces where it was written token by token, else (). rivals: what nearly stood instead.
    """

    answer: str
    rival: str
    tokens: tuple[str, ...] = ()
    rivals: tuple[str, ...] = ()


class Subject(Protocol):
    """One input with its answer.

    Attributes:
        words: the input's units in order, those of the instruction among them. answered: what is compared.
        removal: how a word is taken away: ``deleted`` (the text closes up) or ``masked``.
    """

    @property
    def words(self) -> tuple[Word, ...]: ...
    @property
    def answered(self) -> Answered: ...
    @property
    def removal(self) -> str: ...

    def embedded(self) -> torch.Tensor:
        """(L, D) what the model's first layer reads for the input."""
        ...

    def baseline(self) -> torch.Tensor:
        """(D,) an embedding that stands for no word in particular."""
        ...

    def scores_of_embedded(self, embedded: torch.Tensor) -> torch.Tensor:
        """(N, L, D) -> (N,) log-odds, differentiable."""
        ...

    def scores_kept(self, kept: BoolArray) -> FloatArray:
        """(N, W) which words stay -> (N,) log-odds."""
        ...

    def log_probs_kept(self, kept: BoolArray) -> FloatArray:
        """(N, W) -> (N, K) natural-log probability of each piece of the answer."""
        ...


def varied(subject: Subject, *, with_instruction: bool = False) -> NDArray[np.int64]:
    """Places of the words that an explanation is about: the user's own, not the instruction's.

    Raises:
        UsageError: E2601 there is no such word.
    """
    found = [place for place, word in enumerate(subject.words) if with_instruction or word.part != INSTRUCTION]
    if not found:
        raise UsageError("E2601", "the input has no words to explain", do="give a text with at least one word")
    return np.array(found, dtype=np.int64)


def all_but(subject: Subject, taken: Sequence[int] | NDArray[np.int64]) -> BoolArray:
    """(W,) True except at ``taken``."""
    kept = np.ones(len(subject.words), dtype=bool)
    kept[np.asarray(taken, dtype=np.int64)] = False
    return kept


def offsets_of(tokenizer: Any, text: str) -> tuple[list[int], NDArray[np.int64]]:
    """Ids of a text without special tokens and (N, 2) the characters of each.

    Raises:
        UsageError: E2602 the tokenizer gives no characters.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise UsageError("E2602", "the tokenizer does not say which characters a token stands for",
                         found=type(tokenizer).__name__, allowed="a tokenizer with a tokenizer.json",
                         do="use a model with a fast tokenizer")
    found = tokenizer(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
    return list(found["input_ids"]), np.array(found["offset_mapping"], dtype=np.int64).reshape(-1, 2)
