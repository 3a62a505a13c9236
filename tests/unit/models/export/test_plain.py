"""GPT-3 as GPT-2: the same function where it is said to be, and refused where it is not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel

from treetune.core.errors import ModelError
from treetune.models.export.plain import as_gpt2, plain_model, refuse_banded, save_plain, why_not_gpt2
from treetune.models.gpt3 import GPT3LMHeadModel
from treetune.models.load import LoadedModel

Small = Callable[..., LoadedModel]


@torch.no_grad()
def logits(model: object, rows: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=rows, use_cache=False).logits  # type: ignore[operator]
    return found


def test_a_dense_model_is_written_exactly_and_comes_back_bit_by_bit(small: Small, rows: torch.Tensor) -> None:
    model = small(attention_pattern="dense").model
    gpt2 = as_gpt2(model, 48)
    torch.testing.assert_close(logits(gpt2, rows), logits(model, rows), atol=2e-5, rtol=1e-5)
    back = GPT3LMHeadModel.from_gpt2(gpt2).state_dict()
    assert all(torch.equal(value, back[name]) for name, value in model.state_dict().items())


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(band=st.integers(2, 48), window=st.integers(2, 48))
def test_a_band_matters_exactly_where_rows_are_longer(
    band: int, window: int, small: Small, rows: torch.Tensor
) -> None:
    model = small(attention_band=band).model
    gap = (logits(as_gpt2(model, window), rows[:, :window]) - logits(model, rows[:, :window])).abs().max()
    assert (gap < 1e-4) == (not why_not_gpt2(model.config, window))


def test_a_banded_model_is_refused_with_the_reason(small: Small) -> None:
    model = small(attention_band=8).model
    with pytest.raises(ModelError, match="E2803") as caught:
        refuse_banded(model.config, 48, "GGUF")
    assert "8 tokens back" in str(caught.value)
    assert isinstance(plain_model(model, 48), GPT3LMHeadModel)
    assert isinstance(plain_model(model, 8), GPT2LMHeadModel)


def test_heads_wider_than_the_model_are_no_gpt2(small: Small) -> None:
    assert "heads of 16" in why_not_gpt2(small(d_head=16, attention_pattern="dense").model.config, 48)


def test_the_folder_names_nothing_that_only_treetune_knows(small: Small, rows: torch.Tensor, tmp_path: Path) -> None:
    loaded = small(attention_pattern="dense")
    save_plain(plain_model(loaded.model, 32), loaded.tokenizer, 32, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "gpt2"
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["tokenizer_class"] == "GPT2Tokenizer"
    opened = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(opened) is GPT2LMHeadModel
    assert opened.config.n_positions == 32
    torch.testing.assert_close(logits(opened, rows[:, :32]), logits(loaded.model, rows[:, :32]), atol=2e-5, rtol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.model_max_length == 32
    assert tokenizer("The film was äöü 好")["input_ids"] == loaded.tokenizer("The film was äöü 好")["input_ids"]
