"""A decoder writes its answer after the prompt, and scores labels the same way: the head over token trees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treetune.core.records import Example, TokenizedExample
from treetune.models.batches import batches_of
from treetune.models.decoder import loss_sum
from treetune.models.tokens import tokenize

__all__ = ["batches_of", "loss_sum"]
AUTO_CLASS = "AutoModelForCausalLM"
PEFT_TASK = "CAUSAL_LM"
BRANCHES = True
PACKS = True
MAX_LENGTH = 0


def encode(examples: Sequence[Example], tokenizer: Any, max_length: int) -> list[TokenizedExample]:
    """See `treetune.models.tokens.tokenize`."""
    return tokenize(examples, tokenizer, max_length)


def settle(examples: Sequence[Example]) -> dict[str, Any]:
    """Nothing: the prompts say it all."""
    return {}
