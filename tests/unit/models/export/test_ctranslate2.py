"""CTranslate2: the logits of the model, whichever side is padded; generation as the model's own."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from treetune.core.errors import ModelError
from treetune.models.load import LoadedModel

pytest.importorskip("ctranslate2")

from treetune.models.export import ctranslate2 as form

Small = Callable[..., LoadedModel]


@pytest.fixture
def pair(small: Small, tmp_path: Path) -> tuple[LoadedModel, LoadedModel]:
    loaded = small(attention_pattern="dense")
    form.write(loaded, 48, "float32", tmp_path / "out")
    return loaded, form.read(tmp_path / "out", loaded, "float32")


@torch.no_grad()
def test_logits_are_the_models_with_padding_on_either_side(
    pair: tuple[LoadedModel, LoadedModel], rows: torch.Tensor
) -> None:
    loaded, opened = pair
    assert opened.window == 48
    truth = loaded.model(input_ids=rows[:2, :9], use_cache=False).logits
    for side in ("left", "right"):
        ids, mask = torch.zeros(2, 12, dtype=torch.long), torch.zeros(2, 12, dtype=torch.long)
        place = slice(3, 12) if side == "left" else slice(0, 9)
        ids[0, place], mask[0, place] = rows[0, :9], 1
        ids[1], mask[1] = rows[1, :12], 1
        found = opened.model(input_ids=ids, attention_mask=mask).logits
        torch.testing.assert_close(found[0, place], truth[0], atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(found[1, :9], truth[1], atol=2e-4, rtol=1e-4)
        kept = opened.model(input_ids=ids, attention_mask=mask, logits_to_keep=torch.tensor([2, 5])).logits
        torch.testing.assert_close(kept, found[:, [2, 5]])
        assert torch.equal(opened.model(input_ids=ids, attention_mask=mask, logits_to_keep=3).logits, found[:, -3:])


def test_it_writes_what_the_model_writes(pair: tuple[LoadedModel, LoadedModel], rows: torch.Tensor) -> None:
    loaded, opened = pair
    how = {"input_ids": rows[:3, :6], "attention_mask": torch.ones(3, 6, dtype=torch.long), "max_new_tokens": 8,
           "do_sample": False, "pad_token_id": 0, "eos_token_id": 0}
    assert torch.equal(opened.model.generate(**how), loaded.model.generate(**how))


@torch.no_grad()
def test_a_model_with_more_ids_than_its_tokenizer_has_tokens_is_written_whole(
    small: Small, rows: torch.Tensor, tmp_path: Path
) -> None:
    loaded = small(attention_pattern="dense", vocab_size=320)
    assert len(loaded.tokenizer) < 320
    form.write(loaded, 48, "float32", tmp_path / "out")
    opened = form.read(tmp_path / "out", loaded, "float32")
    assert len(opened.tokenizer) == len(loaded.tokenizer)  # the made-up tokens are the converter's alone
    truth = loaded.model(input_ids=rows[:2], use_cache=False).logits
    torch.testing.assert_close(opened.model(input_ids=rows[:2]).logits, truth, atol=2e-4, rtol=1e-4)


def test_weights_of_eight_bits_are_near_and_not_the_same(small: Small, rows: torch.Tensor, tmp_path: Path) -> None:
    loaded = small(attention_pattern="dense", initializer_range=0.02)
    form.write(loaded, 48, "int8", tmp_path / "out")
    with torch.no_grad():
        truth = loaded.model(input_ids=rows, use_cache=False).logits
        for computed, most in (("float32", 0.02), ("int8", 0.5)):  # without VNNI, sums of eight-bit products saturate
            found = form.read(tmp_path / "out", loaded, computed).model(input_ids=rows).logits
            assert 1e-5 < (found - truth).abs().max() / truth.abs().max() < most


def test_what_it_cannot_hold_is_refused_and_nothing_is_left(small: Small, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="E2803"):
        form.write(small(attention_band=8), 48, "float32", tmp_path / "out")
    assert not list(tmp_path.iterdir())
