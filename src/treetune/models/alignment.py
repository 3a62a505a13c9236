"""Rows of products filled up to a multiple, where a library keeps something for every number of rows it meets.

oneDNN, which multiplies bfloat16 matrices on processors, compiles a kernel for every shape and never gives one back:
a quarter of a MB each (ten or more a step, whose tokens are another number each time), and each new one takes longer
than the last. Its cache has a limit that can be set (`treetune.train.memory`), its store of kernels has none. With
multiples of 32 rows it has few shapes to know, for one token in sixty more.
"""

from __future__ import annotations

import torch

MULTIPLE = 32


def rows_together(weight: torch.Tensor) -> int:
    """What the rows of products with this matrix should be a multiple of."""
    half = torch.is_autocast_enabled("cpu") or weight.dtype in (torch.bfloat16, torch.float16)
    return MULTIPLE if half and weight.device.type == "cpu" else 1


def filled_up(states: torch.Tensor, multiple: int) -> torch.Tensor:
    """states (T, D) with rows of zeros behind them, to the next multiple."""
    missing = -len(states) % multiple
    return torch.nn.functional.pad(states, (0, 0, 0, missing)) if missing else states
