"""`treetune predict` killed by SIGKILL again and again at random moments: how often its file has each row then."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

BLOCK_ROWS = 8
LONGEST_DELAY = 0.5  # seconds between a block's last line and the kill


def killed(job: dict[str, Any]) -> dict[str, Any]:
    """One command that nobody stops, and one killed ``job["kills"]`` times and given again; both files compared.

    Returns:
        ``rows`` that are asked, ``kills``, ``at``: rows written at each of them, ``missing`` and ``twice``: rows that
        are not there, or more than once; ``equal``: lines that are those of the command nobody stopped.
    """
    folder = Path(job["folder"])
    whole, cut = folder / "whole.jsonl", folder / "killed.jsonl"
    run_to_end(words_for(job, whole))
    chance = random.Random(0)
    at = [rows for _ in range(job["kills"]) if (rows := kill_once(words_for(job, cut), cut, chance)) is not None]
    run_to_end(words_for(job, cut))
    expected, found = lines_of(whole), lines_of(cut)
    counts = Counter(line["row"] for line in found)
    return {"rows": len(expected), "kills": len(at), "at": at,
            "missing": sum(line["row"] not in counts for line in expected),
            "twice": sum(count > 1 for count in counts.values()),
            "equal": sum(one == two for one, two in zip(expected, found, strict=False))}


def words_for(job: dict[str, Any], output: Path) -> list[str]:
    """The command as a user gives it."""
    return [sys.executable, "-m", "treetune", "predict", job["run"], "--data", job["data"], "--output", str(output),
            "--block-rows", str(BLOCK_ROWS), "--max-refused-share", "0.05"]


def run_to_end(words: list[str]) -> None:
    """Raises:
        RuntimeError: with what the command said.
    """
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(" ".join(done.stderr.split())[-300:])


def kill_once(words: list[str], output: Path, chance: random.Random) -> int | None:
    """Kill the command at a random moment behind its next block; rows written then, None where it was faster."""
    journal, partial = (output.with_name(f"{output.name}.{end}") for end in ("journal", "partial"))
    before = lines_in(journal)
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and lines_in(journal) <= max(1, before):  # its first line says what was begun
        time.sleep(0.002)
    time.sleep(chance.uniform(0, LONGEST_DELAY))
    process.kill()
    return lines_in(partial) if process.wait() == -signal.SIGKILL and partial.exists() else None


def lines_in(path: Path) -> int:
    """0 where there is no such file."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Answers without the time they took."""
    return [{name: value for name, value in json.loads(line).items() if name != "seconds"}
            for line in path.read_text("utf-8").splitlines()]
