"""Small models that explanations are tested on, in float64, and examples for them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from treetune.core.records import Example, Row
from treetune.models.engine import fullest_engine, set_up
from treetune.models.gpt3 import GPT3Config, GPT3LMHeadModel, train_tokenizer
from treetune.models.load import LoadedModel, load_model
from treetune.tasks import question_answering, sentiment, translation
from treetune.tasks.contract import TaskOptions

LEARNT = ["The film was good.", "Review: a film\nSentiment: positive", "这部电影很好看。"] * 20
WINDOW = 64
OPTIONS = TaskOptions(("positive", "negative"), "auto")


@pytest.fixture(autouse=True)
def always(one_thread: None) -> None:
    """For every test in this folder."""


@pytest.fixture(scope="session")
def decoder() -> LoadedModel:
    """Two layers of random weights large enough to matter, set up for trees."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(LEARNT, 300, WINDOW)
    model = GPT3LMHeadModel(GPT3Config(
        vocab_size=len(tokenizer), n_positions=WINDOW, n_embd=32, n_layer=2, n_head=4, attention_band=8,
        initializer_range=0.3, bos_token_id=0, eos_token_id=0, pad_token_id=0)).double().eval()
    set_up(model, fullest_engine(model))
    return LoadedModel(model, tokenizer, WINDOW, "tiny")


@pytest.fixture(scope="session")
def encoder(family_folder: Callable[..., Path]) -> Callable[[str], LoadedModel]:
    """(head) -> a random BERT with that head."""
    def get(head: str) -> LoadedModel:
        labels = list(OPTIONS.labels) if head == "classes" else []
        loaded = load_model(str(family_folder("bert")), head=head, labels=labels)
        loaded.model.double()
        return loaded

    return get


@pytest.fixture(scope="session")
def encoder_decoder(family_folder: Callable[..., Path]) -> Callable[[str], LoadedModel]:
    """(t5, bart or marian) -> a random one in float64."""
    def get(kind: str) -> LoadedModel:
        loaded = load_model(str(family_folder(kind, 128)), head="seq2seq", labels=[])
        loaded.model.double()
        return loaded

    return get


@pytest.fixture(scope="session")
def review() -> Callable[..., Example]:
    """(text, label) -> a sentiment example."""
    def make(text: str, label: str = "positive", number: int = 0) -> Example:
        row = Row({"text": text, "label": label}, "rows", 1, number, "train")
        return sentiment.example_from_row(row, OPTIONS)

    return make


@pytest.fixture(scope="session")
def asked() -> Example:
    """A question with a source that holds its answer."""
    values: dict[str, Any] = {"context": "Paris is the capital of France. It is long.", "question": "What is it?",
                              "answers": ["Paris"]}
    return question_answering.example_from_row(Row(values, "rows", 1, 0, "test"), TaskOptions())


@pytest.fixture(scope="session")
def sentence() -> Example:
    """A sentence to translate."""
    values = {"source": "A good film.", "target": "Ein guter Film.", "source_lang": "en", "target_lang": "de"}
    return translation.example_from_row(Row(values, "rows", 1, 0, "test"), TaskOptions())
