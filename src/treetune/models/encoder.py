"""What all encoders share: rows with their special tokens, and passes of rows of like length.

A pass is padded rows whose padding is masked, or the rows side by side in one without any (`row_attention`), where
`prove_packed` has found that to give the model's own gradients.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from treetune.core.records import IntArray
from treetune.models.alignment import rows_together
from treetune.models.batches import right_padded
from treetune.models.engine import core_model
from treetune.models.family import first_position
from treetune.models.freeze import layers_of
from treetune.models.norm import distance, total_norm
from treetune.models.projection import use_projections
from treetune.models.row_attention import NAME, RowLayout, unpacked_behind
from treetune.models.shard import inside, recover
from treetune.trees.passes import packed_passes, passes

CANNOT = (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, NotImplementedError)
TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class EncoderRow:
    """One input of an encoder, special tokens included.

    Attributes:
        row: the example's row number. place: the example's place in the list it was made from.
        input_ids: (L,). segment_ids: (L,) for models that know first and second text, else None.
        target: what the head should say: (1,) a class, or (2,) first and last token of a span.
        num_cut: tokens cut off to fit. offsets: (L, 2) characters of each source token, -1 elsewhere; None: unused.
        soft: (labels,) a teacher's log-probabilities, see `treetune.models.distill`.
    """

    row: int
    place: int
    input_ids: IntArray
    segment_ids: IntArray | None
    target: IntArray
    num_cut: int = 0
    offsets: NDArray[np.int64] | None = None
    soft: NDArray[np.float64] | None = None

    @property
    def num_tokens(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True, slots=True)
class EncoderBatch:
    """Tensors of one forward pass. B rows, L tokens of the longest, T of all.

    Attributes:
        input_ids: (B, L), or (1, T) for packed rows. attention_mask: (B, L) with 0 where a row has no token.
        segment_ids: like ``input_ids``, or None. rows: where packed rows stand, None for padded ones.
        targets: (B, 1) or (B, 2). order: (B,) place of each row in the list the passes were made from.
        num_tokens: tokens computed, padding included. num_row_tokens: tokens of the rows.
        soft: (B, labels) a teacher's log-probabilities, or None.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    segment_ids: torch.Tensor | None
    targets: torch.Tensor
    order: torch.Tensor
    num_tokens: int
    num_row_tokens: int
    rows: RowLayout | None = None
    soft: torch.Tensor | None = None

    def to(self, device: torch.device) -> EncoderBatch:
        """The same batch on ``device``."""
        moved: dict[str, Any] = {
            name: value.to(device)
            for name in ("input_ids", "attention_mask", "segment_ids", "targets", "order", "soft")
            if (value := getattr(self, name)) is not None
        }
        return replace(self, **moved)

    def inputs(self) -> dict[str, torch.Tensor]:
        """What the model's forward takes of padded rows."""
        given = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        return given if self.segment_ids is None else {**given, "token_type_ids": self.segment_ids}


def padded(rows: Sequence[EncoderRow], order: Sequence[int]) -> EncoderBatch:
    """Rows padded on the right to the longest of them."""
    ids, mask = right_padded([row.input_ids for row in rows])
    segments = [row.segment_ids for row in rows if row.segment_ids is not None]
    return EncoderBatch(
        input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask),
        segment_ids=torch.from_numpy(right_padded(segments)[0]) if segments else None,
        targets=torch.from_numpy(np.stack([row.target for row in rows])),
        order=torch.tensor(list(order)), num_tokens=ids.size, num_row_tokens=int(mask.sum()), soft=soft_of(rows),
    )


def soft_of(rows: Sequence[EncoderRow]) -> torch.Tensor | None:
    """(B, labels) what a teacher says of the rows, None where there is none."""
    found = [row.soft for row in rows if row.soft is not None]
    return torch.from_numpy(np.stack(found)) if found else None


def packed(rows: Sequence[EncoderRow], order: Sequence[int]) -> EncoderBatch:
    """Rows side by side in one, without padding."""
    layout = RowLayout([row.num_tokens for row in rows])
    ids = np.concatenate([row.input_ids for row in rows])
    segments = [row.segment_ids for row in rows if row.segment_ids is not None]
    longest = max(layout.lengths)
    mask = np.arange(longest)[None] < np.array(layout.lengths)[:, None]
    return EncoderBatch(
        input_ids=torch.from_numpy(ids)[None], attention_mask=torch.from_numpy(mask.astype(np.int64)),
        segment_ids=torch.from_numpy(np.concatenate(segments))[None] if segments else None,
        targets=torch.from_numpy(np.stack([row.target for row in rows])), order=torch.tensor(list(order)),
        num_tokens=len(ids), num_row_tokens=len(ids), rows=layout, soft=soft_of(rows),
    )


