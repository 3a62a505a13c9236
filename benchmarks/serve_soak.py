"""The claim: the server's memory, files and threads stay as they are, however long it answers.

    python benchmarks/serve_soak.py --minutes 6 --threads 2

The shipped base, tuned for sentiment, at 60 % of its capacity; every fifth client leaves before its answer, some bodies
are broken, some are streams. Resident memory, open files and threads are read from the kernel every two seconds. The
slope is that of a straight line through the second half, with its 95 % interval; nothing may end in a 500.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from machine import RESULTS, conditions, facts, keep_results, table
from serve_load import SETS, System, closed_loop, make_job, resident_mib, start

LOOK_SECONDS = 2.0
SHARE = 0.6


def look(process: int) -> dict[str, float]:
    """Memory, open files and threads of a process now."""
    place = Path(f"/proc/{process}")
    return {"mib": resident_mib(process), "files": float(len(list((place / "fd").iterdir()))),
            "threads": float(len(list((place / "task").iterdir())))}


async def soak(system: System, minutes: float, rows: Sequence[dict[str, str]]) -> dict[str, Any]:
    """Mixed requests at 60 % of capacity, and what the process looked like meanwhile."""
    await closed_loop(system, 16, 3.0)
    calm = await closed_loop(system, 16, 5.0)
    pace = SHARE * len(calm.latencies) / calm.seconds
    statuses: Counter[str] = Counter()
    seen: list[tuple[float, dict[str, float]]] = []
    began, chance = time.perf_counter(), random.Random(5)
    pending: set[asyncio.Task[None]] = set()
    due = 0.0
    while due < minutes * 60:
        due += chance.expovariate(pace)
        await asyncio.sleep(max(0.0, due - (time.perf_counter() - began)))
        task = asyncio.ensure_future(one(system, chance.random(), rows[chance.randrange(len(rows))], statuses))
        pending.add(task)
        task.add_done_callback(pending.discard)
        if not seen or due - seen[-1][0] >= LOOK_SECONDS:
            seen.append((due, look(system.process.pid)))
    await asyncio.gather(*pending)
    return {"pace": pace, "statuses": dict(statuses), "seen": seen, "end": look(system.process.pid)}


async def one(system: System, lot: float, row: dict[str, str], statuses: Counter[str]) -> None:
    """A plain request, one that leaves, a broken one, or a stream."""
    port = system.client.port
    body = json.dumps({**row, "stream": True} if lot > 0.8 else row).encode()
    if 0.1 < lot <= 0.2:
        body = body[:-5]
    head = (f"POST /v1/sentiment HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n").encode()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head + body)
        if 0.2 < lot <= 0.4:  # leaves
            await writer.drain()
            writer.close()
            statuses["left"] += 1
            return
        said = await reader.read()
        writer.close()
        statuses[said.split()[1].decode() if said else "none"] += 1
    except OSError:
        statuses["lost"] += 1


def slope(seen: Sequence[tuple[float, dict[str, float]]], name: str) -> tuple[float, float]:
    """An hour's change by least squares over the second half, and half its 95 % interval."""
    from scipy.stats import linregress

    half = [(at / 3600, found[name]) for at, found in seen[len(seen) // 2 :]]
    fit = linregress(*np.array(half).T)
    return float(fit.slope), 1.96 * float(np.nan_to_num(fit.stderr))  # no error is known of a constant: none


def report(found: dict[str, Any], machine: dict[str, Any], minutes: float) -> str:
    """A table and what the requests came to."""
    seen = found["seen"]
    middle = seen[len(seen) // 2][1]
    lines = []
    for name in ("mib", "files", "threads"):
        change, half = slope(seen, name)
        lines.append([name, f"{seen[0][1][name]:.1f}", f"{middle[name]:.1f}", f"{found['end'][name]:.1f}",
                      f"{change:+.2f} ± {half:.2f}"])
    text = table(["", "start", "half time", "end", "an hour"], lines)
    return (f"{text}\n\n{minutes:g} minutes at {found['pace']:.1f} requests/s ({SHARE:.0%} of capacity): "
            f"{found['statuses']}\n\n{conditions(machine)}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", default="", help="sentiment: the packaged rows, for a try")
    parser.add_argument("--results", default=str(RESULTS))
    arguments = parser.parse_args()
    from rows import is_there

    if not arguments.data and not is_there(SETS["gpt3"]):
        return
    machine = facts(arguments.threads)
    with tempfile.TemporaryDirectory() as place:
        job = make_job("gpt3", Path(place), arguments.threads, arguments.data)
        system = start("treetune", job)
        try:
            found = asyncio.run(soak(system, arguments.minutes, job.rows))
        finally:
            system.stop()
    text = report(found, machine, arguments.minutes)
    print(text)
    section = {"command": f"python {' '.join(sys.argv)}", "machine": machine, "text": text, "found": found}
    keep_results("serve_soak", {"gpt3": section}, lambda kept: "# Soak\n\n" + "\n".join(
        f"    {each['command']}\n\n{each['text']}" for each in kept.values()), Path(arguments.results))


if __name__ == "__main__":
    main()
