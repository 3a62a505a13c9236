"""Tiny models, tokenizers and rows; one thread, so that tests do not fight for the cores."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from treetune.core.records import TokenizedExample
from treetune.models.gpt3 import GPT3Config, GPT3LMHeadModel, GPT3Tokenizer, train_tokenizer

TEXTS = ["The film was good and the film was long.", "Ein Film, der gut war.", "这部电影很好看,演员也很好。"] * 20


@pytest.fixture(autouse=True)
def always(one_thread: None) -> None:
    """For every test in this folder."""


@pytest.fixture
def make_gpt3() -> Callable[..., GPT3LMHeadModel]:
    """(options of GPT3Config) -> a small random model with weights large enough to matter."""

    def make(**changes: object) -> GPT3LMHeadModel:
        torch.manual_seed(0)
        shape = {"vocab_size": 97, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "attention_band": 4,
                 "initializer_range": 0.3, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
        return GPT3LMHeadModel(GPT3Config(**{**shape, **changes})).eval()

    return make


@pytest.fixture(scope="session")
def tokenizer() -> GPT3Tokenizer:
    return train_tokenizer(TEXTS, 300, 64)


@pytest.fixture
def rows() -> list[TokenizedExample]:
    """Rows that share an instruction, with duplicates, a prefix of another, one-token prompts and long answers."""
    random = np.random.default_rng(0)
    shared = random.integers(1, 97, 9)

    def row(number: int, prompt: object, completion: object) -> TokenizedExample:
        return TokenizedExample(number, 0, np.asarray(prompt, dtype=np.int64),
                                np.asarray(completion, dtype=np.int64), 0)

    made = [row(n, [*shared, *random.integers(1, 97, n)], [*random.integers(1, 97, n % 3 + 1), 0]) for n in range(6)]
    return [*made, row(6, shared, made[0].completion_ids), row(7, shared[:1], [5]), row(8, [3], [*range(1, 12)]),
            row(9, shared[:4], shared[4:7])]
