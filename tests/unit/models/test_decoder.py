"""Tree, packed and padded passes are one function of the weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    Qwen3Config,
)

from treetune.core.records import TokenizedExample
from treetune.models.batches import batches_of, padded_batch
from treetune.models.decoder import additive, label_log_probs, loss_sum
from treetune.models.gpt3 import GPT3Config

TOKENS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
SHAPE = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
         "max_position_embeddings": 64, "initializer_range": 0.2, **TOKENS}
CONFIGS = {
    "gpt3": lambda: GPT3Config(**SHAPE, attention_band=4),
    "gpt2": lambda: GPT2Config(**SHAPE),
    "gpt_neox": lambda: GPTNeoXConfig(**SHAPE, intermediate_size=64),
    "llama": lambda: LlamaConfig(**SHAPE, intermediate_size=64, num_key_value_heads=2),
    "qwen3": lambda: Qwen3Config(**SHAPE, intermediate_size=64, num_key_value_heads=2, head_dim=8),
}
EXACT = [("gpt3", 1e-9), ("gpt2", 1e-9), ("gpt_neox", 1e-9), ("llama", 1e-5), ("qwen3", 1e-5)]
Rows = list[TokenizedExample]


def model_of(family: str, dtype: torch.dtype = torch.float64) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[family]()).to(dtype).eval()


def loss_and_gradient(model: Any, rows: Rows, layout: str, rows_per_pass: int, budget: int) -> tuple[Any, ...]:
    model.zero_grad(set_to_none=True)
    total, count = 0.0, 0.0
    for batch in batches_of(rows, layout, rows_per_pass, budget):
        part = loss_sum(model, batch)
        part.total.backward()
        total, count = total + part.total.item(), count + part.count
    return total, count, torch.cat([weight.grad.flatten() for weight in model.parameters()])


@pytest.mark.parametrize(("family", "tolerance"), EXACT)
def test_all_layouts_give_the_loss_and_gradients_of_separate_rows(rows: Rows, family: str, tolerance: float) -> None:
    model = model_of(family)
    alone, count, gradient = loss_and_gradient(model, rows, "padded", 1, 0)
    assert count == sum(len(row.completion_ids) for row in rows)
    for layout, rows_per_pass, budget in [("padded", 10, 0), ("padded", 3, 0), ("tree", 10, 500), ("tree", 10, 20),
                                          ("tree", 4, 30), ("packed", 10, 500), ("packed", 10, 25)]:
        total, labels, own = loss_and_gradient(model, rows, layout, rows_per_pass, budget)
        assert labels == count
        assert total == pytest.approx(alone, rel=tolerance)
        assert (own - gradient).norm() / gradient.norm() < tolerance, (layout, budget)


@pytest.mark.parametrize(("family", "tolerance"), EXACT)
@pytest.mark.parametrize("layout", ["tree", "packed", "padded"])
def test_log_probabilities_of_an_example_sum_to_those_of_its_row_alone(
    rows: Rows, family: str, tolerance: float, layout: str
) -> None:
    model = model_of(family)
    sums = torch.zeros(len(rows), dtype=torch.float64)
    with torch.no_grad():
        for batch in batches_of(rows, layout, 6, 30):
            sums.index_add_(0, batch.label_example, label_log_probs(model, batch).double())
        for number, row in enumerate(rows):
            ids = torch.tensor([[*row.prompt_ids, *row.completion_ids]])
            scores = model(ids, use_cache=False).logits.log_softmax(-1)[0]
            start = len(row.prompt_ids)
            expected = sum(scores[start - 1 + k, token] for k, token in enumerate(row.completion_ids.tolist()))
            assert sums[number].item() == pytest.approx(float(expected), rel=tolerance)


def test_a_tree_computes_fewer_tokens_and_counts_those_of_the_rows(rows: Rows) -> None:
    tree = list(batches_of(rows, "tree", 10, 500))
    packed = list(batches_of(rows, "packed", 10, 500))
    assert sum(batch.num_tokens for batch in tree) < sum(batch.num_tokens for batch in packed)
    for batches in (tree, packed, list(batches_of(rows, "padded", 10, 0))):
        assert sum(batch.num_row_tokens for batch in batches) == packed[0].num_tokens


def test_rows_of_equal_length_need_no_mask(rows: Rows) -> None:
    assert padded_batch([rows[0], rows[0]]).attention_mask is None
    assert padded_batch(rows).attention_mask is not None


def test_float32_models_give_float32_and_half_models_too(rows: Rows) -> None:
    batch = next(batches_of(rows, "tree", 10, 500))
    for dtype in (torch.float32, torch.bfloat16):
        assert label_log_probs(model_of("gpt2", dtype), batch).dtype == torch.float32
    assert label_log_probs(model_of("gpt2"), batch).dtype == torch.float64


def test_rows_without_labels_have_no_loss(rows: Rows) -> None:
    prompts = [TokenizedExample(0, 0, row.prompt_ids, row.completion_ids[:0], 0) for row in rows[:2]]
    for layout in ("tree", "padded"):
        part = loss_sum(model_of("gpt3"), next(batches_of(prompts, layout, 2, 100)))
        assert (part.total.item(), part.count) == (0.0, 0.0)


def test_only_four_dimensional_masks_become_additive() -> None:
    plain = torch.ones(1, 3)
    assert additive(None, torch.float32) is None
    assert additive(plain, torch.float32) is plain
    mask = additive(torch.tensor([[[[True, False]]]]), torch.float32)
    assert mask is not None
    assert mask.flatten().tolist() == [0.0, torch.finfo(torch.float32).min]


def test_batches_move_whole(rows: Rows, make_gpt3: Callable[..., Any]) -> None:
    batch = next(batches_of(rows, "tree", 10, 500)).to(torch.device("meta"))
    assert {batch.input_ids.device.type, batch.label_weight.device.type} == {"meta"}
    assert batch.tree is not None
    assert batch.mask().device.type == "meta"  # type: ignore[union-attr]
