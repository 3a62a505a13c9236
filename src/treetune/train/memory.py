"""Memory: kept in the process once freed, held under a ceiling, and passes made half as large when it runs out."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGE = 1 << 30
KERNELS_KEPT = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
SAYS_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "failed to allocate")


def keep_freed_memory() -> bool:
    """Tell glibc's malloc not to return memory page by page, which costs a fifth of a step; False without glibc.

    What is free when this is called (the proof before the first step leaves hundreds of MB in pieces) is returned.
    oneDNN, which multiplies bfloat16 matrices, keeps a kernel and its memory for each of the last 1024 shapes, and
    every step's labels are another shape: 12 MB a step, where keeping 64 costs no time. The user's own number stays.
    """
    os.environ.setdefault(*KERNELS_KEPT)  # read at its first product
    if sys.platform != "linux":
        return False
    try:
        glibc = ctypes.CDLL("libc.so.6")
        mallopt, trim = glibc.mallopt, glibc.malloc_trim
    except (OSError, AttributeError):
        return False
    trim(0)
    return bool(mallopt(M_MMAP_THRESHOLD, LARGE)) and bool(mallopt(M_TRIM_THRESHOLD, 2 * LARGE - 1))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch or Python says that memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in SAYS_OUT_OF_MEMORY)


@contextmanager
def memory_ceiling(gigabytes: float) -> Iterator[None]:
    """Inside, allocations beyond ``gigabytes`` (10^9 bytes; 0: no ceiling) fail in this process.

    On a GPU the ceiling is that of its memory. On the processor the kernel counts what a process has written or may
    write (RLIMIT_DATA, Linux), set so that resident memory now plus what may still be allocated is the ceiling.
    """
    if not gigabytes:
        yield
        return
    ceiling = int(gigabytes * 1e9)
    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(min(1.0, ceiling / torch.cuda.mem_get_info()[1]))
        yield
        return
    if sys.platform != "linux":
        yield
        return
    before, hard = resource.getrlimit(resource.RLIMIT_DATA)
    facts = memory_facts()
    limit = facts["VmData"] + max(0, ceiling - facts["VmRSS"])
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, hard))


def memory_facts() -> dict[str, int]:
    """Bytes of this process as Linux counts them: ``VmRSS`` resident, ``VmData`` writable."""
    lines = (line.split() for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words and words[0].startswith("Vm")}


def with_passes(make_batches: Callable[..., Any], share: float, num_rows: int = 0) -> Callable[..., Any]:
    """``make_batches`` with passes of that share of rows and tokens; of ``num_rows`` rows at most where given.

    The rows of a step, and so the numbers, stay what they are; a gradient is added up in other portions.
    """
    if not isinstance(make_batches, partial):
        return make_batches
    rows = max(1, int(make_batches.keywords["rows_per_pass"] * share))
    tokens = max(1, int(make_batches.keywords["max_tokens"] * share))
    return partial(make_batches, rows_per_pass=min(rows, num_rows) if num_rows else rows, max_tokens=tokens)
