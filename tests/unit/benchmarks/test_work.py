"""The needed operations of a step, against a count by hand and against torch's own counter."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from treetune.core.records import TokenizedExample

pytestmark = pytest.mark.usefixtures("benchmark_module")  # the scripts can be imported


def row(prompt: list[int], completion: list[int]) -> TokenizedExample:
    return TokenizedExample(0, 0, np.array(prompt), np.array(completion), 0)


def test_the_count_is_that_of_the_hand() -> None:
    from work import Dimensions, needed_flops

    shape = Dimensions(key_value=2, others=3, query_width=4, width=5, vocabulary=7, bands=(None, 2))
    rows = [row([1, 2, 3], [4]), row([1, 2, 3], [5, 6])]  # four unique tokens, labels behind the last two
    first = 6 * (2 * 4 + 3 * 4) + 12 * 4 * (1 + 2 + 3 + 4)
    last = 6 * (2 * 4 + 3 * 2) + 12 * 4 * (2 + 2)
    assert needed_flops(shape, rows, all_weights=True) == first + last + 6 * 5 * 7 * 2
    few = Dimensions(key_value=200, others=3, query_width=4, width=5, vocabulary=7, bands=(2,), joint_heads=2)
    without_keys = 6 * (200 * 2 + 3 * 2) + 12 * 2 * 5 * (2 + 2) + 6 * 5 * 7 * 2
    assert needed_flops(few, rows, all_weights=True) == without_keys
    frozen = 4 * (2 * 4 + 3 * 4) + 12 * 4 * 10 + 4 * (2 * 4 + 3 * 2) + 12 * 4 * 4 + 4 * 5 * 7 * 2
    assert needed_flops(shape, rows, all_weights=False) == frozen


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_row_of_labels_needs_what_torch_counts_but_for_the_masked_half(kind: str) -> None:
    from work import dimensions_of, needed_flops

    if kind == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=16, n_embd=32, n_layer=2, n_head=2,
                                           attn_implementation="eager"))
    else:
        model = LlamaForCausalLM(LlamaConfig(
            vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=16, attn_implementation="eager"))
    length = 8
    ids = torch.arange(length)[None]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=ids, use_cache=False)
    shape = dimensions_of(model)
    needed = needed_flops(shape, [row([0], list(range(1, length + 1)))], all_weights=True) / 3
    masked = 2 * 4 * 32 * (length * length - length * (length + 1) / 2)  # two layers, two products, pairs not allowed
    rotary = 2 * 4 * length if kind == "llama" else 0  # its table of angles is a product of outer form
    assert counter.get_total_flops() == pytest.approx(needed + masked + rotary, abs=rotary * 2)
