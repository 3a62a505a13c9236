"""The claim: saving takes less than 2 % of the time of a run at the default interval.

    python benchmarks/saving.py

The shipped base on the first rows of SST (three labels), settings as they come: 32 rows a step, AdamW, a checkpoint at
each evaluation, which is once an epoch. Steps and saves are timed in turn, so that both see the same machine; medians.
What an evaluation takes is not counted as training, which would only make the share smaller.
"""

from __future__ import annotations

import argparse
import gzip
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from machine import RESULTS, conditions, facts, keep_results, table

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "sentiment" / "sst3"


def measure(num_steps: int, work: Path) -> dict[str, Any]:
    """Seconds of steps and saves, bytes of a checkpoint, rows of an epoch."""
    import torch

    from treetune.core.settings import TuneSettings
    from treetune.models.batches import batches_of
    from treetune.models.engine import fullest_engine, set_up
    from treetune.models.load import load_model
    from treetune.models.tokens import tokenize
    from treetune.tasks.contract import load_task
    from treetune.train.checkpoint import TrainState, save_checkpoint
    from treetune.train.loop import train_step
    from treetune.train.memory import keep_freed_memory
    from treetune.train.optimizers import build_optimizers
    from treetune.workflow.gather import gather_training

    torch.set_num_threads(1)
    keep_freed_memory()
    settings = TuneSettings(task="sentiment", data=str(work / "rows.jsonl"), output_dir=str(work / "run"),
                            validation_data=str(work / "rows.jsonl"))
    with gzip.open(DATA / "train.jsonl.gz", "rt", encoding="utf-8") as handle:
        lines = handle.readlines()
    rows = settings.per_device_train_batch_size
    (work / "rows.jsonl").write_text("".join(lines[: rows * num_steps]), "utf-8")
    training, _, _ = gather_training(settings, load_task("sentiment"), None)
    loaded = load_model("gpt3")
    set_up(loaded.model, fullest_engine(loaded.model))
    examples = tokenize(training.examples, loaded.tokenizer, loaded.window)
    optimizers = build_optimizers(loaded.model, settings.optim, settings.learning_rate, settings.weight_decay)
    make = partial(batches_of, layout="tree", rows_per_pass=rows, max_tokens=settings.max_tokens_per_pass)
    steps, saves, processor = [], [], []
    path = work
    for step, at in enumerate(range(0, len(examples), rows)):
        began = time.perf_counter()
        train_step(loaded.model, optimizers, examples[at : at + rows], make, settings, step)
        steps.append(time.perf_counter() - began)
        began, used = time.perf_counter(), time.process_time()
        path = save_checkpoint(work / "checkpoints", loaded.model, optimizers, TrainState(step=step + 1), {}, 2)
        saves.append(time.perf_counter() - began)
        processor.append(time.process_time() - used)
    per_epoch = -(-len(lines) // rows)
    step_seconds, save_seconds = median(steps[1:]), median(saves[1:])
    return {
        "checkpoint_bytes": sum(file.stat().st_size for file in path.iterdir()), "rows": len(lines),
        "step_seconds": step_seconds, "save_seconds": save_seconds, "save_processor_seconds": median(processor[1:]),
        "steps_between": per_epoch, "share": save_seconds / (per_epoch * step_seconds),
        "fewest_steps_between": -(-save_seconds // (0.02 * step_seconds)),
    }


def to_markdown(sections: dict[str, Any]) -> str:
    """The results page."""
    text = ["# Saving", "", (__doc__ or "").split("\n\n")[0], ""]
    for key, found in sections.items():
        text += [f"## {key}", "", table(
            ["checkpoint, MB", "save, s", "of it processor, s", "step, s", "steps between saves", "share of time",
             "2 % from so many steps between"],
            [[f"{found['checkpoint_bytes'] / 1e6:.1f}", f"{found['save_seconds']:.3f}",
              f"{found['save_processor_seconds']:.3f}", f"{found['step_seconds']:.3f}", str(found["steps_between"]),
              f"{100 * found['share']:.2f} %", f"{found['fewest_steps_between']:.0f}"]]), "",
            conditions(found["conditions"]), ""]
    return "\n".join([*text, "Command: `python benchmarks/saving.py`", ""])


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not DATA.is_dir():
        raise SystemExit(f"the shared data is not beside the repository: {DATA}")
    with tempfile.TemporaryDirectory() as folder:
        found = {"conditions": facts(1), **measure(options.steps, Path(folder))}
    section = {"shipped base, sst3": found}
    print(to_markdown(section))
    keep_results("saving", section, to_markdown, options.results)


if __name__ == "__main__":
    main()
