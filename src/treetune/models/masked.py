"""An encoder's own language: which word stands behind a mask (AutoModelForMaskedLM).

Training hides 15 % of a row's tokens: of those, 80 % behind the mask, 10 % behind a random token, 10 % left in place
(Devlin et al. 2019, arXiv 1810.04805, section 3.1). Logits are taken at hidden tokens only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from treetune.core.errors import ModelError
from treetune.core.records import IntArray
from treetune.core.seeds import generator
from treetune.models.decoder import LossSum
from treetune.models.encoder import EncoderBatch, EncoderRow, packed, padded, run_encoder
from treetune.models.engine import core_model
from treetune.models.label_loss import at_least_float32
from treetune.models.seq2seq import labels_only
from treetune.trees.passes import packed_passes, passes

AUTO_CLASS = "AutoModelForMaskedLM"
PEFT_TASK = "FEATURE_EXTRACTION"
BRANCHES = False
PACKS = True
MAX_LENGTH = 0
HIDDEN, MASKED, RANDOM = 0.15, 0.8, 0.1  # shares: of a row's tokens; of the hidden ones


@dataclass(frozen=True, slots=True)
class MaskedRow:
    """A row with some tokens hidden.

    Attributes:
        row: its number. input_ids: (L,) as the model reads them. label_index: (K,) which tokens are hidden.
        label_ids: (K,) what stands there.
    """

    row: int
    input_ids: IntArray
    label_index: IntArray
    label_ids: IntArray
    num_cut: int = 0

    @property
    def num_tokens(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True, slots=True)
class MaskedBatch:
    """One forward pass: the rows, and K hidden tokens as places in rows padded to (B, L), flattened, with their ids."""

    rows: EncoderBatch
    label_index: torch.Tensor
    label_ids: torch.Tensor
    num_tokens: int
    num_row_tokens: int

    def to(self, device: torch.device) -> MaskedBatch:
        """The same batch on ``device``."""
        return replace(self, rows=self.rows.to(device), label_index=self.label_index.to(device),
                       label_ids=self.label_ids.to(device))


def hide(ids: IntArray, number: int, tokenizer: Any, seed: int, stream: str) -> MaskedRow:
    """The row with 15 % of its tokens hidden, at least one; what is hidden depends on (seed, stream, number) only.

    Raises:
        ModelError: E3021 a tokenizer without a mask.
    """
    if tokenizer.mask_token_id is None:
        raise ModelError("E3021", "the tokenizer has no mask token", where=type(tokenizer).__name__,
                         do="choose an encoder that was trained on masked words")
    special = np.array(tokenizer.all_special_ids)
    open_places = np.flatnonzero(~np.isin(ids, special))
    draw = generator(seed, "mask", stream, number)
    count = min(len(open_places), max(1, round(HIDDEN * len(open_places))))
    hidden = np.sort(draw.choice(open_places, count, replace=False)) if count else open_places
    shown = ids.copy()
    kind = draw.random(count)
    words = np.setdiff1d(np.arange(len(tokenizer)), special)
    shown[hidden] = np.where(kind < MASKED, int(tokenizer.mask_token_id),
                             np.where(kind < MASKED + RANDOM, draw.choice(words, count), ids[hidden]))
    return MaskedRow(number, shown, hidden.astype(np.int64), ids[hidden])


def batches_of(rows: Sequence[MaskedRow], layout: str, rows_per_pass: int, max_tokens: int) -> Iterator[MaskedBatch]:
    """The forward passes of one step; see `treetune.models.encoder.batches_of`."""
    cut, join = (packed_passes, packed) if layout == "packed" else (passes, padded)
    nothing = np.zeros(1, dtype=np.int64)
    for run in cut([row.num_tokens for row in rows], rows_per_pass, max_tokens):
        mine = [rows[place] for place in run]
        batch = join([EncoderRow(row.row, place, row.input_ids, None, nothing)
                      for place, row in zip(run, mine, strict=True)], run)
        longest = max(row.num_tokens for row in mine)
        index = np.concatenate([number * longest + row.label_index for number, row in enumerate(mine)])
        yield MaskedBatch(batch, torch.from_numpy(index),
                          torch.from_numpy(np.concatenate([row.label_ids for row in mine])),
                          batch.num_tokens, batch.num_row_tokens)


def loss_sum(model: torch.nn.Module, batch: MaskedBatch) -> LossSum:
    """Negative log-likelihood of the hidden tokens in nats, as sum and count."""
    core = core_model(model)
    with labels_only(core.get_output_embeddings(), batch.label_index):
        logits = run_encoder(model, batch.rows).logits[0]
    logs = at_least_float32(logits).log_softmax(-1)
    return LossSum(-logs.gather(-1, batch.label_ids[:, None]).sum(), float(len(batch.label_ids)))
