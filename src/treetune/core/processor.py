"""What the kernel says of this machine's processor."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def processor_text() -> str:
    """All of it, a block a core; ``""`` where it says nothing."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
