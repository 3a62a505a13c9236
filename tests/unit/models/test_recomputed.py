"""What is made again is what was made, bit for bit; gradients stay; and less is kept."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.autograd import gradcheck

from treetune.models import recomputed
from treetune.models.low_rank import fuse_adapters
from treetune.models.projection import use_projections
from treetune.models.recomputed import Gated, RootMeanSquare, TanhGelu, has_recipe, kept_for, recompute, tanh_gelu

IDS: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
LLAMA: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, **IDS,
}


def gpt2() -> Any:
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=64, resid_pdrop=0.0, attn_pdrop=0.0, embd_pdrop=0.0,
        activation_function="gelu", **IDS))


def gpt2_with_tanh() -> Any:
    model = gpt2()
    for block in model.transformer.h:
        block.mlp.act = nn.GELU(approximate="tanh")
    return model


MODELS: dict[str, Callable[[], Any]] = {
    "gpt2": gpt2,
    "gpt2 with tanh": gpt2_with_tanh,
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA)),
    "mistral": lambda: transformers.MistralForCausalLM(transformers.MistralConfig(**LLAMA)),
    "qwen2": lambda: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**LLAMA)),
    "qwen3": lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(head_dim=8, **LLAMA)),
}


def switched(model: Any) -> Any:
    use_projections(model)
    recompute(model)
    fuse_adapters(model)
    return model


def run(model: Any) -> tuple[int, dict[str, torch.Tensor]]:
    """Bytes that wait for the backward pass (weights not counted), and all gradients."""
    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    torch.manual_seed(1)
    ids = torch.randint(0, 60, (2, 30))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = model(input_ids=ids, labels=ids).loss
    size = sum(each.untyped_storage().nbytes() for each in kept.values())
    kept.clear()
    loss.backward()
    return size, {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft's own
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("adapted", [False, True], ids=["all weights", "LoRA"])
def test_less_is_kept_and_the_gradients_are_the_same(kind: str, adapted: bool) -> None:
    torch.manual_seed(0)
    model = MODELS[kind]()
    if adapted:
        model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", fan_in_fan_out="gpt2" in kind))
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(weight)
    before, true = run(copy.deepcopy(model))
    after, found = run(switched(model))
    assert after < 0.75 * before
    assert found.keys() == true.keys()
    for name, gradient in true.items():
        assert (found[name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-9, name


@pytest.mark.parametrize("kind", MODELS)
def test_every_recipe_makes_the_same_bits(kind: str) -> None:
    torch.manual_seed(0)
    model, seen = switched(MODELS[kind]()), []

    def look(module: nn.Module, _: Any, out: Any) -> None:
        if isinstance(out, torch.Tensor) and has_recipe(out):
            make, of = kept_for(out, wanted=True)
            assert torch.equal(make(*of), out)
            assert not any(each.requires_grad and each.grad_fn for each in of)
            seen.append(type(module).__name__)

    for module in model.modules():
        module.register_forward_hook(look)
    model(input_ids=torch.arange(40)[None])
    assert any("Norm" in name for name in seen)


def test_a_copy_of_a_model_uses_its_own_weights() -> None:
    first = switched(MODELS["llama"]())
    second = copy.deepcopy(first)
    for weight in second.parameters():
        nn.init.normal_(weight)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        silent = second(input_ids=ids).logits
    assert torch.allclose(silent, second(input_ids=ids).logits, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(silent, first(input_ids=ids).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("weight_trained", [False, True])
def test_the_norm_has_the_gradients_of_its_formula(weight_trained: bool) -> None:
    torch.manual_seed(0)
    states = torch.randn(3, 5, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(8, dtype=torch.float64, requires_grad=weight_trained)
    assert gradcheck(lambda *given: RootMeanSquare.apply(*given, 1e-5)[0], (states, weight))


def test_the_gate_has_the_gradients_of_its_formula() -> None:
    torch.manual_seed(0)
    gate, up = (torch.randn(4, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert gradcheck(Gated.apply, (gate, up))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(0,), (7,), (2, 3, 5), (1, 40)])
def test_gelu_by_portions_is_torchs(
    dtype: torch.dtype, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recomputed, "IN_CACHE", 8)
    states = torch.linspace(-30, 30, math.prod(shape), dtype=dtype).view(shape)
    true = nn.functional.gelu(states, approximate="tanh")
    rounding = torch.finfo(dtype).eps
    assert torch.allclose(tanh_gelu(states), true, rtol=4 * rounding, atol=4 * rounding)
    turned = states.T if len(shape) == 2 else states
    assert torch.equal(tanh_gelu(turned), tanh_gelu(turned.contiguous()))


def test_gelu_has_the_gradient_of_its_formula() -> None:
    torch.manual_seed(0)
    assert gradcheck(TanhGelu.apply, (torch.randn(4, 6, dtype=torch.float64, requires_grad=True),))


def test_gelu_far_from_zero_is_its_input_or_nothing() -> None:
    states = torch.tensor([-1e30, -200.0, -0.0, 0.0, 200.0, 1e30])
    assert torch.equal(tanh_gelu(states), torch.tensor([-0.0, -0.0, -0.0, 0.0, 200.0, 1e30]))


def test_nothing_is_noted_where_no_gradient_is_asked_for() -> None:
    norm = nn.LayerNorm(6)
    recompute(norm)
    with torch.no_grad():
        assert not has_recipe(norm(torch.randn(4, 6)))


def test_nothing_is_noted_under_autocast() -> None:
    norm = nn.LayerNorm(6)
    recompute(norm)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not has_recipe(norm(torch.randn(4, 6)))


def test_what_was_written_into_is_not_made_again() -> None:
    norm = nn.LayerNorm(6)
    recompute(norm)
    states = norm(torch.randn(4, 6))
    assert has_recipe(states)
    with torch.no_grad():
        states += 1.0
    assert not has_recipe(states)
    assert kept_for(states, wanted=True).of[0] is states


def test_float64_goes_through_float32_where_transformers_does() -> None:
    torch.manual_seed(0)
    model = MODELS["llama"]().double()
    norm, plain = model.model.norm, copy.deepcopy(model.model.norm)
    recompute(norm)
    states = torch.randn(4, 32, dtype=torch.float64)
    assert torch.equal(norm(states), plain(states))


def test_states_without_a_recipe_are_kept_or_not() -> None:
    states = torch.randn(4, 6)
    assert kept_for(states, wanted=True).of[0] is states
    assert not kept_for(states, wanted=False).of


def test_a_norm_without_weights_is_left_alone() -> None:
    norm = nn.LayerNorm(6, elementwise_affine=False)
    recompute(norm)
    assert "forward" not in vars(norm)
