"""A model that was set up can be copied: the copy runs on its own weights."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from treetune.models.engine import fullest_engine, set_up
from treetune.models.gpt3 import GPT3Config, GPT3LMHeadModel

IDS = {"bos_token_id": 0, "eos_token_id": 0}


def model_of(family: str) -> Any:
    if family == "gpt3":
        return GPT3LMHeadModel(GPT3Config(vocab_size=50, n_positions=32, n_embd=16, n_layer=2, n_head=2, **IDS))
    if family == "gpt2":
        return GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=32, n_embd=16, n_layer=2, n_head=2, **IDS))
    return LlamaForCausalLM(LlamaConfig(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                                        num_attention_heads=2, num_key_value_heads=2, pad_token_id=0, **IDS))


@pytest.mark.parametrize("family", ["gpt3", "gpt2", "llama"])
@pytest.mark.parametrize("adapted", [False, True], ids=["all weights", "LoRA"])
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft's own
def test_a_copy_runs_on_its_own_weights_in_every_layer(family: str, adapted: bool) -> None:
    torch.manual_seed(0)
    model = model_of(family).eval()
    if adapted:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", fan_in_fan_out=family == "gpt2"))
    twin = copy.deepcopy(model)
    set_up(model, fullest_engine(model))
    other = copy.deepcopy(model)
    for changed in (other, twin):
        torch.manual_seed(1)
        for weight in changed.parameters():
            nn.init.normal_(weight, std=0.2)
    ids = torch.arange(1, 20)[None]
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            assert torch.allclose(other(input_ids=ids).logits, twin(input_ids=ids).logits, rtol=1e-4, atol=1e-4)
