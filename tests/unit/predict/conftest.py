"""The small model that predictions are tested on."""

from collections.abc import Iterator

import pytest
import torch

from treetune.models.gpt3 import GPT3Config, GPT3LMHeadModel, train_tokenizer
from treetune.models.load import LoadedModel

LEARNT = ["The film was good.", "Ein Film, der gut war.", "这部电影很好看。"] * 20


@pytest.fixture(scope="module")
def loaded(request: pytest.FixtureRequest) -> Iterator[LoadedModel]:
    """A small random model in float64 with weights large enough to matter, on one thread; the test file's WINDOW."""
    window = request.module.WINDOW
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer = train_tokenizer(LEARNT, 300, window)
    model = GPT3LMHeadModel(GPT3Config(
        vocab_size=len(tokenizer), n_positions=window, n_embd=32, n_layer=2, n_head=4, attention_band=4,
        initializer_range=0.3, bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )).double().eval()
    yield LoadedModel(model, tokenizer, window, "tiny")
    torch.set_num_threads(before)
