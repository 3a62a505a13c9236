"""The decoder against GPT-2, against itself without cache, and against its band."""

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from treetune.models.cache_name import CACHE
from treetune.models.gpt3 import GPT3LMHeadModel, GPT3Tokenizer, modeling
from treetune.models.gpt3.modeling import allowed_pairs

Make = Callable[..., GPT3LMHeadModel]


def random_ids(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, 97, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("tied", [True, False])
def test_a_gpt2_computes_the_same_as_a_gpt3(tied: bool) -> None:
    torch.manual_seed(0)
    old = GPT2LMHeadModel(GPT2Config(vocab_size=97, n_positions=32, n_embd=32, n_layer=2, n_head=4, bos_token_id=0,
                                     eos_token_id=0, initializer_range=0.2, tie_word_embeddings=tied)).eval()
    new = GPT3LMHeadModel.from_gpt2(old)
    ids = random_ids(3, 17)
    mask = torch.ones_like(ids)
    mask[0, 12:] = 0
    for options in ({}, {"attention_mask": mask}):
        difference = (old(ids, **options).logits - new(ids, **options).logits).abs()
        assert difference[options["attention_mask"].bool() if options else ...].max() < 1e-5
    assert torch.allclose(old(ids, labels=ids).loss, new(ids, labels=ids).loss, atol=1e-6)


@pytest.mark.parametrize("change", [{"scale_attn_by_inverse_layer_idx": True}, {"scale_attn_weights": False}])
def test_a_gpt2_that_is_no_gpt3_is_refused(change: dict[str, bool]) -> None:
    odd = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_positions=8, n_embd=8, n_layer=1, n_head=1, bos_token_id=0,
                                     eos_token_id=0, **change))
    with pytest.raises(ValueError, match="GPT-3"):
        GPT3LMHeadModel.from_gpt2(odd)


def without_cache(model: GPT3LMHeadModel, ids: torch.Tensor, count: int) -> list[int]:
    for _ in range(count):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
    return ids[0, -count:].tolist()


@pytest.mark.parametrize("pattern", ["alternating", "dense"])
def test_cached_generation_of_left_padded_rows_equals_each_row_alone_without_cache(
    make_gpt3: Make, pattern: str
) -> None:
    model = make_gpt3(attention_pattern=pattern)
    ids = random_ids(3, 11)
    mask = torch.ones_like(ids)
    mask[0, :7], mask[2, :2] = 0, 0
    ids = ids * mask
    out = model.generate(ids, attention_mask=mask, max_new_tokens=12, do_sample=False, eos_token_id=None,
                         pad_token_id=0)
    for row in range(3):
        assert out[row, 11:].tolist() == without_cache(model, ids[row : row + 1, mask[row].bool()], 12)


def test_beam_search_is_the_same_with_and_without_cache(make_gpt3: Make) -> None:
    model = make_gpt3()
    outs = [model.generate(random_ids(2, 6), max_new_tokens=8, num_beams=3, do_sample=False, use_cache=cache,
                           eos_token_id=None, pad_token_id=0, attention_mask=torch.ones(2, 6, dtype=torch.long))
            for cache in (True, False)]
    assert torch.equal(*outs)


def test_arguments_nobody_knows_are_refused_not_overlooked(make_gpt3: Make) -> None:
    model, ids = make_gpt3(), random_ids(1, 4)
    for callee in (model, model.transformer):
        with pytest.raises(TypeError, match="token_type_ids"):
            callee(ids, token_type_ids=ids)


@pytest.mark.parametrize("name", ["past_key_values", "cache"])
def test_several_tokens_on_top_of_a_cache_equal_one_pass(make_gpt3: Make, name: str) -> None:
    model = make_gpt3()
    ids = random_ids(2, 13)
    whole = model(ids).logits
    first = model(ids[:, :6], use_cache=True)
    rest = model(ids[:, 6:], use_cache=True, **{name: first[CACHE]})
    assert torch.allclose(torch.cat([first.logits, rest.logits], 1), whole, atol=1e-5)


def test_a_band_lets_a_token_see_itself_and_the_ones_just_before() -> None:
    allowed = allowed_pairs(torch.arange(6)[None], None, 6, 3)
    assert allowed is not None
    expected = [[0 <= query - key < 3 for key in range(6)] for query in range(6)]
    assert allowed[0, 0].tolist() == expected


def test_plain_causal_attention_needs_no_mask() -> None:
    positions = torch.arange(6)[None]
    assert allowed_pairs(positions, None, 6, None) is None
    assert allowed_pairs(positions, torch.ones(1, 6, dtype=torch.long), 6, 6) is None
    assert allowed_pairs(positions, None, 6, 5) is not None


