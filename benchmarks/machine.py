"""What a number was measured on: processor, threads, versions, date; and the processor's own matrix-multiply peak."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from treetune.workflow.machine import processor_name

PACKAGES = ("torch", "transformers", "tokenizers", "peft", "trl", "accelerate", "datasets", "lm-eval", "numpy")
RESULTS = Path(__file__).resolve().parent / "results"


def has_peer(module: str) -> bool:
    """Whether a peer is installed beside treetune."""
    return importlib.util.find_spec(module) is not None


def facts(threads: int) -> dict[str, Any]:
    """Machine, versions, date. ``load``: other processes' demand on the processor in the last minute."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"), "machine": platform.machine(), "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads, "load": round(os.getloadavg()[0], 2), "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := version_of(name))},
    }


def score_lines(systems: dict[str, Any]) -> list[str]:
    """One line a system: every metric with its interval, as `treetune.evaluate` records them."""
    return [
        f"  {system:26s} " + "   ".join(f"{s['metric']} {s['value']:.3f} [{s['low']:.3f}, {s['high']:.3f}]"
                                          for s in scores)
        for system, scores in systems.items()
    ]


def version_of(package: str) -> str:
    """Installed version, ``""`` if there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def matmul_peak(sizes: tuple[int, ...] = (512, 1024, 1536, 2048), tries: int = 3, *, bf16: bool = False) -> float:
    """FLOP/s of the device that torch would train on: the best of some square products, 2 n³ operations each, by torch
    and as treetune makes them.

    On a GPU larger squares are tried too, and the clock stops when the device is done.
    """
    import torch

    from treetune.models.product import product

    gpu = torch.cuda.is_available()
    device, dtype = ("cuda" if gpu else "cpu"), (torch.bfloat16 if bf16 else torch.float32)
    best = 0.0
    for size in (*sizes, 4096, 8192) if gpu else sizes:
        left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        out = torch.empty_like(left)
        for multiply in (torch.mm, product):
            multiply(left, right, out=out)
            for _ in range(tries):
                wait_for_device()
                began = time.perf_counter()
                multiply(left, right, out=out)
                wait_for_device()
                best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


def wait_for_device() -> None:
    """Until a GPU, if there is one, has done what it was told: else a clock would time the telling."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def device_name() -> str:
    """The GPU's name, ``""`` without one."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def keep_results(
    name: str, sections: dict[str, Any], to_markdown: Callable[[dict[str, Any]], str], folder: Path
) -> tuple[Path, Path]:
    """Put ``sections`` into ``name.json``, replacing those of the same key, and write ``name.md`` from all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    kept |= sections
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page = folder / f"{name}.md"
    page.write_text(to_markdown(kept), encoding="utf-8")
    return path, page


def processor() -> str:
    """Its name in the key of a table: ratios of one kind of processor say little about another."""
    return re.sub(r"\(R\)| Processor", "", processor_name())


def table(head: list[str], lines: list[list[str]]) -> str:
    """A Markdown table: the first column to the left, the others to the right."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, rule, *lines])


def conditions(found: dict[str, Any]) -> str:
    """One line under a table."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return (f"{found['date']}, {found['processor']} ({found['machine']}), {found['threads']} threads on "
            f"{found['cores']} cores, load {found['load']} before the first run; {versions}.")