def run_encoder(model: Any, batch: EncoderBatch) -> Any:
    """The model's output for the rows as padded ones, whichever way they are laid out.

    The first packed pass switches the model's attention and linear layers; calls of any other kind stay what they were.
    """
    if batch.rows is None:
        return model(**batch.inputs())
    core = core_model(model)
    if core.config._attn_implementation != NAME:
        core.set_attn_implementation(NAME)
        use_projections(core)
    first = first_position(core.config.model_type, core.config.pad_token_id)
    rows = batch.rows.filled_up(rows_together(next(core.parameters())))
    positions = rows.positions().to(batch.input_ids.device) + first
    room = (0, positions.shape[1] - batch.input_ids.shape[1])
    ids, segments = torch.nn.functional.pad(batch.input_ids, room), batch.segment_ids
    given = {} if segments is None else {"token_type_ids": torch.nn.functional.pad(segments, room)}
    with unpacked_behind(layers_of(core)[-1], batch.rows):
        # a mask of four dimensions is passed on untouched by transformers; our attention reads the rows instead
        return model(input_ids=ids, position_ids=positions, rows=rows,
                     attention_mask=ids.new_zeros(1, 1, 1, 1, dtype=torch.bool), **given)


def batches_of(rows: Sequence[EncoderRow], layout: str, rows_per_pass: int, max_tokens: int) -> Iterator[EncoderBatch]:
    """The forward passes of one step; ``layout`` is ``packed`` or ``padded``: rows share no computation."""
    cut, join = (packed_passes, packed) if layout == "packed" else (passes, padded)
    for run in cut([row.num_tokens for row in rows], rows_per_pass, max_tokens):
        yield join([rows[place] for place in run], run)


class HasLoss(Protocol):
    """A head, as `prove_packed` needs it: see `treetune.models.family.Head`."""

    def batches_of(self, rows: Sequence[Any], layout: str, rows_per_pass: int, max_tokens: int) -> Iterator[Any]:
        """Passes."""
        ...

    def loss_sum(self, model: Any, batch: Any) -> Any:
        """Loss as sum and count."""
        ...


def prove_packed(model: Any, head: HasLoss, rows: Sequence[Any], max_tokens: int) -> tuple[str, float, str]:
    """(layout to train with, difference, why not): whether packed rows give the model's own gradients.

    The truth are padded rows under the attention the model came with; the difference is that of all gradients,
    relative to their size. Dropout is off; where packed rows fail, the model is left as it came.
    """
    before = core_model(model).config._attn_implementation
    truth = gradients(model, head, rows, "padded", max_tokens)
    try:
        ours = gradients(model, head, rows, "packed", max_tokens)
        reason = ", ".join(sorted(ours.keys() ^ truth.keys()))[:200]
        gap = math.inf if reason else math.hypot(*(distance(ours.pop(name), true) for name, true in truth.items()))
        difference = gap / max(total_norm(list(truth.values())), 1e-12)
    except CANNOT as error:
        recover(model)
        model.zero_grad(set_to_none=True)
        difference, reason = float("inf"), " ".join(str(error).split())[:200] or type(error).__name__
    if difference <= TOLERANCE and not reason:  # not a number is not exact either
        return "packed", difference, ""
    if core_model(model).config._attn_implementation != before:
        core_model(model).set_attn_implementation(before)
    return "padded", difference, reason or "its gradients differ"


def spread_of(rows: Sequence[Any], max_tokens: int) -> list[Any]:
    """Rows to prove with: the longest, the shortest, and lengths between, about ``max_tokens`` tokens in all."""
    order = sorted(rows, key=lambda row: -int(row.num_tokens))
    count = max(4, max_tokens * len(rows) // max(1, sum(row.num_tokens for row in rows)))
    places = np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int))
    return [order[place] for place in places]


def gradients(model: Any, head: HasLoss, rows: Sequence[Any], layout: str, max_tokens: int) -> dict[str, torch.Tensor]:
    """Gradients of all weights to train, dropout off."""
    training = model.training
    model.eval()
    model.zero_grad(set_to_none=True)
    device = next(model.parameters()).device
    try:
        for batch in head.batches_of(rows, layout, len(rows), max_tokens):
            inside(model, partial(head.loss_sum, model, batch.to(device))).total.backward()
        return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    finally:
        model.zero_grad(set_to_none=True)
        model.train(training)


def segment_ids_of(tokenizer: Any, encoded: Any, place: int) -> IntArray | None:
    """Segment ids of one encoded text, for models whose tokenizer gives them."""
    if "token_type_ids" not in encoded or "token_type_ids" not in tokenizer.model_input_names:
        return None
    return np.array(encoded["token_type_ids"][place], dtype=np.int64)
