"""Before training, every part of the engine is proved on the model itself; what is not exact is not used."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    OpenAIGPTConfig,
    OPTConfig,
    PhiConfig,
    Qwen3Config,
)

from treetune.core.records import TokenizedExample
from treetune.models import exactness, last_layer
from treetune.models.adapters import add_lora
from treetune.models.batches import batches_of, padded_batch
from treetune.models.decoder import loss_sum
from treetune.models.engine import Engine, core_model, engine_of, fullest_engine, set_up
from treetune.models.exactness import engine_name, few_rows, prove, rows_to_prove
from treetune.models.gpt3 import GPT3Config

SHAPE = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48,
         "max_position_embeddings": 64, "initializer_range": 0.2, "bos_token_id": 0, "eos_token_id": 0,
         "pad_token_id": 0}
OLD = {"n_layer": 3, "n_head": 4, "n_embd": 32, "n_positions": 64, "vocab_size": 97, "bos_token_id": 0,
       "eos_token_id": 0, "initializer_range": 0.2}
GROUPED = {**SHAPE, "num_key_value_heads": 2}
EVERYTHING = Engine(blocks=True, own_head=True, pruned=True)
BLOCKS_AND_HEAD = Engine(blocks=True, own_head=True)
EXACT: dict[str, tuple[Callable[[], Any], Engine, float]] = {  # family -> config, engine, bound in float64
    "gpt3 with bands": (lambda: GPT3Config(**SHAPE, attention_band=5), EVERYTHING, 1e-9),
    "gpt2": (lambda: GPT2Config(**OLD), EVERYTHING, 1e-9),
    "gpt_neox": (lambda: GPTNeoXConfig(**SHAPE), BLOCKS_AND_HEAD, 1e-9),
    "phi, a head with a bias": (lambda: PhiConfig(**SHAPE), Engine(blocks=True), 1e-9),
    # norms and rotary tables of these work in float32
    "llama": (lambda: LlamaConfig(**GROUPED), EVERYTHING, 1e-5),
    "qwen3": (lambda: Qwen3Config(**GROUPED, head_dim=8), EVERYTHING, 1e-5),
    "qwen3 with windows": (lambda: Qwen3Config(**GROUPED, head_dim=8, use_sliding_window=True, sliding_window=5,
                                               max_window_layers=1), EVERYTHING, 1e-5),
    "mistral with windows": (lambda: MistralConfig(**GROUPED, sliding_window=5), EVERYTHING, 1e-5),
    "gemma3 with windows": (
        lambda: Gemma3TextConfig(**GROUPED, head_dim=8, sliding_window=5, layer_types=[
            "sliding_attention", "sliding_attention", "full_attention"]), BLOCKS_AND_HEAD, 1e-5),
}
FALL_BACK: dict[str, tuple[Callable[[], Any], str, str]] = {  # family -> config, layout, what its refusal must name
    "gpt_neo with windows": (lambda: GPTNeoConfig(
        vocab_size=97, hidden_size=32, num_layers=2, num_heads=4, max_position_embeddings=64, window_size=5,
        attention_types=[[["global", "local"], 1]], bos_token_id=0, eos_token_id=0, initializer_range=0.2),
        "packed", "(local)"),
    "openai-gpt": (lambda: OpenAIGPTConfig(**OLD), "padded", ""),
    "mamba": (lambda: MambaConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, state_size=4, bos_token_id=0,
                                  eos_token_id=0, pad_token_id=0), "padded", ""),
    "gemma2, soft caps and windows": (lambda: Gemma2Config(**GROUPED, head_dim=8, sliding_window=5),
                                      "padded", "(sliding_attention)"),
}
Rows = list[TokenizedExample]


def model_of(config: Any, dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).to(dtype)


def gradients(model: Any, rows: Rows, layout: str, rows_per_pass: int = 32) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    model.eval()
    for batch in batches_of(rows, layout, rows_per_pass, 60):
        loss_sum(model, batch).total.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("family", EXACT)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_families_run_over_trees_with_the_gradients_of_their_rows(rows: Rows, family: str, dtype: torch.dtype) -> None:
    config, engine, bound = EXACT[family]
    bound = bound if dtype == torch.float64 else 1e-5
    model = model_of(config(), dtype)
    truth = gradients(model, rows, "padded", 1)
    proof = prove(model, rows, "tree", 60)
    assert (proof.layout, proof.engine, proof.refused) == ("tree", engine, ())
    assert proof.difference <= bound
    ours = gradients(model, rows, "tree")
    size = sum(float(grad.norm()) ** 2 for grad in truth.values()) ** 0.5
    assert sum(float((ours[name] - truth[name]).norm()) ** 2 for name in truth) ** 0.5 / size <= bound


@pytest.mark.parametrize("family", FALL_BACK)
def test_models_that_cannot_branch_get_rows_that_they_can_and_the_reason_is_named(rows: Rows, family: str) -> None:
    config, layout, named = FALL_BACK[family]
    model = model_of(config(), torch.float32)
    truth = gradients(model, rows, "padded", 1)
    proof = prove(model, rows, "tree", 60)
    assert proof.layout == layout
    assert proof.refused[0][0].startswith("tree")
    assert named in proof.refused[0][2]
    ours = gradients(model, rows, layout)
    for name in truth:
        assert torch.allclose(ours[name], truth[name], rtol=1e-3, atol=1e-4), name


def test_a_wrong_part_is_left_out_and_the_rest_is_used(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    right = last_layer.gpt2_block

    def wrong(*args: Any, **kwargs: Any) -> torch.Tensor:
        states = right(*args, **kwargs)
        return states * torch.linspace(1, 1.1, states.shape[-1])

    monkeypatch.setattr(last_layer, "gpt2_block", wrong)
    proof = prove(model_of(GPT2Config(**OLD), torch.float32), rows, "tree", 60)
    assert (proof.layout, proof.engine) == ("tree", BLOCKS_AND_HEAD)
    assert [what for what, _, _ in proof.refused] == ["tree blocks+own_head+pruned"]
    assert "(gpt2)" in proof.refused[0][2]


def test_gradients_that_are_no_numbers_are_not_exact(rows: Rows, make_gpt3: Callable[..., Any]) -> None:
    model = make_gpt3()
    with torch.no_grad():
        model.transformer.h[0].mlp.c_fc.weight[0, 0] = float("nan")
    proof = prove(model, rows, "tree", 60)
    assert (proof.layout, proof.engine) == ("padded", Engine())


def test_adapters_are_proved_through_their_wrapper(rows: Rows) -> None:
    for config in (GPT2Config(**OLD), LlamaConfig(**GROUPED), GPT3Config(**SHAPE, attention_band=5)):
        model = add_lora(model_of(config, torch.float64), 2, 4, 0.0)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.normal_()
        truth = gradients(model, rows, "padded", 1)
        proof = prove(model, rows, "tree", 60)
        assert (proof.layout, proof.engine) == ("tree", EVERYTHING)
        ours = gradients(model, rows, "tree")
        assert truth.keys() == ours.keys()
        assert all("lora" in name for name in ours)
        flat = [torch.cat([grads[name].flatten() for name in truth]) for grads in (ours, truth)]
        assert (flat[0] - flat[1]).norm() / flat[1].norm() < 1e-5


@pytest.mark.parametrize("config", [GPT2Config(**OLD), LlamaConfig(**GROUPED), GPT3Config(**SHAPE, attention_band=5)],
                         ids=["gpt2", "llama", "gpt3"])
def test_activation_checkpointing_sees_the_same_tree(rows: Rows, config: Any) -> None:
    gradient = []
    for recompute in (False, True):
        model = model_of(config, torch.float64)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        for layer in model.modules():  # GPT-2 reads the rate of its attention from the module's own p
            if hasattr(layer, "dropout") and isinstance(layer.dropout, float):
                layer.dropout = 0.0
        set_up(model, fullest_engine(model))
        if recompute:
            model.activation_checkpointing_enable()
        model.train()
        for batch in batches_of(rows, "tree", 32, 60):
            loss_sum(model, batch).total.backward()
        gradient.append(torch.cat([weight.grad.flatten() for weight in model.parameters()]))
    assert torch.allclose(*gradient, rtol=1e-9, atol=1e-12)


def test_a_model_that_was_set_up_answers_calls_without_a_tree_as_before(rows: Rows) -> None:
    ids = torch.tensor([[4, 8, 15, 16, 23, 42], [0, 0, 4, 8, 15, 16]])
    mask = torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]])
    for config in (GPT2Config(**OLD), LlamaConfig(**GROUPED), Gemma3TextConfig(**GROUPED, head_dim=8)):
        model = model_of(config, torch.float64).eval()
        before = model(input_ids=ids, attention_mask=mask).logits[mask.bool()]
        set_up(model, fullest_engine(model))
        with torch.no_grad():
            loss_sum(model, next(batches_of(rows, "tree", 32, 500)))
        after = model(input_ids=ids, attention_mask=mask).logits[mask.bool()]
        assert torch.allclose(before, after, atol=1e-6)
        assert "treetune" not in model.config.to_json_string()


def test_the_rows_to_prove_are_the_longest_and_their_neighbours(rows: Rows) -> None:
    chosen = rows_to_prove(rows, 2)
    longest = max(rows, key=lambda row: len(row.prompt_ids) + len(row.completion_ids))
    assert any(each is longest for each in chosen)
    assert 2 <= len(chosen) <= 4
    assert len({id(each) for each in rows_to_prove(rows, 99)}) == len(rows)
    one = [TokenizedExample(0, 0, np.array([1, 2]), np.array([3]), 0)]
    assert rows_to_prove(one) == one


def test_short_rows_are_joined_by_others_until_a_pack_is_full(rows: Rows) -> None:
    many = [TokenizedExample(n, 0, np.arange(n % 7 + 2), np.array([1]), 0) for n in range(500)]
    assert sum(len(row.prompt_ids) for row in rows_to_prove(many, 2, 200)) >= 200
    assert len(rows_to_prove(many, 2, 200)) < 100


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 12)), min_size=1, max_size=25), st.integers(1, 200),
       st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_a_few_rows_at_a_time_are_all_rows_once_and_never_too_many(
    sizes: list[tuple[int, int]], max_tokens: int, max_logits: int
) -> None:
    made = [TokenizedExample(n, 0, np.arange(prompt), np.arange(answer), 0) for n, (prompt, answer) in enumerate(sizes)]
    parts = list(few_rows(made, max_tokens, max_logits))
    assert sorted(each.row for part in parts for each in part) == list(range(len(made)))
    for part in parts:
        batch = padded_batch(part)
        columns = len(np.unique(batch.label_index.numpy() % batch.input_ids.shape[1]))
        assert len(part) == 1 or (batch.num_tokens <= max_tokens and len(part) * columns <= max_logits)


@pytest.mark.parametrize("layout", ["tree", "padded"])
def test_no_pass_of_the_proof_is_larger_than_one_of_training(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chance, vocabulary, window = np.random.default_rng(0), 97, 60
    many = [TokenizedExample(n, 0, chance.integers(0, vocabulary, 3 + n % 20),
                             chance.integers(0, vocabulary, 1 + n % 4), 0) for n in range(40)]
    monkeypatch.setattr(exactness, "rows_of_chunk", lambda _: 12)
    logits: list[int] = []
    tokens: list[int] = []

    def watch(module: Any, given: Any, found: Any) -> None:
        logits.append(found.shape[:-1].numel())

    model = model_of(GPT2Config(**OLD), torch.float64)
    model.lm_head.register_forward_hook(watch)
    model.transformer.h[0].register_forward_pre_hook(
        lambda module, given: tokens.append(given[0].shape[:-1].numel()))
    truth = gradients(model, many, "padded", 1)
    logits.clear()
    tokens.clear()
    proof = prove(model, many, layout, window)
    assert proof.layout == layout
    assert proof.difference <= 1e-9
    assert len(tokens) > 40 * 3 // window
    assert max(tokens) <= window
    assert max(logits) <= 12
    ours = gradients(model, many, "padded", 1)
    assert all(torch.allclose(ours[name], truth[name], rtol=1e-9, atol=1e-12) for name in truth)


@pytest.mark.parametrize("config", [GPT2Config(**OLD), GPT3Config(**SHAPE, attention_band=5, resid_pdrop=0.1),
                                    OPTConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, ffn_dim=48,
                                              num_attention_heads=4, max_position_embeddings=64, word_embed_proj_dim=32,
                                              dropout=0.1)], ids=["gpt2", "gpt3", "opt"])
def test_layers_that_recompute_in_training_do_so_in_the_proof_and_nothing_is_dropped(rows: Rows, config: Any) -> None:
    model = model_of(config, torch.float64)
    calls = []
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.register_forward_hook(lambda *_: calls.append(1))
    counted = []
    for recompute in (False, True):
        if recompute:
            model.activation_checkpointing_enable()
        calls.clear()
        proof = prove(model, rows, "padded", 60)
        assert proof.difference <= 1e-9
        counted.append(len(calls))
    assert all(module.training for module in model.modules())  # as it was
    assert (counted[1] > counted[0]) == (config.model_type != "opt")  # OPT drops values in the layer itself


def test_an_engine_has_a_name_and_weaker_ones_that_end_in_the_plain_way() -> None:
    assert engine_name(Engine()) == "mask"
    assert engine_name(EVERYTHING) == "blocks+own_head+pruned"
    assert EVERYTHING.less() == [BLOCKS_AND_HEAD, Engine(blocks=True), Engine()]
    assert replace(EVERYTHING, flex=True).less()[0] == EVERYTHING
    assert Engine().less() == []


def test_the_engine_is_kept_with_the_model(make_gpt3: Callable[..., Any]) -> None:
    model = make_gpt3()
    assert engine_of(model) == Engine()
    set_up(model, EVERYTHING)
    assert engine_of(model) == EVERYTHING
    assert core_model(model) is model
