"""The question: what keeping the rows of one passage together costs in quality, and what it saves.

    python benchmarks/row_order.py [--steps 160] [--seeds 2] [--threads 1]
    python benchmarks/row_order.py --steps 480 --orders grouped            more steps of the cheaper order
    python benchmarks/row_order.py --rows-per-step 96 --orders grouped     more rows a step of it

The shipped base is tuned on SQuAD rows once an order and seed, with the same settings; only the order differs
(`row_order: grouped`, the default where sources repeat, or `shuffled`). Measured: the loss on the validation split
after the last step, and the tokens that were computed. Skips, saying so, where ../shared/data is missing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from machine import RESULTS, conditions, facts, keep_results, table
from rows import DATA, is_there

SET = "qa/squad_v11_dev"
ORDERS = ("grouped", "shuffled")


def tuned(order: str, seed: int, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Validation loss (nats a token of the answers) of one run, and what it computed."""
    from treetune.core.settings import TuneSettings
    from treetune.workflow.path import tune

    settings = TuneSettings(
        task="question_answering", model="gpt3", data=str(DATA / SET / "train.jsonl.gz"),
        validation_data=str(DATA / SET / "validation.jsonl.gz"), seed=seed, row_order=order,  # type: ignore[arg-type]
        max_steps=options.steps, eval_steps=options.steps, learning_rate=1e-3, torch_threads=options.threads,
        per_device_train_batch_size=options.rows_per_step,
        output_dir=str(folder / f"{order}-{seed}"))
    facts_of_run = tune(settings, lambda event: None)
    return {"order": order, "seed": seed, "validation_loss": facts_of_run["validation_loss"],
            "row_tokens": facts_of_run["row_tokens"], "computed_tokens": facts_of_run["computed_tokens"],
            "seconds": facts_of_run["seconds"]}


def to_markdown(sections: dict[str, Any]) -> str:
    """The results page."""
    head = ["order", "seed", "validation loss", "tokens computed", "row tokens per computed", "seconds"]
    text = ["# Rows of one passage together, or all rows shuffled", "", __doc__.split("\n\n")[0], ""]
    for section in sections.values():
        lines = [[run["order"], str(run["seed"]), f"{run['validation_loss']:.4f}", f"{run['computed_tokens']:,}",
                  f"{run['row_tokens'] / run['computed_tokens']:.2f}", f"{run['seconds']:.0f}"]
                 for run in section["runs"]]
        text += [table(head, lines), "",
                 f"{SET}, {section['steps']} steps of {section['rows_per_step']} rows, the shipped base.", "",
                 *([section["note"], ""] if "note" in section else []), conditions(section["conditions"]), ""]
    return "\n".join(text)


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rows-per-step", type=int, default=32)
    parser.add_argument("--orders", nargs="+", choices=ORDERS, default=list(ORDERS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not is_there(SET):
        return
    found = facts(options.threads)
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            for order in options.orders:
                runs.append(tuned(order, seed, options, Path(folder)))
                print(json.dumps(runs[-1]), flush=True)
    key = f"{SET} · {options.steps} steps of {options.rows_per_step} rows · {', '.join(options.orders)}"
    section = {key: {"conditions": found, "steps": options.steps, "rows_per_step": options.rows_per_step, "runs": runs}}
    print(to_markdown(section))
    keep_results("row_order", section, to_markdown, options.results)


if __name__ == "__main__":
    main()
