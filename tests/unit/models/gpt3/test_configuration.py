"""The sizes of the paper."""

import pytest
import torch

from treetune.models.gpt3 import PAPER_SIZES, GPT3Config, GPT3LMHeadModel


@pytest.mark.parametrize(
    ("size", "layers", "width", "heads", "head_width"),
    [("125M", 12, 768, 12, 64), ("350M", 24, 1024, 16, 64), ("760M", 24, 1536, 16, 96), ("1.3B", 24, 2048, 24, 128),
     ("2.7B", 32, 2560, 32, 80), ("6.7B", 32, 4096, 32, 128), ("13B", 40, 5140, 40, 128),
     ("175B", 96, 12288, 96, 128)],
)
def test_table_2_1_is_kept_as_printed(size: str, layers: int, width: int, heads: int, head_width: int) -> None:
    config = GPT3Config.paper(size)
    assert (config.n_layer, config.n_embd, config.n_head, config.head_width) == (layers, width, heads, head_width)
    assert (config.n_positions, config.vocab_size, config.inner_width) == (2048, 50257, 4 * width)


def test_the_paper_has_eight_sizes_two_of_which_do_not_multiply_out() -> None:
    odd = {name for name, row in PAPER_SIZES.items() if row["n_head"] * row["d_head"] != row["n_embd"]}
    assert len(PAPER_SIZES) == 8
    assert odd == {"1.3B", "13B"}
    xl = PAPER_SIZES["1.3B"]
    assert xl["n_head"] * xl["d_head"] == 3072


@pytest.mark.parametrize(
    ("size", "low", "high"),
    [("125M", 124e6, 127e6), ("350M", 350e6, 360e6), ("760M", 755e6, 765e6), ("2.7B", 2.6e9, 2.8e9),
     ("6.7B", 6.6e9, 6.9e9), ("13B", 12.5e9, 13.5e9), ("175B", 174e9, 176e9)],
)
def test_parameter_counts_are_those_of_the_names(size: str, low: float, high: float) -> None:
    with torch.device("meta"):
        model = GPT3LMHeadModel(GPT3Config.paper(size, tie_word_embeddings=True))
    count = sum(weight.numel() for weight in {id(w): w for w in model.parameters()}.values())
    head = 50257 * GPT3Config.paper(size).n_embd
    tied = model.lm_head.weight is model.transformer.wte.weight
    assert low < count - (0 if tied else head) < high


@pytest.mark.parametrize("size", ["1.3B", "13B"])
def test_the_odd_sizes_run_when_made_narrow(size: str) -> None:
    config = GPT3Config.paper(size, n_layer=1, n_embd=20, n_head=3, d_head=8, vocab_size=11, n_positions=8)
    assert GPT3LMHeadModel(config)(torch.tensor([[1, 2]])).logits.shape == (1, 2, 11)


def test_names_and_changes_are_understood() -> None:
    assert GPT3Config.paper("XL").n_embd == 2048
    assert GPT3Config.paper("Small", n_positions=5).n_positions == 5
    with pytest.raises(ValueError, match=r"7B.*6\.7B"):
        GPT3Config.paper("7B")


def test_odd_layers_are_banded_and_dense_models_have_no_band() -> None:
    config = GPT3Config(n_layer=4, attention_band=7)
    assert [config.band_of_layer(layer) for layer in range(4)] == [None, 7, None, 7]
    assert GPT3Config(attention_pattern="dense").band_of_layer(1) is None


def test_the_names_of_transformers_reach_the_same_fields() -> None:
    config = GPT3Config(n_embd=32, n_head=2, n_layer=3, n_positions=9)
    assert (config.hidden_size, config.num_attention_heads, config.num_hidden_layers) == (32, 2, 3)
    assert config.max_position_embeddings == 9


def test_a_configuration_comes_back_from_disk_equal(tmp_path) -> None:
    config = GPT3Config.paper("13B", attention_band=5)
    config.save_pretrained(tmp_path)
    assert GPT3Config.from_pretrained(tmp_path).to_dict() == config.to_dict()