def test_padding_is_seen_by_nobody_but_itself() -> None:
    mask = torch.tensor([[0, 0, 1, 1]])
    allowed = allowed_pairs(torch.arange(4)[None], mask, 4, None)
    assert allowed is not None
    assert allowed[0, 0].int().tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]


def test_new_tokens_see_cached_ones_within_the_band() -> None:
    allowed = allowed_pairs(torch.tensor([[4, 5]]), None, 6, 3)
    assert allowed is not None
    assert allowed[0, 0].int().tolist() == [[0, 0, 1, 1, 1, 0], [0, 0, 0, 1, 1, 1]]


@pytest.mark.parametrize("additive", [False, True])
def test_in_a_tree_the_band_is_measured_along_the_branch(additive: bool) -> None:
    # 0 -> 1 -> 2 and 1 -> 3: token 3 stands at depth 2
    ancestor = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]], dtype=torch.bool)[None, None]
    mask = torch.zeros(ancestor.shape).masked_fill(~ancestor, -1e9) if additive else ancestor
    allowed = allowed_pairs(torch.tensor([[0, 1, 2, 2]]), mask, 4, 2)
    assert allowed is not None
    assert allowed[0, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 1, 0, 1]]
    dense = allowed_pairs(torch.tensor([[0, 1, 2, 2]]), mask, 4, None)
    assert dense is not None
    assert torch.equal(dense, ancestor)


def test_a_banded_layer_is_deaf_to_what_lies_outside_its_band(make_gpt3: Make) -> None:
    model = make_gpt3()
    allowed = allowed_pairs(torch.arange(10)[None], None, 10, model.config.attention_band)
    banded = model.transformer.h[1]
    hidden = torch.randn(1, 10, 32, generator=torch.Generator().manual_seed(1))
    changed = hidden.clone()
    changed[0, 2] += 1
    moved = (banded(hidden, allowed, None, False)[0] - banded(changed, allowed, None, False)[0]).abs().amax(-1)[0] > 0
    assert moved.tolist() == [2 <= place < 2 + 4 for place in range(10)]


def test_no_token_sees_the_future(make_gpt3: Make) -> None:
    model = make_gpt3()
    ids = random_ids(1, 12)
    changed = ids.clone()
    changed[0, 7] = (ids[0, 7] + 1) % 97
    same = (model(ids).logits == model(changed).logits).all(-1)[0]
    assert same[:7].all()
    assert not same[7]


def test_right_padding_does_not_touch_the_real_tokens(make_gpt3: Make) -> None:
    model = make_gpt3()
    ids = random_ids(1, 8)
    padded = torch.cat([ids, torch.zeros(1, 5, dtype=torch.long)], 1)
    mask = (torch.arange(13) < 8).long()[None]
    assert torch.allclose(model(padded, attention_mask=mask).logits[:, :8], model(ids).logits, atol=1e-5)


def test_attention_maps_are_those_of_the_fast_path(make_gpt3: Make) -> None:
    model = make_gpt3()
    ids = random_ids(2, 9)
    shown = model(ids, output_attentions=True, output_hidden_states=True)
    assert torch.allclose(shown.logits, model(ids).logits, atol=1e-5)
    assert len(shown.attentions) == 2
    assert len(shown.hidden_states) == 3
    assert torch.allclose(shown.attentions[0].sum(-1), torch.ones(2, 4, 9), atol=1e-5)
    assert (shown.attentions[1][..., 8, :5] == 0).all()


@pytest.mark.parametrize("keep", [1, 3, torch.tensor([0, 5, 6])])
def test_logits_are_computed_only_where_asked(make_gpt3: Make, keep: Any) -> None:
    model = make_gpt3()
    ids = random_ids(2, 7)
    whole = model(ids).logits
    expected = whole[:, keep] if isinstance(keep, torch.Tensor) else whole[:, -keep:]
    assert torch.allclose(model(ids, logits_to_keep=keep).logits, expected, atol=1e-6)


def test_a_row_longer_than_the_context_is_refused(make_gpt3: Make) -> None:
    with pytest.raises(ValueError, match="n_positions=64"):
        make_gpt3()(random_ids(1, 65))


def test_ids_and_embeddings_exclude_each_other(make_gpt3: Make) -> None:
    model = make_gpt3()
    embedded = model.get_input_embeddings()(random_ids(1, 4))
    assert torch.allclose(model(inputs_embeds=embedded).logits, model(random_ids(1, 4)).logits, atol=1e-6)
    with pytest.raises(ValueError, match="exactly one"):
        model(random_ids(1, 4), inputs_embeds=embedded)
    with pytest.raises(ValueError, match="exactly one"):
        model()


