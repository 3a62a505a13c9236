"""From trees or rows to the tensors of one forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from treetune.core.records import IntArray, TokenizedExample, TokenTree
from treetune.models.tree_attention import TreeLayout
from treetune.trees import allowed_pairs, pack
from treetune.trees.build import input_ids_of


@dataclass(frozen=True, slots=True)
class Batch:
    """Tensors of one forward pass. B rows, T tokens, K labels.

    Attributes:
        input_ids: (B, T). position_ids: (B, T).
        attention_mask: None (plain causal, or a tree), or (B, T) with 0 at padding.
        tree: who sees whom, for packed rows; None for padded ones.
        label_index: (K,) into the B*T tokens. label_ids: (K,). label_weight: (K,).
        label_example: (K,) which example of the step a label belongs to.
        num_tokens: tokens computed. num_row_tokens: tokens of the separate rows.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    attention_mask: torch.Tensor | None
    tree: TreeLayout | None
    label_index: torch.Tensor
    label_ids: torch.Tensor
    label_weight: torch.Tensor
    label_example: torch.Tensor
    num_tokens: int
    num_row_tokens: int

    def mask(self) -> torch.Tensor | None:
        """`attention_mask`, or for a tree (1, 1, T, T) bool, for models that take no tree."""
        if self.tree is None:
            return self.attention_mask
        allowed = allowed_pairs(self.tree.branch_end)
        return torch.from_numpy(allowed)[None, None].to(self.input_ids.device)

    def to(self, device: torch.device) -> Batch:
        """The same batch on ``device``."""
        moved: dict[str, Any] = {
            name: value.to(device) if isinstance(value, torch.Tensor) else value
            for name, value in ((name, getattr(self, name)) for name in self.__dataclass_fields__)
        }
        return Batch(**moved)


def tree_batch(tree: TokenTree) -> Batch:
    """One tree as a batch of one long row."""
    return Batch(
        input_ids=torch.from_numpy(tree.input_ids)[None],
        position_ids=torch.from_numpy(tree.depth)[None],
        attention_mask=None,
        tree=TreeLayout(tree),
        label_index=torch.from_numpy(tree.label_index),
        label_ids=torch.from_numpy(tree.label_ids),
        label_weight=torch.from_numpy(tree.label_weight).float(),
        label_example=torch.from_numpy(tree.label_example),
        num_tokens=len(tree.input_ids),
        num_row_tokens=tree.num_row_tokens,
    )


def aligned(batch: Batch, multiple: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(1, T') ids and positions of a tree, and its layout filled up to a multiple of tokens that nothing reads."""
    assert batch.tree is not None
    batch.tree.align(multiple)
    missing = len(batch.tree.depth) - batch.input_ids.shape[1]
    return torch.nn.functional.pad(batch.input_ids, (0, missing)), torch.nn.functional.pad(
        batch.position_ids, (0, missing))


def right_padded(sequences: Sequence[IntArray]) -> tuple[IntArray, IntArray]:
    """(B, T) ids, zero behind each row's end, and (B, T) mask: 1 at tokens, 0 at padding."""
    ids = np.zeros((len(sequences), max(map(len, sequences))), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return ids, mask


def padded_batch(examples: Sequence[TokenizedExample], first_example: int = 0) -> Batch:
    """Rows padded on the right to the longest; padding is masked and carries no label."""
    sequences = [input_ids_of(example) for example in examples]
    ids, mask = right_padded(sequences)
    longest = ids.shape[1]
    index, labels, owner = [], [], []
    for row, example in enumerate(examples):
        count = len(example.completion_ids)
        start = row * longest + len(example.prompt_ids) - 1
        index.append(np.arange(start, start + count))
        labels.append(example.completion_ids)
        owner.append(np.full(count, first_example + row))
    label_ids = torch.from_numpy(np.concatenate(labels).astype(np.int64))
    return Batch(
        input_ids=torch.from_numpy(ids),
        position_ids=torch.arange(longest).expand(len(examples), longest),
        attention_mask=None if mask.all() else torch.from_numpy(mask),
        tree=None,
        label_index=torch.from_numpy(np.concatenate(index).astype(np.int64)),
        label_ids=label_ids,
        label_weight=torch.ones(len(label_ids)),
        label_example=torch.from_numpy(np.concatenate(owner).astype(np.int64)),
        num_tokens=ids.size,
        num_row_tokens=int(mask.sum()),
    )


def batches_of(
    examples: Sequence[TokenizedExample], layout: str, rows_per_pass: int, max_tokens: int
) -> Iterator[Batch]:
    """The forward passes of one step.

    Args:
        examples: the rows of the step. layout: ``tree``, ``packed`` or ``padded``.
        rows_per_pass: rows of one pass at most. max_tokens: unique tokens of one packed pass at most.
    """
    for start in range(0, len(examples), rows_per_pass):
        part = examples[start : start + rows_per_pass]
        if layout == "padded":
            yield padded_batch(part, start)
            continue
        for tree in pack(part, max_tokens, share=layout == "tree"):
            batch = tree_batch(tree)
            batch.label_example.add_(start)
            yield batch
