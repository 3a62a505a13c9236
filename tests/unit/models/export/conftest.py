"""Small random decoders with a byte-level tokenizer."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from treetune.models.gpt3 import GPT3Config, GPT3LMHeadModel, train_tokenizer
from treetune.models.load import NO_LIMIT, LoadedModel

WINDOW = 48
TEXTS = ["The film was good and the film was long.", "A dull story; nobody laughed.", "positive negative neutral"] * 5


@pytest.fixture(scope="session")
def byte_tokenizer() -> Any:
    tokenizer = train_tokenizer(TEXTS, 290, WINDOW)
    tokenizer.model_max_length = NO_LIMIT
    return tokenizer


@pytest.fixture
def small(byte_tokenizer: Any) -> Callable[..., LoadedModel]:
    """(settings of GPT3Config) -> a random model whose logits are far apart."""

    def make(**settings: Any) -> LoadedModel:
        torch.manual_seed(0)
        config = GPT3Config(**{"vocab_size": len(byte_tokenizer), "n_positions": WINDOW, "n_embd": 32, "n_layer": 3,
                               "n_head": 4, "attention_band": 8, "initializer_range": 0.2, "bos_token_id": 0,
                               "eos_token_id": 0, "pad_token_id": 0, **settings})
        return LoadedModel(GPT3LMHeadModel(config).eval(), byte_tokenizer, WINDOW, "small")

    return make


@pytest.fixture
def rows(byte_tokenizer: Any) -> torch.Tensor:
    """(4, WINDOW) random ids."""
    return torch.randint(1, len(byte_tokenizer), (4, WINDOW), generator=torch.Generator().manual_seed(1))
