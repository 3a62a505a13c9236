"""Greedy generation whose prompts are read as one tree: a passage under five questions is computed once.

Its keys and values stay shared while the rows go on (`treetune.models.continuation`); rows that have ended leave the
batch. Letters: R rows, T tokens of the tree, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import DynamicCache

from treetune.core.records import IntArray, TokenizedExample
from treetune.models.alignment import rows_together
from treetune.models.batches import Batch, aligned, tree_batch
from treetune.models.cache_name import CACHE
from treetune.models.continuation import Continuation
from treetune.models.engine import core_model, engine_of
from treetune.predict.draw import Draw
from treetune.predict.extract import Allowed
from treetune.predict.watch import OnToken
from treetune.trees import build_tree

UNUSED = torch.zeros(1, 1, 1, 1, dtype=torch.bool)  # a mask that keeps transformers from making one


def greedy_shared(
    model: Any, rows: Sequence[TokenizedExample], max_new_tokens: int, end: int, on_token: OnToken | None = None,
    allowed: Sequence[Allowed] = (), no_repeat_ngram_size: int = 0, draw: Draw | None = None,
) -> list[tuple[list[int], list[float]]]:
    """New token ids of each row (``end`` included where it came) and their natural-log probabilities.

    Args:
        model: set up with an engine that has ``blocks`` (see `treetune.models.engine`).
        on_token: told of each row's new tokens; a row it does not want leaves.
        allowed: for each row what it may write next; (): anything. no_repeat_ngram_size: see `repeats`.
        draw: None: each token is the likeliest.
    """
    prompts = [replace(row, completion_ids=np.zeros(1, dtype=np.int64)) for row in rows]  # marks each prompt's end
    batch = tree_batch(build_tree(prompts)).to(model.device)
    cache, logits = read_prompts(model, batch)
    paths = [path_to(batch, row) for row in range(len(rows))]
    state = Continuation(cache, paths, batch.position_ids[0], max_new_tokens)
    del cache  # the groups hold what they need of it
    answers: list[tuple[list[int], list[float]]] = [([], []) for _ in rows]
    active = state.order
    logits = logits[torch.tensor(active, device=model.device)]
    for number in range(max_new_tokens):
        logs = logits.float().log_softmax(-1)
        if allowed:
            logs = only(logs, [allowed[row](answers[row][0]) for row in active])
        if no_repeat_ngram_size:
            logs = without(logs, [repeats(answers[row][0], no_repeat_ngram_size) for row in active])
        ids = logs.argmax(-1) if draw is None else draw.tokens(logs, active, number)
        logs = logs.gather(-1, ids[:, None])[:, 0]
        goes_on = []
        for row, token, log in zip(active, ids.tolist(), logs.tolist(), strict=True):
            answers[row][0].append(token)
            answers[row][1].append(log)
            wanted = on_token is None or on_token(row, token)
            goes_on.append(wanted and token != end)
        active = [row for row, running in zip(active, goes_on, strict=True) if running]
        if not active or number + 1 == max_new_tokens:
            break
        ids = ids[torch.tensor(goes_on, device=ids.device)]
        logits = next_logits(model, ids, state.next_tokens(active), state)
    return answers


def next_logits(model: Any, ids: torch.Tensor, positions: torch.Tensor, state: Continuation) -> torch.Tensor:
    """(A, V) behind one more token of A rows: ``ids`` (A,) at ``positions`` (1, A).

    Where logits are hidden states times one matrix, that matrix comes first: with few rows and a large vocabulary
    the product is then up to twice as fast on CPUs.
    """
    given = {"input_ids": ids[None], "position_ids": positions, "tree": state, "use_cache": True,
             "attention_mask": UNUSED.to(ids.device), CACHE: state}
    if not engine_of(model).own_head:
        logits: torch.Tensor = model(**given).logits[0]
        return logits
    core = core_model(model)
    head: torch.Tensor = core.get_output_embeddings().weight
    states: torch.Tensor = core.base_model(**given)[0][0]
    return (head @ states.T).T.contiguous()


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
    ids, positions = aligned(batch, rows_together(next(model.parameters())))
    ends = torch.empty_like(batch.label_index)
    ends[batch.label_example] = batch.label_index
    columns, place = torch.unique(ends, return_inverse=True)
    output = model(
        input_ids=ids, position_ids=positions, tree=batch.tree, **{CACHE: DynamicCache()},
        attention_mask=UNUSED.to(model.device), use_cache=True, logits_to_keep=columns,
    )
    return output[CACHE], output.logits[0][place]


def path_to(batch: Batch, row: int) -> IntArray:
    """Tree tokens from the root to the end of a row's prompt."""
    assert batch.tree is not None
    end = int(batch.label_index[batch.label_example == row])
    return np.flatnonzero(batch.tree.branch_end[: end + 1] > end)
