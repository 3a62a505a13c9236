"""Byte-level BPE: any text comes back."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from treetune.models.gpt3 import GPT3Tokenizer, train_tokenizer


@given(text=st.text(st.characters(exclude_categories=("Cs",)), max_size=60))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_comes_back(tokenizer: GPT3Tokenizer, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


@pytest.mark.parametrize("text", ["这部电影很好看。", "繁體字", "a  b\n\n\tc ", " , . ' s", "👩‍👩‍👧 é é", "\x00"])
def test_hard_texts_come_back_by_default_options(tokenizer: GPT3Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_the_vocabulary_has_the_size_asked_for(tokenizer: GPT3Tokenizer) -> None:
    assert len(tokenizer) == 300
    assert tokenizer.vocab_size == 300


def test_bytes_and_end_of_text_are_always_there() -> None:
    smallest = train_tokenizer(["ab"], 257, 8)
    assert len(smallest) == 257
    assert smallest.decode(smallest("中").input_ids) == "中"
    assert len(smallest("中").input_ids) == 3


def test_frequent_chinese_is_shorter_than_its_bytes(tokenizer: GPT3Tokenizer) -> None:
    assert len(tokenizer("这部电影").input_ids) < len("这部电影".encode())


def test_one_token_ends_begins_and_pads(tokenizer: GPT3Tokenizer) -> None:
    assert tokenizer.eos_token == tokenizer.bos_token == tokenizer.pad_token == "<|endoftext|>"
    assert tokenizer("a").input_ids == tokenizer("a", add_special_tokens=False).input_ids


def test_training_is_repeatable() -> None:
    texts = ["the cat sat on the mat", "the dog"] * 5
    assert train_tokenizer(texts, 280, 8).get_vocab() == train_tokenizer(texts, 280, 8).get_vocab()


def test_a_tokenizer_comes_back_from_disk(tokenizer: GPT3Tokenizer, tmp_path) -> None:
    tokenizer.save_pretrained(tmp_path)
    again = GPT3Tokenizer.from_pretrained(tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again("The film 很好").input_ids == tokenizer("The film 很好").input_ids
