"""Attention inside each row of a packed encoder pass: rows stand side by side in one, and none sees another.

An encoder is switched to it through transformers' attention registry; a call without ``rows`` is computed as by
transformers' scaled-dot-product attention. Letters: B rows, T tokens of all, L of the longest, H heads, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from treetune.models.sdpa import attention
from treetune.models.tree_attention import unbuilt_forms

NAME = "treetune_rows"


class RowLayout:
    """Where the rows of a packed pass stand.

    Attributes:
        lengths: (B,) tokens of each row. runs: (start, rows, length) of neighbours of one length, attended at once.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths = [int(length) for length in lengths]
        self.runs: list[tuple[int, int, int]] = []
        start = 0
        for length, group in groupby(self.lengths):
            count = len(list(group))
            self.runs.append((start, count, length))
            start += count * length

    def filled_up(self, multiple: int) -> RowLayout:
        """The same rows and one more, so that all have a multiple of tokens."""
        missing = -sum(self.lengths) % multiple
        return RowLayout([*self.lengths, missing]) if missing else self

    def positions(self) -> torch.Tensor:
        """(1, T) place of each token in its row."""
        return torch.from_numpy(np.concatenate([np.arange(length) for length in self.lengths]))[None]

    def places(self) -> torch.Tensor:
        """(T,) place of each token in rows padded to (B, L), flattened."""
        longest = max(self.lengths)
        return torch.from_numpy(np.concatenate(
            [number * longest + np.arange(length) for number, length in enumerate(self.lengths)]))

    def padded(self, states: torch.Tensor) -> torch.Tensor:
        """(1, T, D) or more tokens behind them -> (B, L, D) with zeros at padding."""
        rows, longest = len(self.lengths), max(self.lengths)
        states = states[:, : sum(self.lengths)]
        if rows * longest == states.shape[1]:
            return states.reshape(rows, longest, -1)
        room = states.new_zeros(rows * longest, states.shape[2])
        return room.index_copy(0, self.places().to(states.device), states[0]).reshape(rows, longest, -1)


def row_attention(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attention_mask: torch.Tensor | None, dropout: float = 0.0, scaling: float | None = None,
    sliding_window: int | None = None, rows: RowLayout | None = None, **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """The attention function transformers calls: (1, H, T, D) -> (1, T, H, D).

    Args:
        sliding_window: a token sees those less than this far away, on either side.

    Raises:
        NotImplementedError: a form of attention that is not built here.
    """
    if rows is None:
        usual: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling,
            sliding_window=sliding_window, **kwargs,
        )
        return usual
    unknown = unbuilt_forms(kwargs)
    if unknown or query.shape[1] != key.shape[1]:
        raise NotImplementedError(f"attention with {', '.join(unknown) or 'grouped heads'} has no packed form")
    parts = []
    for start, count, length in rows.runs:
        mine = slice(start, start + count * length)
        asked, keys, values = (each[0, :, mine].reshape(each.shape[1], count, length, -1)
                               for each in (query, key, value))
        mixed = attention(asked, keys, values, band(length, sliding_window, query.device), dropout=dropout,
                          scale=scaling)
        parts.append(mixed.flatten(1, 2))
    whole = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
    return whole.transpose(0, 1)[None], None


def band(length: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """(L, L) which keys a query sees; None: all."""
    if window is None or window >= length:
        return None
    place = torch.arange(length, device=device)
    return (place[:, None] - place[None]).abs() < window


@contextmanager
def unpacked_behind(layer: torch.nn.Module, rows: RowLayout) -> Iterator[None]:
    """While open, what ``layer`` gives is handed on as padded rows, so that poolers and heads find each row's start."""
    def pad(module: torch.nn.Module, inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (rows.padded(output[0]), *output[1:])
        return rows.padded(output)

    handle = layer.register_forward_hook(pad)
    try:
        yield
    finally:
        handle.remove()


AttentionInterface.register(NAME, row_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
