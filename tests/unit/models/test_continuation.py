"""Rows that write on over shared keys attend as each would over its own."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from transformers.cache_utils import DynamicCache

from treetune.core.records import TokenizedExample
from treetune.models import continuation
from treetune.models.batches import tree_batch
from treetune.models.continuation import Continuation, rows_together
from treetune.predict.shared import path_to
from treetune.trees import build_tree

HEADS, KEY_HEADS, WIDTH, STEPS = 4, 2, 8, 3
prompts = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=7)


@settings(deadline=None, max_examples=60)
@given(prompts, st.sampled_from([None, 1, 3]), st.integers(0, 1000), st.sampled_from([0, 4, 256]))
def test_every_row_attends_to_its_own_tokens_only(
    rows: list[list[int]], window: int | None, seed: int, small: int
) -> None:
    """Any prompts, any rows leaving at any step, grouped or not: as plain attention over each row's own keys."""
    torch.manual_seed(seed)
    batch = tree_batch(build_tree([TokenizedExample(n, 0, np.array(row), np.zeros(1, dtype=np.int64), 0)
                                   for n, row in enumerate(rows)]))
    paths = [path_to(batch, row) for row in range(len(rows))]
    cache = DynamicCache()
    cache.update(torch.randn(1, KEY_HEADS, batch.num_tokens, WIDTH, dtype=torch.float64),
                 torch.randn(1, KEY_HEADS, batch.num_tokens, WIDTH, dtype=torch.float64), 0)
    own = {row: (cache.layers[0].keys[0][:, path], cache.layers[0].values[0][:, path])
           for row, path in enumerate(paths)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(continuation, "SMALL", small)
        state = Continuation(cache, paths, batch.position_ids[0], STEPS)
    assert sorted(state.order) == list(range(len(rows)))
    chance = np.random.default_rng(seed)
    active = state.order
    for _ in range(STEPS):
        if not active:
            break
        positions = state.next_tokens(active)
        assert positions[0].tolist() == [own[row][0].shape[1] for row in active]
        query, key, value = (torch.randn(1, heads, len(active), WIDTH, dtype=torch.float64)
                             for heads in (HEADS, KEY_HEADS, KEY_HEADS))
        state.update(key, value, 0)
        found = state.attend(query, window, None)
        for place, row in enumerate(active):
            own[row] = (torch.cat([own[row][0], key[0][:, place : place + 1]], 1),
                        torch.cat([own[row][1], value[0][:, place : place + 1]], 1))
            keys, values = (each[:, -window:] if window else each for each in own[row])
            wanted = functional.scaled_dot_product_attention(query[:, :, place : place + 1], keys[None], values[None],
                                                             enable_gqa=True)
            torch.testing.assert_close(found[:, :, place : place + 1], wanted)
        active = [row for row in active if chance.random() < 0.8]


def test_rows_on_one_passage_form_a_group_and_strangers_do_not() -> None:
    passage, other = np.arange(400), np.arange(1000, 1400)
    paths = [np.append(passage, 500), np.append(other, 1500), np.append(passage, [501, 502]), np.arange(2000, 2010)]
    assert rows_together(paths) == [[0, 2], [1], [3]]


def test_short_rows_form_a_group_whatever_they_share() -> None:
    assert rows_together([np.arange(n * 20, n * 20 + 20) for n in range(20)]) == [list(range(12)), list(range(12, 20))]
