"""The packaged rows: small, hand-written, in English and Chinese, for `treetune demo` and the tests."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from treetune.core.errors import UsageError


def sample_path(task: str, split: str) -> Path:
    """The packaged file of a task's split, e.g. ``sample_path("sentiment", "train")``.

    Raises:
        UsageError: E1123 there is none; the ones there are get named.
    """
    root = Path(str(resources.files(__name__)))
    known = {f"{path.parent.name}/{path.stem}": path for path in sorted(root.glob("*/*.jsonl"))}
    if f"{task}/{split}" not in known:
        raise UsageError("E1123", "there are no packaged rows for {task}, {split}", task=task, split=split,
                         found=f"{task}/{split}", allowed=", ".join(known), do="choose one of them")
    return known[f"{task}/{split}"]
