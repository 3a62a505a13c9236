"""One habit of older glibc that costs a tuning 4 to 14 % of its memory, and how a process leaves it off.

torch asks for aligned memory. glibc cuts the place to size and puts the few bytes that are left, not with the free
memory beside them, but aside for the next small request. So the place of a tensor that was freed is too small for
another of the same size, for good: a 0.1 B Llama grows to 2.7 GB, and to 2.3 GB without, in the same time. glibc 2.38
mended it (its bug 30723). Before that, only the environment that a process starts with can.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping

TUNABLES = "GLIBC_TUNABLES"
NOTHING_ASIDE = "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0"
MENDED = (2, 38)


def glibc_version() -> tuple[int, ...]:
    """(2, 36) and so on; () where the C library is another one."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        return tuple(int(part) for part in version.split(".")) if name == "glibc" else ()
    except (AttributeError, ValueError, OSError):
        return ()


def put_nothing_aside(environment: MutableMapping[str, str]) -> bool:
    """Set what a process must start with; False where nothing is to be won, or the user has set tunables."""
    if TUNABLES in environment or not () < glibc_version() < MENDED:
        return False
    environment[TUNABLES] = NOTHING_ASIDE
    return True


def start_again() -> None:
    """Put this process, before it has done anything, in its own place with `put_nothing_aside`; else return."""
    if sys.executable and put_nothing_aside(os.environ):
        try:
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
        except OSError:  # as it is, then
            return
