"""The first issue's claim: on five real data sets, tuning the shipped base beats the untuned base and the same
shape from random weights; honest baselines stand beside them.

    python benchmarks/five_tasks.py [--only NAME] [--results FILE]

Full validation splits, seed 0. The validation split measures; early choice of the best checkpoint uses a tenth
split off the training rows, so the measured rows choose nothing. Skips, saying so, where ../shared/data is missing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from machine import score_lines
from treetune.core.settings import TuneSettings
from treetune.workflow.evaluate import evaluate
from treetune.workflow.path import tune

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
COMMON: dict[str, Any] = {"model": "gpt3", "seed": 0, "per_device_train_batch_size": 32, "optim": "adamw",
                          "validation_share": 0.05, "torch_threads": 1}
SETS: dict[str, dict[str, Any]] = {
    "sentiment/sst3": {"task": "sentiment", "num_train_epochs": 2, "learning_rate": 1e-3},
    "sentiment/online_shopping_10_cats": {"task": "sentiment", "max_steps": 80, "learning_rate": 1e-3,
                                          "max_length": 160},
    "qa/squad_v11_dev": {"task": "question_answering", "max_steps": 360, "learning_rate": 1e-3},
    "translation/multi30k_en_de": {"task": "translation", "max_steps": 200, "learning_rate": 2e-3,
                                   "max_new_tokens": 48},
    "summarization/scitldr": {"task": "summarization", "max_steps": 40, "learning_rate": 1e-3,
                              "max_new_tokens": 48},
}


def watch(event: dict[str, Any]) -> None:
    """Evaluations only."""
    if event["event"] in ("evaluation", "exactness", "tokens"):
        print(json.dumps(event), file=sys.stderr, flush=True)


def measure(name: str, runs: Path) -> dict[str, Any]:
    """Tune base and random initialisation on one set; all systems' scores."""
    systems: dict[str, Any] = {}
    seconds = {}
    for start, random_init in (("tuned", False), ("random-init", True)):
        folder = runs / name.replace("/", "-") / start
        began = time.perf_counter()
        settings = TuneSettings(**COMMON, **SETS[name], random_init=random_init, output_dir=str(folder),
                                data=str(DATA / name / "train.jsonl.gz"))
        tune(settings, watch)
        seconds[start] = round(time.perf_counter() - began)
        measured = folder / "evaluation.json"
        record = json.loads(measured.read_text(encoding="utf-8")) if measured.exists() else evaluate(
            str(folder), str(DATA / name / "validation.jsonl.gz"), watch, compare_base=not random_init,
            split="validation")
        for system, scores in record["scores"].items():
            systems[start if system == "tuned" else system] = scores
    return {"set": name, "settings": SETS[name], "seconds": seconds, "rows": record["counts"]["rows"],
            "systems": systems}


def line(result: dict[str, Any]) -> str:
    """One line a system."""
    rows = [f"{result['set']}  ({result['rows']} rows, tuned in {result['seconds']} s)"]
    return "\n".join([*rows, *score_lines(result["systems"])])


def main() -> None:
    """Measure and print; add to the results file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=list(SETS))
    parser.add_argument("--results", default=str(ROOT / "benchmarks" / "results" / "five_tasks.jsonl"))
    parser.add_argument("--runs", default=str(ROOT / "runs" / "five_tasks"))
    options = parser.parse_args()
    if not DATA.is_dir():
        print(f"skipped: {DATA} is not there")
        return
    for name in options.only or SETS:
        result = measure(name, Path(options.runs))
        print(line(result), flush=True)
        with open(options.results, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(result, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
