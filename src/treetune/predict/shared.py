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
from treetune.models.cache_name import CACHE
from treetune.predict.extract import Allowed
from treetune.predict.watch import OnToken
from treetune.trees import build_tree

LEAVE_SHARE = 0.25  # rows that must have ended before the cache is copied without them


def greedy_shared(
    model: Any, rows: Sequence[TokenizedExample], max_new_tokens: int, end: int, on_token: OnToken | None = None,
    allowed: Sequence[Allowed] = (), no_repeat_ngram_size: int = 0,
) -> list[tuple[list[int], list[float]]]:
    """New token ids of each row (``end`` included where it came) and their natural-log probabilities.

    Args:
        model: set up with an engine that has ``blocks`` (see `treetune.models.engine`).
        on_token: told of each row's new tokens; a row it does not want leaves.
        allowed: for each row what it may write next; (): anything. no_repeat_ngram_size: see `repeats`.
    """
    prompts = [replace(row, completion_ids=np.zeros(1, dtype=np.int64)) for row in rows]  # marks each prompt's end
    batch = tree_batch(build_tree(prompts)).to(model.device)
    cache, logits = read_prompts(model, batch)
    paths = [path_to(batch, row) for row in range(len(rows))]
    cache, mask = deal_out(cache, paths, model.device)
    position = torch.tensor([[len(path)] for path in paths], device=model.device)
    answers: list[tuple[list[int], list[float]]] = [([], []) for _ in rows]
    active = torch.arange(len(rows), device=model.device)
    stopped: set[int] = set()
    for number in range(max_new_tokens):
        logs = logits.float().log_softmax(-1)
        if allowed:
            logs = only(logs, [allowed[row](answers[row][0]) for row in active.tolist()])
        if no_repeat_ngram_size:
            logs = without(logs, [repeats(answers[row][0], no_repeat_ngram_size) for row in active.tolist()])
        logs, ids = logs.max(-1)
        running = torch.zeros(len(active), dtype=torch.bool, device=model.device)
        for place, (row, token, log) in enumerate(zip(active.tolist(), ids.tolist(), logs.tolist(), strict=True)):
            if answers[row][0][-1:] != [end] and row not in stopped:
                answers[row][0].append(token)
                answers[row][1].append(log)
                if on_token and not on_token(row, token):
                    stopped.add(row)
                running[place] = token != end and row not in stopped
        if number + 1 == max_new_tokens or not running.any():
            break
        if int(running.sum()) <= len(active) * (1 - LEAVE_SHARE):
            keep = torch.nonzero(running)[:, 0]
            cache.batch_select_indices(keep)
            active, ids, mask, position = active[keep], ids[keep], mask[keep], position[keep]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        logits = model(input_ids=ids[:, None], attention_mask=mask, position_ids=position, use_cache=True,
                       logits_to_keep=1, **{CACHE: cache}).logits[:, -1]
        position = position + 1
    return answers


def only(logs: torch.Tensor, allowed: Sequence[IntArray]) -> torch.Tensor:
    """(R, V) log-probabilities with those tokens at minus infinity that a row may not write."""
    kept = torch.full_like(logs, -torch.inf)
    for row, tokens in enumerate(allowed):
        places = torch.from_numpy(tokens).to(logs.device)
        kept[row, places] = logs[row, places]
    return kept


def without(logs: torch.Tensor, barred: Sequence[Sequence[int]]) -> torch.Tensor:
    """(R, V) log-probabilities with those tokens at minus infinity that a row may not write."""
    kept = logs.clone()
    for row, tokens in enumerate(barred):
        kept[row, list(tokens)] = -torch.inf
    return kept


def repeats(written: Sequence[int], size: int) -> list[int]:
    """Tokens that would make a run of ``size`` tokens come a second time (Paulus et al. 2018, arXiv 1705.04304)."""
    last = list(written[len(written) - size + 1 :])
    return [written[place + size - 1] for place in range(len(written) - size + 1)
            if list(written[place : place + size - 1]) == last]


def read_prompts(model: Any, batch: Batch) -> tuple[DynamicCache, torch.Tensor]:
    """Keys and values of all tree tokens, and (R, V) logits behind each prompt, in the order of the rows."""
    assert batch.tree is not None
    batch.tree.pruned = False
    ends = torch.empty_like(batch.label_index)
    ends[batch.label_example] = batch.label_index
    columns, place = torch.unique(ends, return_inverse=True)
    output = model(
        input_ids=batch.input_ids, position_ids=batch.position_ids, tree=batch.tree, **{CACHE: DynamicCache()},
        attention_mask=batch.input_ids.new_zeros(1, 1, 1, 1, dtype=torch.bool), use_cache=True,
        logits_to_keep=columns,
    )
    return output[CACHE], output.logits[0][place]


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
