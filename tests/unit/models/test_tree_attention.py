"""Attention block by block is attention under the whole mask, in value and in every gradient."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from treetune.core.records import TokenizedExample
from treetune.models.tree_attention import SeenByBlocks, TreeLayout, attend
from treetune.trees import allowed_pairs, pack


@pytest.fixture(scope="module")
def layout() -> TreeLayout:
    """Forty rows under a shared passage: several blocks, some of which see the passage and themselves only."""
    random = np.random.default_rng(1)
    passage = random.integers(1, 50, 60)

    def row(number: int) -> TokenizedExample:
        prompt = [*passage[: 60 if number % 3 else 7], *random.integers(1, 50, 4 + number % 9)]
        return TokenizedExample(number, 0, np.asarray(prompt), random.integers(1, 50, 1 + number % 3), 0)

    [tree] = pack([row(number) for number in range(40)], 10_000)
    made = TreeLayout(tree)
    assert len(made.blocks(None, False)) >= 3
    return made


@pytest.mark.parametrize("labels_only", [False, True])
@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("key_heads", [4, 2])
def test_blocks_give_the_values_and_gradients_of_one_mask(
    layout: TreeLayout, key_heads: int, window: int | None, labels_only: bool
) -> None:
    torch.manual_seed(0)
    total = len(layout.depth)
    allowed = torch.from_numpy(allowed_pairs(layout.branch_end))
    if window is not None:
        depth = torch.from_numpy(layout.depth)
        allowed = allowed & (depth[:, None] - depth[None] < window)
    columns = torch.from_numpy(layout.columns) if labels_only else torch.arange(total)
    query = torch.randn(1, 4, len(columns), 8, dtype=torch.float64, requires_grad=True)
    key, value = (torch.randn(1, key_heads, total, 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    slope = torch.randn(1, 4, len(columns), 8, dtype=torch.float64)
    inputs = (query, key, value)
    ours = attend(query, key, value, layout, window=window, labels_only=labels_only)
    mine = torch.autograd.grad(ours, inputs, slope)
    repeated = (each.repeat_interleave(4 // key_heads, dim=1) for each in (key, value))
    whole = functional.scaled_dot_product_attention(query, *repeated, attn_mask=allowed[columns])
    theirs = torch.autograd.grad(whole, inputs, slope)
    assert torch.allclose(ours, whole, rtol=1e-10, atol=1e-12)
    for one, other in zip(mine, theirs, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("labels_only", [False, True])
@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@torch.no_grad()
def test_the_gpu_kernel_is_given_the_same_pairs(layout: TreeLayout, window: int | None, labels_only: bool) -> None:
    torch.manual_seed(0)
    asking = len(layout.columns) if labels_only else len(layout.depth)
    query = torch.randn(1, 4, asking, 8)
    key, value = (torch.randn(1, 2, len(layout.depth), 8) for _ in range(2))
    blocks = attend(query, key, value, layout, window=window, labels_only=labels_only)
    layout.flex = True
    try:
        kernel = attend(query, key, value, layout, window=window, labels_only=labels_only)
    finally:
        layout.flex = False
    assert torch.allclose(kernel, blocks, atol=1e-5)
    if not labels_only:  # blocks that nobody sees are skipped
        assert layout.block_mask(window, labels_only, query.device).sparsity() > 0


def test_what_several_blocks_see_is_added_up() -> None:
    states = torch.arange(6.0)[None, None, :, None].requires_grad_()
    first, second = SeenByBlocks.apply(states, [((0, 3),), ((0, 1), (4, 6))])
    assert second.flatten().tolist() == [0.0, 4.0, 5.0]
    (first.sum() + 10 * second.sum()).backward()
    assert states.grad.flatten().tolist() == [11.0, 1.0, 1.0, 0.0, 10.0, 10.0]
