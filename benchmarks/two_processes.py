"""The claim: two processes on two cores take a step of the same rows sooner than one, and it is known what they lose.

    python benchmarks/two_processes.py [--shape gpt2-82m --rounds 2 --steps 3]

The shipped base, or another shape, on the first rows of SST (three labels), 32 rows a step whatever the number of
processes, AdamW, trees of as many tokens as `max_tokens_per_pass` says. One process with one thread and with two; two
processes with one thread each, holding all weights each, and holding a part each (FSDP2, ``--fsdp full_shard``). Every
run is its own processes, the ways take turns, and of each way the median over its runs of the median step is shown.

Lost to communication is the time of the lead inside sums, gathers and scatters, waiting for the other one included,
as a share of its steps. What is also lost is that a pass of a smaller share of the rows shares fewer tokens: the tokens
computed a step are shown. What a process holds: weights and optimizer state, after the first step.
"""

from __future__ import annotations

import argparse
import gzip
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from children import run_child, serve_child
from machine import RESULTS, conditions, facts, keep_results, table
from shapes import SHAPES, save_shape

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "sentiment" / "sst3"
ROWS, WARM = 32, 2
WAYS: dict[str, dict[str, Any]] = {
    "1 process, 1 thread": {"size": 1, "threads": 1},
    "1 process, 2 threads": {"size": 1, "threads": 2},
    "2 processes, all weights in each": {"size": 2, "threads": 1},
    "2 processes, a part in each": {"size": 2, "threads": 1, "sharded": True},
}
EXCHANGES = ("all_reduce", "all_gather_single", "reduce_scatter_single")  # the last two: names since torch 2.13


