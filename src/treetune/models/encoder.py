"""What all encoders share: rows with their special tokens, passes of rows of like length, padding that is masked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from treetune.core.records import IntArray


@dataclass(frozen=True, slots=True)
class EncoderRow:
    """One input of an encoder, special tokens included.

    Attributes:
        row: the example's row number. place: the example's place in the list it was made from.
        input_ids: (L,). segment_ids: (L,) for models that know first and second text, else None.
        target: what the head should say: (1,) a class, or (2,) first and last token of a span.
        num_cut: tokens cut off to fit. offsets: (L, 2) characters of each source token, -1 elsewhere; None: unused.
    """

    row: int
    place: int
    input_ids: IntArray
    segment_ids: IntArray | None
    target: IntArray
    num_cut: int = 0
    offsets: NDArray[np.int64] | None = None

    @property
    def num_tokens(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True, slots=True)
class EncoderBatch:
    """Tensors of one forward pass. B rows, L tokens.

    Attributes:
        input_ids: (B, L). attention_mask: (B, L) with 0 at padding. segment_ids: (B, L) or None.
        targets: (B, 1) or (B, 2). order: (B,) place of each row in the list the passes were made from.
        num_tokens: tokens computed, padding included. num_row_tokens: tokens of the rows.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    segment_ids: torch.Tensor | None
    targets: torch.Tensor
    order: torch.Tensor
    num_tokens: int
    num_row_tokens: int

    def to(self, device: torch.device) -> EncoderBatch:
        """The same batch on ``device``."""
        moved: dict[str, Any] = {
            name: value.to(device) for name in ("input_ids", "attention_mask", "segment_ids", "targets", "order")
            if (value := getattr(self, name)) is not None
        }
        return replace(self, **moved)

    def inputs(self) -> dict[str, torch.Tensor]:
        """What the model's forward takes."""
        given = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        return given if self.segment_ids is None else {**given, "token_type_ids": self.segment_ids}


def padded(rows: Sequence[EncoderRow], order: Sequence[int]) -> EncoderBatch:
    """Rows padded on the right to the longest of them."""
    shape = (len(rows), max(row.num_tokens for row in rows))
    ids, mask, segments = (np.zeros(shape, dtype=np.int64) for _ in range(3))
    for number, row in enumerate(rows):
        ids[number, : row.num_tokens] = row.input_ids
        mask[number, : row.num_tokens] = 1
        if row.segment_ids is not None:
            segments[number, : row.num_tokens] = row.segment_ids
    return EncoderBatch(
        input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask),
        segment_ids=None if rows[0].segment_ids is None else torch.from_numpy(segments),
        targets=torch.from_numpy(np.stack([row.target for row in rows])),
        order=torch.tensor(list(order)), num_tokens=ids.size, num_row_tokens=int(mask.sum()),
    )


def passes(lengths: Sequence[int], rows_per_pass: int, max_tokens: int) -> Iterator[list[int]]:
    """Places of rows, sorted by length, in runs of at most ``rows_per_pass`` rows and ``max_tokens`` padded tokens.

    Neighbours are of like length, so little is padded. A single row may be longer than ``max_tokens``.
    """
    run: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: (lengths[place], place)):
        if run and (len(run) == rows_per_pass or (len(run) + 1) * lengths[place] > max_tokens):
            yield run
            run = []
        run.append(place)
    if run:
        yield run


def batches_of(rows: Sequence[EncoderRow], layout: str, rows_per_pass: int, max_tokens: int) -> Iterator[EncoderBatch]:
    """The forward passes of one step; ``layout`` is ``padded``: an encoder's rows share no computation."""
    for run in passes([row.num_tokens for row in rows], rows_per_pass, max_tokens):
        yield padded([rows[place] for place in run], run)


def segment_ids_of(tokenizer: Any, encoded: Any, place: int) -> IntArray | None:
    """Segment ids of one encoded text, for models whose tokenizer gives them."""
    if "token_type_ids" not in encoded or "token_type_ids" not in tokenizer.model_input_names:
        return None
    return np.array(encoded["token_type_ids"][place], dtype=np.int64)
