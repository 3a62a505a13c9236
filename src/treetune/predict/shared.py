"""Greedy generation whose prompts are read as one tree: a passage under five questions is computed once.

The tree's keys and values are then dealt out to the rows, and every row goes on by itself; rows that have ended leave
the batch. Letters: R rows, L longest prompt, T tokens of the tree, H heads, D width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import DynamicCache

from treetune.core.records import IntArray, TokenizedExample
from treetune.models.batches import Batch, tree_batch
from treetune.trees import build_tree

LEAVE_SHARE = 0.25  # rows that must have ended before the cache is copied without them


def greedy_shared(
    model: Any, rows: Sequence[TokenizedExample], max_new_tokens: int, end: int
) -> list[tuple[list[int], list[float]]]:
    """New token ids of each row (``end`` included where it came) and their natural-log probabilities.

    Args:
        model: set up with an engine that has ``blocks`` (see `treetune.models.engine`).
    """
    prompts = [replace(row, completion_ids=np.zeros(1, dtype=np.int64)) for row in rows]  # marks each prompt's end
    batch = tree_batch(build_tree(prompts)).to(model.device)
    cache, logits = read_prompts(model, batch)
    paths = [path_to(batch, row) for row in range(len(rows))]
    cache, mask = deal_out(cache, paths, model.device)
    position = torch.tensor([[len(path)] for path in paths], device=model.device)
    answers: list[tuple[list[int], list[float]]] = [([], []) for _ in rows]
    active = torch.arange(len(rows), device=model.device)
    for number in range(max_new_tokens):
        logs, ids = logits.float().log_softmax(-1).max(-1)
        running = torch.zeros(len(active), dtype=torch.bool, device=model.device)
        for place, (row, token, log) in enumerate(zip(active.tolist(), ids.tolist(), logs.tolist(), strict=True)):
            if answers[row][0][-1:] != [end]:
                answers[row][0].append(token)
                answers[row][1].append(log)
                running[place] = token != end
        if number + 1 == max_new_tokens or not running.any():
            break
        if int(running.sum()) <= len(active) * (1 - LEAVE_SHARE):
            keep = torch.nonzero(running)[:, 0]
            cache.batch_select_indices(keep)
            active, ids, mask, position = active[keep], ids[keep], mask[keep], position[keep]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        logits = model(input_ids=ids[:, None], attention_mask=mask, position_ids=position, past_key_values=cache,
                       use_cache=True, logits_to_keep=1).logits[:, -1]
        position = position + 1
    return answers


def read_prompts(model: Any, batch: Batch) -> tuple[DynamicCache, torch.Tensor]:
    """Keys and values of all tree tokens, and (R, V) logits behind each prompt, in the order of the rows."""
    assert batch.tree is not None
    batch.tree.pruned = False
    ends = torch.empty_like(batch.label_index)
    ends[batch.label_example] = batch.label_index
    columns, place = torch.unique(ends, return_inverse=True)
    output = model(
        input_ids=batch.input_ids, position_ids=batch.position_ids, tree=batch.tree, past_key_values=DynamicCache(),
        attention_mask=batch.input_ids.new_zeros(1, 1, 1, 1, dtype=torch.bool), use_cache=True,
        logits_to_keep=columns,
    )
    return output.past_key_values, output.logits[0][place]


def path_to(batch: Batch, row: int) -> IntArray:
    """Tree tokens from the root to the end of a row's prompt."""
    assert batch.tree is not None
    end = int(batch.label_index[batch.label_example == row])
    return np.flatnonzero(batch.tree.branch_end[: end + 1] > end)


def deal_out(
    cache: DynamicCache, paths: Sequence[IntArray], device: torch.device
) -> tuple[DynamicCache, torch.Tensor]:
    """A cache with a row for each path, padded on the left, and its (R, L) mask.

    The tree's cache holds (1, H, T, D) a layer, the new one (R, H, L, D).
    """
    longest = max(map(len, paths))
    index = np.zeros((len(paths), longest), dtype=np.int64)
    mask = np.zeros((len(paths), longest), dtype=np.int64)
    for row, path in enumerate(paths):
        index[row, longest - len(path) :] = path
        mask[row, longest - len(path) :] = 1
    places = torch.from_numpy(index).to(device)
    dealt = DynamicCache()
    for number, layer in enumerate(cache.layers):
        dealt.update(layer.keys[0][:, places].transpose(0, 1), layer.values[0][:, places].transpose(0, 1), number)
    return dealt, torch.from_numpy(mask).to(device)
