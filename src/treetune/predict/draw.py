"""Drawing a token instead of taking the likeliest: by one number a row and step, fixed before anything is computed.

So what is drawn for a row depends on the row and the seed alone, not on the rows it is computed with.
Letters: R rows, S steps, A rows that still write, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from treetune.core.records import FloatArray


@dataclass(frozen=True, slots=True)
class Draw:
    """``numbers``: (R, S) in [0, 1). ``temperature``: above 0; the logits are divided by it."""

    temperature: float
    numbers: FloatArray

    def of(self, rows: Sequence[int]) -> Draw:
        """The same for these rows, in this order."""
        return Draw(self.temperature, self.numbers[list(rows)])

    def tokens(self, logits: torch.Tensor, rows: Sequence[int], step: int) -> torch.Tensor:
        """(A,) a token for each of ``rows``, by the inverse of the distribution function; what stands at minus
        infinity is never drawn.

        Args:
            logits: (A, V), or log-probabilities.
        """
        below = (logits.double() / self.temperature).softmax(-1).cumsum(-1)
        numbers = torch.from_numpy(self.numbers[list(rows), step]).to(below.device)
        found = torch.searchsorted(below, numbers[:, None] * below[:, -1:], right=True)[:, 0]
        return torch.where(found < below.shape[1], found, logits.argmax(-1))  # rounding may carry it behind the last


class DrawnTokens:
    """Inside transformers' ``generate``, last of its processors: all but the drawn token at minus infinity."""

    def __init__(self, draw: Draw, begin: int) -> None:
        """Args: begin: tokens each row has before the first drawn one."""
        self.draw, self.begin = draw, begin

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        found = self.draw.tokens(scores, range(len(scores)), input_ids.shape[1] - self.begin)
        return torch.full_like(scores, -torch.inf).scatter_(-1, found[:, None], 0.0)
