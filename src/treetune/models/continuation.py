"""Going on from a tree: rows write token after token over keys that they share, and no row gets a copy of its own.

A prompt is a path of the tree. Rows whose paths are mostly the same form a group; the keys of a group stand once, and
behind them, in place, come those of every token its rows write. All rows that still write are one packed pass of one
token each, so the matrices see one matrix product and a passage under ten questions is attended to by ten queries
at once. A row that has ended is left out of the next pass; nothing is moved for it.

Letters: A rows that still write, R rows of a group, S tokens it has room for, H heads of keys, D width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers.cache_utils import DynamicCache

from treetune.core.records import IntArray

SMALL = 256  # tokens that a group may have whatever its rows share: below, one kernel costs more than its keys
SHARED = 0.5  # of a path that must be the group's already, for the row to join a larger group


class Group:
    """Rows next to one another that see mostly the same tokens.

    Attributes:
        rows: ascending places in the order of the batch. writing: those of them that write now.
        keys, values: a layer's (H, S, D) by layer. allowed: (R, S) bool. depth: (S,). filled: tokens that are there.
    """

    def __init__(self, rows: Sequence[int], paths: Sequence[IntArray], depth: torch.Tensor, room: int) -> None:
        """Args: paths: tree tokens of each row's prompt. depth: (T,) of the tree. room: tokens a row may write."""
        self.rows = list(rows)
        self.tokens = np.unique(np.concatenate(paths))
        self.filled = len(self.tokens)
        size = self.filled + room * len(self.rows)
        self.allowed = torch.zeros(len(self.rows), size, dtype=torch.bool)
        for place, path in enumerate(paths):
            self.allowed[place, : self.filled] = torch.from_numpy(np.isin(self.tokens, path))
        self.allowed = self.allowed.to(depth.device)
        self.depth = depth.new_zeros(size)
        self.depth[: self.filled] = depth[torch.from_numpy(self.tokens).to(depth.device)]
        self.written = torch.tensor([len(path) for path in paths], device=depth.device)  # depth of a row's next token
        self.writing = torch.arange(len(self.rows), device=depth.device)
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []

    def take(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """The next layer's prompt keys and values, out of the tree's (1, H, T, D)."""
        places = torch.from_numpy(self.tokens).to(keys.device)
        for states, kept in ((keys, self.keys), (values, self.values)):
            own = states.new_empty(states.shape[1], len(self.depth), states.shape[3])
            own[:, : self.filled] = states[0].index_select(1, places)
            kept.append(own)

    def next_tokens(self, places: Sequence[int]) -> None:
        """Room for one token of each of these of its rows."""
        self.writing = torch.tensor(places, dtype=torch.long, device=self.depth.device)
        new = torch.arange(self.filled, self.filled + len(places), device=self.depth.device)
        self.allowed[self.writing, new] = True
        self.depth[new] = self.written[self.writing]
        self.written[self.writing] += 1
        self.filled += len(places)

    def mask(self, window: int | None, like: torch.Tensor) -> torch.Tensor:
        """(rows that write, filled), additive."""
        allowed = self.allowed[self.writing, : self.filled]
        if window is not None:
            asked = self.written[self.writing, None] - 1
            allowed = allowed & (asked - self.depth[None, : self.filled] < window)
        return torch.zeros(allowed.shape, dtype=like.dtype, device=like.device).masked_fill_(
            ~allowed, torch.finfo(like.dtype).min)


class Continuation(DynamicCache):  # type: ignore[misc]
    """The cache and the layout of attention of one generation: a model is given it as both.

    A layer hands over its keys (`update`) right before it attends (`attend`), in every model of transformers.
    """

    pruned = False  # every token of a pass is asked for

    def __init__(self, tree: DynamicCache, paths: Sequence[IntArray], depth: torch.Tensor, room: int) -> None:
        """Args: tree: the prompts' keys and values, (1, H, T, D) a layer. paths: each row's. depth: (T,)."""
        super().__init__()
        self.groups = [Group(rows, [paths[row] for row in rows], depth, room) for rows in rows_together(paths)]
        for layer in tree.layers:
            for group in self.groups:
                group.take(layer.keys, layer.values)
        self.order = [row for group in self.groups for row in group.rows]
        self._layer = 0
        self._masks: dict[tuple[Any, ...], list[torch.Tensor]] = {}

    def next_tokens(self, rows: Sequence[int]) -> torch.Tensor:
        """Before a pass over the next token of each of these ``rows``, which stand as in `order`.

        Returns:
            (1, A) positions of these tokens.
        """
        wanted = set(rows)
        self._masks.clear()
        positions = []
        for group in self.groups:
            group.next_tokens([place for place, row in enumerate(group.rows) if row in wanted])
            positions.append(group.written[group.writing] - 1)
        return torch.cat(positions)[None]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep a layer's new keys and values, (1, H, A, D); they come back as they are."""
        self._layer = layer_idx
        start = 0
        for group in self.groups:
            if not len(group.writing):  # all its rows have ended
                continue
            stop = start + len(group.writing)
            new = slice(group.filled - (stop - start), group.filled)
            group.keys[layer_idx][:, new] = key_states[0, :, start:stop]
            group.values[layer_idx][:, new] = value_states[0, :, start:stop]
            start = stop
        return key_states, value_states

    def attend(self, query: torch.Tensor, window: int | None, scale: float | None) -> torch.Tensor:
        """(1, heads, A, D) -> the same, for the layer whose keys came last."""
        heads, width = query.shape[1], query.shape[3]
        times = heads // self.groups[0].keys[self._layer].shape[0]  # heads of queries on one of keys
        parts, start = [], 0
        for group, mask in zip(self.groups, self._masks_of(window, query, times), strict=True):
            count = len(group.writing)
            if not count:
                continue
            keys, values = (kept[self._layer][None, :, : group.filled] for kept in (group.keys, group.values))
            asked = query[:, :, start : start + count].reshape(1, keys.shape[1], -1, width)
            seen = functional.scaled_dot_product_attention(asked, keys, values, attn_mask=mask, scale=scale)
            parts.append(seen.reshape(1, heads, count, width))
            start += count
        return torch.cat(parts, dim=2)

    def _masks_of(self, window: int | None, like: torch.Tensor, times: int) -> list[torch.Tensor]:
        """(1, 1, times x rows that write, filled) of each group, made once a pass and not once a layer."""
        key = (window, like.dtype, times)
        if key not in self._masks:
            self._masks[key] = [group.mask(window, like).repeat(times, 1)[None, None] for group in self.groups]
        return self._masks[key]


def rows_together(paths: Sequence[IntArray]) -> list[list[int]]:
    """Every row in one group: in the order of the tree, a row joins the last group if that shares much of its path."""
    order = sorted(range(len(paths)), key=lambda row: tuple(paths[row].tolist()))
    groups: list[list[int]] = []
    tokens: set[int] = set()
    for row in order:
        path = set(paths[row].tolist())
        if groups and (len(tokens | path) <= SMALL or len(tokens & path) >= SHARED * len(path)):
            groups[-1].append(row)
            tokens |= path
        else:
            groups.append([row])
            tokens = path
    return groups
