"""The pieces of the base model's benchmark that its numbers hang on: bytes of tokens, and the same bytes respelt."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from treetune.core.records import TokenizedExample
from treetune.models.corpus import blocks, document_ids
from treetune.models.gpt3 import GPT3Config, GPT3LMHeadModel, GPT3Tokenizer, train_tokenizer
from treetune.models.load import LoadedModel

TEXTS = ["The film was good, and the film was long.", "Ein schöner Film für alle.", "这部电影很好看，演员也很好。"]


@pytest.fixture(scope="module")
def bench(benchmark_module: Any) -> Any:
    return benchmark_module("base_model")


@pytest.fixture(scope="module")
def tokenizers() -> tuple[GPT3Tokenizer, GPT3Tokenizer]:
    return train_tokenizer(TEXTS * 20, 330, 64), train_tokenizer(TEXTS[:1] * 20, 270, 64)


def block_of(ids: list[int]) -> TokenizedExample:
    return TokenizedExample(0, 0, np.array(ids[:1]), np.array(ids[1:]), 0)


def test_tokens_spell_the_bytes_of_the_text(bench: Any, tokenizers: Any) -> None:
    spelling = bench.Spelling(tokenizers[0])
    for text in TEXTS:
        assert spelling.text(tokenizers[0](text)["input_ids"]) == text.encode()
    documents = document_ids(TEXTS, tokenizers[0], 10**6)
    assert spelling.text(np.concatenate(documents)) == b"".join(b"\0" + text.encode() for text in TEXTS)


@settings(deadline=None)
@given(st.text(alphabet="ab é猫\n", max_size=20), st.integers(0, 3), st.integers(0, 3))
def test_any_cut_of_utf8_is_respelt_to_the_byte(bench: Any, tokenizers: Any, text: str, head: int, tail: int) -> None:
    raw = text.encode()
    piece = raw[head : max(head, len(raw) - tail)] + b"\0" + raw
    spelling = bench.Spelling(tokenizers[1])
    assert spelling.text(spelling.ids(piece)) == piece


@settings(deadline=None)
@given(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=4), st.integers(4, 30), st.integers(4, 30))
def test_another_models_labels_spell_the_same_bytes(
    bench: Any, tokenizers: Any, texts: list[str], length: int, window: int
) -> None:
    before, after = map(bench.Spelling, tokenizers)
    for block in blocks(document_ids(texts, tokenizers[0], 10**6), length):
        made = bench.respelt(block, before, after, window)
        assert b"".join(after.text(each.completion_ids) for each in made) == before.text(block.completion_ids)
        assert after.text(made[0].prompt_ids) == before.text(block.prompt_ids)
        assert all(len(each.prompt_ids) + len(each.completion_ids) <= window + 1 for each in made)


def test_a_model_that_knows_nothing_needs_the_log_of_its_vocabulary(bench: Any, tokenizers: Any) -> None:
    tokenizer = tokenizers[0]
    model = GPT3LMHeadModel(GPT3Config(vocab_size=len(tokenizer), n_positions=64, n_embd=8, n_layer=1, n_head=1))
    for weight in model.parameters():
        torch.nn.init.zeros_(weight)
    examples = [block_of([0, *range(n)]) for n in (3, 20, 9)]
    expected = 32 * math.log2(len(tokenizer))
    assert bench.bits(LoadedModel(model, tokenizer, 64, "flat"), examples) == pytest.approx(expected, rel=1e-5)


def test_the_ngram_is_scored_on_labels_alone_and_inside_the_block(bench: Any, tokenizers: Any) -> None:
    spelling = bench.Spelling(tokenizers[0])
    made = blocks(document_ids(TEXTS, tokenizers[0], 10**6), 20)
    model = bench.ByteNgram("".join(TEXTS).encode(), 2)
    expected = 0.0
    for block in made:
        prompt, label = spelling.text(block.prompt_ids), spelling.text(block.completion_ids)
        expected -= np.log2(model.probabilities(prompt + label)[len(prompt) :]).sum()
    assert bench.ngram_bits(model, spelling, made) == pytest.approx(expected)


def test_xz_behind_the_same_text_adds_nearly_nothing(bench: Any) -> None:
    text = np.random.default_rng(0).integers(0, 256, 4000).astype(np.uint8).tobytes()
    assert bench.xz_bits(text) >= 8 * len(text)
    assert bench.xz_bits(text, text) < 0.05 * bench.xz_bits(text)


def test_what_stands_in_the_text_read_is_found_and_the_rest_not(bench: Any) -> None:
    read = "Once there was a boat on the river. " + "这部电影很好看，演员也很好。"
    found = {"copied": [read[5:31], "很好看，演员"], "free": ["zzzz qqqq boat xxxx"]}
    rows = bench.copied_table(found, read, lambda _: None)
    assert [row["share_found_whole"] for row in rows] == [1.0, 0.0]
    assert [row["characters"]["max"] for row in rows] == [26, 6]
    assert rows[0]["words"]["max"] == 6
    assert rows[1]["words"]["max"] == 1
    assert rows[0]["longest"][0] == read[5:31]
