"""Prompts read as one tree continue as each would alone."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, LlamaConfig, MistralConfig, Qwen3Config

from treetune.core.records import TokenizedExample
from treetune.models.batches import tree_batch
from treetune.models.engine import fullest_engine, set_up
from treetune.models.gpt3 import GPT3Config
from treetune.predict.shared import greedy_shared, path_to, read_prompts, repeats
from treetune.trees import build_tree

SHAPE = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
         "max_position_embeddings": 64, "initializer_range": 0.3, "bos_token_id": 0, "eos_token_id": 0,
         "pad_token_id": 0}
CONFIGS = {
    "gpt3": lambda: GPT3Config(**SHAPE, attention_band=5),
    "gpt2": lambda: GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3,
                               bos_token_id=0, eos_token_id=0),
    "gpt_neox": lambda: GPTNeoXConfig(**SHAPE),
    "llama": lambda: LlamaConfig(**SHAPE, num_key_value_heads=2),
    "mistral": lambda: MistralConfig(**SHAPE, num_key_value_heads=2, sliding_window=5),
    "qwen3": lambda: Qwen3Config(**SHAPE, num_key_value_heads=2, head_dim=8),
}
NEW = 12


def rows_of() -> list[TokenizedExample]:
    random = np.random.default_rng(1)
    shared = random.integers(1, 61, 15)
    tails = [random.integers(1, 61, length) for length in (1, 3, 3, 7)]
    prompts = [*(np.concatenate([shared, tail]) for tail in tails), shared, shared[:4], shared,
               random.integers(1, 61, 9)]
    return [TokenizedExample(n, 0, prompt, np.zeros(0, dtype=np.int64), 0) for n, prompt in enumerate(prompts)]


def alone(model: Any, prompt: list[int], end: int) -> tuple[list[int], list[float]]:
    ids, logs = list(prompt), []
    while len(logs) < NEW and (not logs or ids[-1] != end):
        step = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].log_softmax(-1)
        ids.append(int(step.argmax()))
        logs.append(float(step.max()))
    return ids[len(prompt) :], logs


@pytest.mark.parametrize("family", CONFIGS)
@torch.no_grad()
def test_every_row_goes_on_as_it_would_alone(family: str) -> None:
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(CONFIGS[family]()).double().eval()
    rows = rows_of()
    written = [alone(model, row.prompt_ids.tolist(), -1)[0] for row in rows]
    end = written[0][4]  # some rows end early, at different steps
    expected = [alone(model, row.prompt_ids.tolist(), end) for row in rows]
    assert len({len(ids) for ids, _ in expected}) > 1
    set_up(model, fullest_engine(model))
    for (ids, logs), (wanted_ids, wanted_logs) in zip(greedy_shared(model, rows, NEW, end), expected, strict=True):
        assert ids == wanted_ids
        assert logs == pytest.approx(wanted_logs, abs=1e-5)


@torch.no_grad()
def test_shared_tokens_are_read_once() -> None:
    model = AutoModelForCausalLM.from_config(CONFIGS["gpt3"]()).eval()
    set_up(model, fullest_engine(model))
    rows = [TokenizedExample(row.row, 0, row.prompt_ids, np.zeros(1, dtype=np.int64), 0) for row in rows_of()]
    batch = tree_batch(build_tree(rows))
    cache, logits = read_prompts(model, batch)
    assert cache.get_seq_length() == batch.num_tokens < batch.num_row_tokens
    assert logits.shape == (len(rows), 61)
    paths = [path_to(batch, row) for row in range(len(rows))]
    assert [batch.input_ids[0, path].tolist() for path in paths] == [row.prompt_ids.tolist() for row in rows]


@torch.no_grad()
def test_a_row_that_is_not_wanted_any_more_leaves_and_the_others_go_on() -> None:
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(CONFIGS["llama"]()).double().eval()
    rows = rows_of()
    expected = [alone(model, row.prompt_ids.tolist(), -1)[0] for row in rows]
    set_up(model, fullest_engine(model))
    told: list[int] = []

    def on_token(row: int, token: int) -> bool:
        told.append(row)
        return row % 2 == 0 or told.count(row) < 3

    found = [ids for ids, _ in greedy_shared(model, rows, NEW, -1, on_token)]
    assert found == [ids if row % 2 == 0 else ids[:3] for row, ids in enumerate(expected)]


@given(st.lists(st.integers(0, 3), max_size=14), st.integers(1, 4), st.integers(0, 3))
def test_a_token_is_barred_when_its_run_was_there_before(written: list[int], size: int, token: int) -> None:
    after = [*written, token]
    runs = [tuple(after[place : place + size]) for place in range(len(after) - size + 1)]
    again = len(runs) > 1 and runs[-1] in runs[:-1]
    assert (token in repeats(written, size)) == again


@pytest.mark.parametrize("family", ["gpt3", "llama"])
@torch.no_grad()
def test_no_run_of_tokens_comes_twice_and_else_it_is_the_likeliest(family: str) -> None:
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(CONFIGS[family]()).double().eval()
    rows = rows_of()
    free = [alone(model, row.prompt_ids.tolist(), -1)[0] for row in rows]
    assert any(len(set(ids)) < len(ids) for ids in free)
    set_up(model, fullest_engine(model))
    for row, (ids, logs) in zip(rows, greedy_shared(model, rows, NEW, -1, no_repeat_ngram_size=1), strict=True):
        assert len(set(ids)) == len(ids) == NEW
        for place, token in enumerate(ids):
            step = model(input_ids=torch.tensor([row.prompt_ids.tolist() + ids[:place]]), use_cache=False)
            values = step.logits[0, -1].log_softmax(-1)
            assert logs[place] == pytest.approx(float(values[token]), abs=1e-5)
            assert all(float(values[other]) <= float(values[token]) for other in range(61) if other not in ids[:place])