def clocked(spent: list[float]) -> None:
    """Make torch.distributed's exchanges add the seconds they take to ``spent``; they end when they are done."""
    from torch import distributed

    def timed(plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            work = plain(*args, **options)
            if work is not None:
                work.wait()
            spent[0] += time.perf_counter() - began
            return work

        return call

    for name in EXCHANGES:
        setattr(distributed, name, timed(getattr(distributed, name)))


def held_bytes(model: Any, optimizers: list[Any]) -> int:
    """Bytes of weights and optimizer state in this process."""
    from torch.distributed.tensor import DTensor

    states = [value for optimizer in optimizers for entries in optimizer.state.values() for value in entries.values()]
    tensors = [each.to_local() if isinstance(each, DTensor) else each for each in (*model.parameters(), *states)]
    return sum(each.numel() * each.element_size() for each in tensors)


def work(job: dict[str, Any]) -> dict[str, Any]:
    """One process of a way: its steps' seconds, and how much of them it spent in exchanges."""
    os.environ.update(job["environment"])
    from treetune.core.settings import TuneSettings
    from treetune.models.batches import batches_of
    from treetune.models.engine import fullest_engine, set_up
    from treetune.models.load import load_model
    from treetune.models.tokens import tokenize
    from treetune.tasks.contract import load_task
    from treetune.train.distributed import join_team, shard_model
    from treetune.train.loop import train_step
    from treetune.train.memory import keep_freed_memory
    from treetune.train.optimizers import build_optimizers
    from treetune.workflow.gather import gather_training

    keep_freed_memory()
    settings = TuneSettings(task="sentiment", data=job["rows"], validation_data=job["rows"], output_dir="unused",
                            per_device_train_batch_size=ROWS)
    training, _, _ = gather_training(settings, load_task("sentiment"), None)
    loaded = load_model(job["model"], move=False)
    examples = tokenize(training.examples, loaded.tokenizer, loaded.window)
    spent, steps, exchanged, losses, tokens = [0.0], [], [], [], []
    clocked(spent)
    with join_team() as team:
        if job.get("sharded"):
            shard_model(loaded.model)
        set_up(loaded.model, fullest_engine(loaded.model))
        optimizers = build_optimizers(loaded.model, settings.optim, settings.learning_rate, settings.weight_decay)
        make = team.smaller(partial(batches_of, layout="tree", rows_per_pass=ROWS,
                                    max_tokens=settings.max_tokens_per_pass), ROWS)
        for step in range(job["steps"]):
            taken = examples[step * ROWS : (step + 1) * ROWS]
            team.add_up([0.0])  # both begin together
            began, spent[0] = time.perf_counter(), 0.0
            found = train_step(loaded.model, optimizers, taken, make, settings, step)
            steps.append(time.perf_counter() - began)
            exchanged.append(spent[0])
            losses.append(found.loss)
            tokens.append(found.tokens)
        held = held_bytes(loaded.model, optimizers)
    timed = steps[WARM:]
    return {"step_seconds": median(timed), "communication_share": sum(exchanged[WARM:]) / sum(timed),
            "losses": losses, "tokens": sum(tokens[WARM:]) / len(timed), "held_bytes": held}


def run_way(way: dict[str, Any], model: Path, rows: Path, steps: int) -> dict[str, Any]:
    """A way's processes side by side; what the lead found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    jobs = []
    for rank in range(way["size"]):
        team = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(way["size"]), "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port} if way["size"] > 1 else {}
        jobs.append({**way, "model": str(model), "rows": str(rows), "steps": WARM + steps, "environment": team})
    with ThreadPoolExecutor(len(jobs)) as pool:
        found = list(pool.map(lambda job: run_child(__file__, job, timeout=600), jobs))
    for each in found:
        if "error" in each:
            raise SystemExit(f"{way}: {each['error']}")
    return found[0]


def measure(shape: str, rounds: int, steps: int, work_folder: Path) -> dict[str, Any]:
    """All ways in turn, ``rounds`` times."""
    save_shape(shape, work_folder / "model")
    rows = work_folder / "rows.jsonl"
    with gzip.open(DATA / "train.jsonl.gz", "rt", encoding="utf-8") as handle:
        rows.write_text("".join(handle.readlines()[: ROWS * (WARM + steps)]), "utf-8")
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in WAYS}
    for number in range(rounds):
        for name, way in WAYS.items():
            runs[name].append(run_way(way, work_folder / "model", rows, steps))
            print(f"  round {number + 1}, {name}: {runs[name][-1]['step_seconds']:.3f} s a step", flush=True)
    [first, *_] = [found[0]["losses"] for found in runs.values()]
    return {
        "steps": steps, "rounds": rounds, "rows": ROWS, "ways": {
            name: {"step_seconds": median(run["step_seconds"] for run in found),
                   "all_step_seconds": [round(run["step_seconds"], 4) for run in found],
                   "communication_share": median(run["communication_share"] for run in found),
                   "tokens": found[0]["tokens"], "held_bytes": found[0]["held_bytes"],
                   "loss_difference": max(abs(one - other) / abs(one) for one, other in
                                          zip(first, found[0]["losses"], strict=True))}
            for name, found in runs.items()}}


def to_markdown(sections: dict[str, Any]) -> str:
    """The results page."""
    text = ["# Two processes", "", (__doc__ or "").split("\n\n")[0], ""]
    for key, found in sections.items():
        one = found["ways"]["1 process, 1 thread"]["step_seconds"]
        text += [f"## {key}", "", table(
            ["way", "step, s (all runs)", "times as fast", "lost to communication", "tokens a step", "held, MB",
             "largest difference of a loss"],
            [[name, f"{way['step_seconds']:.3f} ({', '.join(f'{s:.3f}' for s in way['all_step_seconds'])})",
              f"{one / way['step_seconds']:.2f}",
              f"{100 * way['communication_share']:.1f} %" if name.startswith("2") else "–",
              f"{way['tokens']:.0f}", f"{way['held_bytes'] / 1e6:.1f}", f"{way['loss_difference']:.1e}"]
             for name, way in found["ways"].items()]), "",
            f"{found['rows']} rows a step, {found['steps']} steps a run after {WARM} that are not counted, "
            f"{found['rounds']} runs of each way, by turns.", "", conditions(found["conditions"]), ""]
    return "\n".join([*text, "Commands: `python benchmarks/two_processes.py` for each shape (`--shape`)", ""])


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="gpt3-base")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not DATA.is_dir():
        raise SystemExit(f"the shared data is not beside the repository: {DATA}")
    began = facts(1)
    with tempfile.TemporaryDirectory() as folder:
        found = {"conditions": began, **measure(options.shape, options.rounds, options.steps, Path(folder))}
    section = {f"{options.shape}, sst3": found}
    print(to_markdown(section))
    keep_results("two_processes", section, to_markdown, options.results)


if __name__ == "__main__":
    serve_child(work) if "--child" in sys.argv else main()
