"""GPT-3's tokenizer: the byte-level BPE of GPT-2, which can write any text (bytes are its alphabet).

Source: Radford et al. 2019, section 2.2; Brown et al. 2020 use the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, GPT2Tokenizer

from treetune.models.embedded import resolve
from treetune.models.gpt3.configuration import GPT3Config

END_OF_TEXT = "<|endoftext|>"


class GPT3Tokenizer(GPT2Tokenizer):  # type: ignore[misc]
    """Byte-level BPE; ``from_pretrained('gpt3')`` is the tokenizer of the model that ships in the package."""

    @classmethod
    def from_pretrained(cls, name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As transformers', and ``'gpt3'`` needs no network."""
        return super().from_pretrained(resolve(name_or_path), *args, **kwargs)


GPT3TokenizerFast = GPT3Tokenizer


def train_tokenizer(texts: Iterable[str], vocab_size: int, n_positions: int) -> GPT3Tokenizer:
    """Learn a byte-level BPE of ``vocab_size`` entries (256 bytes and end-of-text included) from ``texts``."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[END_OF_TEXT], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    core.train_from_iterator(texts, trainer)
    state = json.loads(core.to_str())["model"]
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in state["merges"]]
    return GPT3Tokenizer(
        vocab=state["vocab"], merges=merges, pad_token=END_OF_TEXT, model_max_length=n_positions
    )


AutoTokenizer.register(GPT3Config, tokenizer_class=GPT3Tokenizer, exist_ok=True)