def test_the_loss_without_labels_is_that_of_the_input_as_labels(make_gpt3: Make) -> None:
    model = make_gpt3()
    ids = random_ids(2, 9)
    loss = model(ids).loss
    assert torch.allclose(loss, model(ids, labels=ids).loss, atol=1e-6)
    loss.backward()
    assert model.transformer.wte.weight.grad is not None


def test_the_loss_is_computed_when_it_is_read_and_once(make_gpt3: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = modeling.next_token_loss
    monkeypatch.setattr(modeling, "next_token_loss", lambda *given: calls.append(1) or real(*given))
    outputs = make_gpt3()(random_ids(1, 5))
    assert outputs.logits.shape == (1, 5, 97)
    assert not calls
    first = outputs.loss
    assert outputs.loss is first
    assert len(calls) == 1


def test_a_single_token_has_no_loss_and_reading_it_changes_nothing(make_gpt3: Make) -> None:
    outputs = make_gpt3()(random_ids(1, 1))
    before = list(outputs.keys())
    assert outputs.loss is None
    assert list(outputs.keys()) == before


def test_selected_logits_have_no_implied_loss(make_gpt3: Make) -> None:
    assert make_gpt3()(random_ids(1, 5), logits_to_keep=2).loss is None


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_has_no_part_in_the_loss(make_gpt3: Make, side: str) -> None:
    model = make_gpt3()
    ids = random_ids(1, 6)
    pad, keep = torch.zeros(1, 3, dtype=torch.long), torch.ones_like(ids)
    order = (pad, ids) if side == "left" else (ids, pad)
    mask = torch.cat((pad, keep) if side == "left" else (keep, pad), 1)
    assert torch.allclose(model(torch.cat(order, 1), attention_mask=mask).loss, model(ids).loss, atol=1e-5)


def test_a_tuple_comes_back_when_asked_for(make_gpt3: Make) -> None:
    ids = random_ids(1, 4)
    loss, logits = make_gpt3()(ids, labels=ids, return_dict=False)[:2]
    assert loss.dim() == 0
    assert logits.shape == (1, 4, 97)


def test_model_and_tokenizer_come_back_through_the_auto_classes(
    make_gpt3: Make, tokenizer: GPT3Tokenizer, tmp_path: Path
) -> None:
    model = make_gpt3()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(loaded, GPT3LMHeadModel)
    assert torch.equal(loaded(random_ids(1, 9)).logits, model(random_ids(1, 9)).logits)
    assert loaded.lm_head.weight is loaded.transformer.wte.weight
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(again, GPT3Tokenizer)
    assert again("这部电影 good").input_ids == tokenizer("这部电影 good").input_ids
    assert not list(tmp_path.glob("*.bin"))


def test_a_weight_missing_from_a_file_leaves_the_others_as_saved(make_gpt3: Make, tmp_path: Path) -> None:
    model = make_gpt3()
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    del weights["transformer.h.0.mlp.c_fc.weight"], weights["transformer.h.1.attn.c_attn.bias"]
    save_file(weights, file, {"format": "pt"})
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    for name in ("transformer.h.0.mlp.c_proj.weight", "transformer.h.1.attn.c_proj.weight", "transformer.wpe.weight"):
        assert torch.equal(loaded.state_dict()[name], model.state_dict()[name]), name


def test_projections_into_the_residual_stream_start_smaller(make_gpt3: Make) -> None:
    model = make_gpt3(n_embd=128, n_layer=8, initializer_range=0.02)
    scaled = 0.02 / math.sqrt(16)
    for block in model.transformer.h:
        assert block.attn.c_proj.weight.std().item() == pytest.approx(scaled, rel=0.05)
        assert block.mlp.c_proj.weight.std().item() == pytest.approx(scaled, rel=0.05)
        assert block.attn.c_attn.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert block.mlp.c_fc.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.transformer.wpe.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_gradient_checkpointing_changes_no_gradient(make_gpt3: Make) -> None:
    gradients = []
    for checkpointed in (False, True):
        model = make_gpt3(resid_pdrop=0.1).train()
        if checkpointed:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # its new name came with transformers 5.2x
                model.gradient_checkpointing_enable()
            assert model.transformer.gradient_checkpointing
        torch.manual_seed(3)
        model(random_ids(2, 9)).loss.backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in model.parameters()]))
    assert torch.allclose(*gradients, atol=1e-7)
