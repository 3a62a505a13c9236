"""Which of a run's processes this is, as torchrun tells it; known without torch."""

from __future__ import annotations

import os


def count() -> int:
    """Processes that work on the run together; 1 where torchrun did not start this one."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def rank() -> int:
    """Number of this process, from 0."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def is_lead() -> bool:
    """Whether this process writes the run folder and speaks; the others only compute."""
    return rank() == 0
