"""Which attention a tree gets, and what the one for short rows leaves for its backward pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from treetune.core.records import TokenizedExample
from treetune.models import short_attention as module
from treetune.models import tree_attention
from treetune.models.projection import project
from treetune.models.recomputed import has_recipe, kept_for
from treetune.models.short_attention import short_attention
from treetune.models.tree_attention import TreeLayout, attend
from treetune.trees import pack
from treetune.trees.blocks import BLOCK, SHORT, SHORT_BLOCK, are_short


def layout_of(passage: int, rows: int, length: int) -> TreeLayout:
    """Rows of ``length`` tokens of their own behind one passage."""
    random = np.random.default_rng(0)
    start = random.integers(1, 50, passage)
    examples = [TokenizedExample(row, 0, np.concatenate([start, random.integers(50, 99, length)]), np.array([7]), 0)
                for row in range(rows)]
    [tree] = pack(examples, 10**6)
    return TreeLayout(tree)


def states(layout: TreeLayout, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(1, heads, len(layout.depth), 8, dtype=dtype, requires_grad=True) for heads in (4, 2, 2)]


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by one with each use."""
    found: list[str] = []

    def watched(*given: Any) -> torch.Tensor:
        found.append("short")
        return short_attention(*given)

    monkeypatch.setattr(tree_attention, "short_attention", watched)
    return found


@pytest.mark.parametrize(("layout", "short"), [
    (layout_of(6, 30, 12), True), (layout_of(0, 1, 5), True), (layout_of(SHORT + 200, 10, 20), False),
], ids=["short rows", "one row", "a long passage"])
def test_few_keys_a_query_make_short_blocks(layout: TreeLayout, short: bool, used: list[str]) -> None:
    blocks = layout.blocks(None, False)
    assert are_short(blocks) is short
    size = SHORT_BLOCK if short else BLOCK
    assert all(block.stop - block.start <= size + size // 2 for block in blocks)
    attend(*states(layout), layout)
    assert used == (["short"] if short else [])


def test_dropout_is_left_to_torch(used: list[str]) -> None:
    layout = layout_of(6, 30, 12)
    attend(*states(layout), layout, dropout=0.1)
    assert not used


def test_a_long_passage_behind_a_narrow_window_is_short(used: list[str]) -> None:
    layout = layout_of(SHORT + 200, 10, 20)
    attend(*states(layout), layout, window=16)
    assert used == ["short"]


@pytest.mark.parametrize("scale", [None, 0.3])
def test_the_scale_is_that_of_torch(scale: float | None) -> None:
    layout = layout_of(6, 30, 12)
    own, other = states(layout, torch.float64), states(layout, torch.float64)
    short = attend(*own, layout, scale=scale)
    plain = attend(*other, layout, scale=scale, dropout=1e-300)  # torch's kernel: dropout that drops nothing
    slope = torch.randn_like(short)
    short.backward(slope)
    plain.backward(slope)
    assert torch.allclose(short, plain, rtol=1e-10)
    for one, two in zip(own, other, strict=True):
        assert torch.allclose(one.grad, two.grad, rtol=1e-9, atol=1e-12)


def test_states_that_stand_tokens_first_need_no_copy_and_give_the_same() -> None:
    layout = layout_of(6, 30, 12)
    query, key, value = states(layout)
    turned = [each.detach().transpose(1, 2).contiguous().transpose(1, 2) for each in (query, key, value)]
    assert torch.equal(attend(query, key, value, layout), attend(*turned, layout))


def test_under_autocast_it_is_computed_in_float32_forward_and_backward() -> None:
    layout = layout_of(6, 30, 12)
    own, other = states(layout), states(layout)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = attend(*own, layout)
    plain = attend(*other, layout)
    slope = torch.randn_like(plain)
    lowered.backward(slope)
    plain.backward(slope)
    assert torch.equal(lowered, plain)
    for one, two in zip(own, other, strict=True):
        assert torch.equal(one.grad, two.grad)


def test_bfloat16_states_come_back_as_such() -> None:
    layout = layout_of(6, 30, 12)
    lowered = [each.detach().bfloat16().requires_grad_() for each in states(layout)]
    found = attend(*lowered, layout)
    found.float().sum().backward()
    assert found.dtype == lowered[0].grad.dtype == torch.bfloat16


def through_a_layer(given: list[torch.Tensor], weight: torch.Tensor, layout: TreeLayout) -> torch.Tensor:
    """Attention and the layer behind it, as models call them."""
    mixed = attend(*given, layout).transpose(1, 2).flatten(2)
    assert has_recipe(mixed)
    return project(mixed, weight, None)


@pytest.mark.parametrize("kept", [0, 10**9], ids=["probabilities made again", "probabilities kept"])
def test_what_attention_gave_is_made_again_bit_for_bit(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_ODDS", kept)
    layout = layout_of(6, 30, 12)
    mixed = attend(*states(layout), layout).transpose(1, 2).flatten(2)
    make, of = kept_for(mixed, wanted=True)
    assert torch.equal(make(*of).reshape(mixed.shape), mixed)


@pytest.mark.parametrize("trained", [True, False], ids=["the layer behind, too", "attention alone"])
def test_gradients_are_the_same_whether_probabilities_are_kept(trained: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = layout_of(6, 30, 12)
    found = []
    for kept in (0, 10**9):
        monkeypatch.setattr(module, "KEPT_ODDS", kept)
        given, weight = states(layout), torch.ones(5, 32, requires_grad=trained)
        out = through_a_layer(given, weight, layout)
        for _ in range(2):  # a second time through the same graph
            out.backward(torch.ones_like(out), retain_graph=True)
        found.append([each.grad for each in (*given, *([weight] if trained else []))])
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("trained", [True, False], ids=["the layer behind, too", "attention alone"])
def test_probabilities_are_made_again_once(trained: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_ODDS", 0)
    made, odds = [], module._odds

    def counted(*given: Any) -> Any:
        made.append(1)
        return odds(*given)

    monkeypatch.setattr(module, "_odds", counted)
    layout = layout_of(6, 30, 12)
    through_a_layer(states(layout), torch.ones(5, 32, requires_grad=trained), layout).sum().backward()
    assert len(made) == 2  # forward and backward


def test_a_part_of_what_attention_gave_is_kept_itself() -> None:
    layout = layout_of(6, 30, 12)
    mixed = attend(*states(layout), layout).transpose(1, 2).flatten(2)
    assert not has_recipe(mixed[:, 1:])
    assert not has_recipe(mixed.transpose(1, 2))
