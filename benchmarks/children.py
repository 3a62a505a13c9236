"""One child process a measurement: its own memory, its own threads, one JSON object back."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from machine import RESULTS
from treetune.core.allocator import put_nothing_aside
from treetune.core.threads import wait_asleep

MARK = "RESULT "
ROOT = Path(__file__).resolve().parents[1]
GIB = 1 << 30

UNCOUNTED = 2
"""Steps of a training that are not counted: until the optimizer's state stands, which the first step ends with, memory
still grows."""


def run_child(script: str, job: dict[str, Any], timeout: float = 3600) -> dict[str, Any]:
    """``python script --child`` with ``job`` on its standard input.

    Args:
        job: plain values; ``threads`` and ``memory_limit`` (GiB of address space, 0: none) are obeyed here.

    Returns:
        What the child's work returned, or ``{"error": its last words}``.
    """
    threads = str(job["threads"])
    environment = {
        **os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")])),
    }
    if str(job.get("system", "")).startswith("treetune"):
        put_nothing_aside(environment)  # this and the next as the command does for itself
        wait_asleep(environment)
    try:
        done = subprocess.run([sys.executable, script, "--child"], input=json.dumps(job), capture_output=True,
                              text=True, env=environment, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"stopped after {timeout:.0f} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode == 0 and lines:
        return dict(json.loads(lines[-1][len(MARK):]))
    words = [line for line in done.stderr.splitlines() if line.strip()] or [f"ended with {done.returncode}"]
    return {"error": words[-1][:300]}


def add_options(parser: argparse.ArgumentParser, timeout: float) -> None:
    """What every script has that lets systems take turns, each run a child."""
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--timeout", type=float, default=timeout, help="seconds after which a run is given up")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)


def take_turns(
    systems: Sequence[str], repeats: int, finalists: Callable[[dict[str, list[dict[str, Any]]]], list[str]],
    run: Callable[[str], dict[str, Any]],
) -> dict[str, list[dict[str, Any]]]:
    """Runs by system: every system in the first round, the finalists in those after it, every other round backwards."""
    runs: dict[str, list[dict[str, Any]]] = {system: [] for system in systems}
    for turn in range(repeats):
        listed = systems if turn == 0 else finalists(runs)
        for system in listed if turn % 2 == 0 else reversed(listed):
            runs[system].append(run(system))
    return runs


def serve_child(work: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """The child's side: read the job, set limits and threads, work, print the result."""
    job = json.loads(sys.stdin.read())
    if job.get("memory_limit"):
        limit = int(job["memory_limit"] * GIB)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    score = Path("/proc/self/oom_score_adj")  # where memory is short, this process goes first
    if score.exists():
        score.write_text("1000", encoding="ascii")
    import torch

    torch.set_num_threads(job["threads"])
    result = work(job)
    print("\n" + MARK + json.dumps(result), flush=True)


def torch_gpu() -> Any:
    """``torch.cuda`` where a GPU is there to be used, else None."""
    import torch

    return torch.cuda if torch.cuda.is_available() else None


def forget_peak() -> None:
    """Start the peak of `memory_now` again from what is in use, where the kernel can."""
    if torch_gpu() is not None:
        torch_gpu().reset_peak_memory_stats()
    place = Path("/proc/self/clear_refs")
    if place.exists():
        place.write_text("5", encoding="ascii")


def memory_now(field: str = "VmHWM") -> float:
    """MiB of this process: ``VmHWM`` its peak so far, ``VmRSS`` now; of getrusage where there is no /proc.

    On a GPU: what torch has taken of the device's memory, not of the host's.
    """
    if (gpu := torch_gpu()) is not None:
        return float(gpu.max_memory_allocated() if field == "VmHWM" else gpu.memory_allocated()) / 2**20
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith(field + ":"))
    return int(line.split()[1]) / 1024
