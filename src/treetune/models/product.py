"""Large products of two matrices, by the faster of two libraries that are here anyway: torch's, or numpy's.

torch multiplies by MKL, and on AMD processors with AVX-512 that is the slower one: on the layers of an 82 M GPT-2 it
reaches 150 to 185 GFLOP/s on two Zen 4 cores, numpy's OpenBLAS 180 to 200, the more so where others use the machine,
too. Both compute in float32; they add up in another order. Each has threads of its own, and those of the one that
has nothing to do must be asleep, or they take the cores from the other's (`treetune.core.threads`).
Letters: M, K, N are rows of the left matrix, its columns, columns of the right one.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from treetune.core.processor import processor_text
from treetune.core.threads import sleep_soon

LEAST_WORK = 1 << 27
"""Multiplications: about a millisecond. Below it, waking the other library's threads takes what it gains."""
NARROWEST = 128
"""Rows, columns or terms: with 64 the two are as fast."""
MOST_THREADS = 4
"""More were not at hand to measure."""
ROWS_AT_A_TIME = 4096
"""Of the left matrix. The library copies them into memory of its own, which each thread keeps for good: 50,257 rows
leave 53 MB with two threads, 4096 leave 7, at a twelfth less speed."""


def product(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """left (M, K), right (K, N) -> (M, N), into ``out`` where that is given. Not seen by autograd."""
    return _by_numpy(left, right, out) if pays(left, right) else torch.mm(left, right, out=out)


def affine(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """states (..., I), weight (O, I), bias (O,) -> (..., O), as torch's linear layer. Not seen by autograd."""
    if not pays(states, weight.T):
        return functional.linear(states, weight, bias)
    found = _by_numpy(states.reshape(-1, states.shape[-1]), weight.T, None)
    return (found if bias is None else found.add_(bias)).view(*states.shape[:-1], len(weight))


def _by_numpy(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
    found = left.new_empty(left.shape[0], right.shape[1]) if out is None else out
    same_threads()
    rows, columns, result = _one_way_dense(left), _one_way_dense(right), found.numpy()
    with np.errstate(all="ignore"):  # as torch, which says nothing where a number is none
        for start in range(0, len(rows), ROWS_AT_A_TIME):
            some = slice(start, start + ROWS_AT_A_TIME)
            np.matmul(rows[some], columns, out=result[some])  # np.dot copies a part of a matrix first
    return found


def _one_way_dense(matrix: torch.Tensor) -> npt.NDArray[np.float32]:
    """The matrix, numbers of a row or of a column side by side, as the library reads it; a copy where they are not."""
    found: npt.NDArray[np.float32] = matrix.detach().numpy()
    rows, columns = found.shape
    by_row, by_column = (stride // found.itemsize for stride in found.strides)
    readable = (by_column == 1 and by_row >= columns) or (by_row == 1 and by_column >= rows)
    return found if readable else np.ascontiguousarray(found)


def pays(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether numpy multiplies left (..., K) by right (K, N): plain float32 tensors of a processor, large enough."""
    (terms, columns), work = right.shape, left.numel() * right.shape[1]
    large = work >= LEAST_WORK and min(work // (terms * columns), terms, columns) >= NARROWEST
    return large and all(map(_is_plain, (left, right))) and numpys() is not None


def _is_plain(matrix: torch.Tensor) -> bool:
    return type(matrix) in (torch.Tensor, nn.Parameter) and matrix.dtype == torch.float32 and matrix.is_cpu


def same_threads() -> None:
    """Give numpy's library as many threads as torch has."""
    library = numpys()
    if library is not None and library.num_threads != torch.get_num_threads():
        library.set_num_threads(torch.get_num_threads())


def numpys() -> Any:
    """The library of numpy's products, as threadpoolctl controls it, where it is the faster one; else None."""
    return _openblas() if torch.get_num_threads() <= MOST_THREADS and sleep_soon(os.environ) else None


@cache
def _openblas() -> Any:
    """OpenBLAS as numpy brings it, on an AMD processor with AVX-512."""
    if not (is_amd() and "avx512f" in processor_text()):
        return None
    from threadpoolctl import ThreadpoolController

    found = [each for each in ThreadpoolController().lib_controllers
             if each.internal_api == "openblas" and each.threading_layer == "pthreads" and "numpy" in each.filepath]
    return found[0] if len(found) == 1 else None


def is_amd() -> bool:
    """Whether this processor is one of AMD's; False where the system does not say."""
    return "AuthenticAMD" in processor_text()
