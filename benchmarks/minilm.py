"""A real pretrained encoder (MiniLM, 22 M parameters, the `minilm` extra) tuned for sentiment and for extractive QA.

    python benchmarks/minilm.py [--only NAME] [--threads N] [--results FILE]

Claims: sentiment accuracy on rows that are positive or negative at least 0.86 (the three-way figure beside it), and F1
of extractive answers at least 0.60, each after at most 20 minutes on two cores. Full validation splits, seed 0; they
measure only: early choice of the best checkpoint uses a twentieth split off the training rows. Skips, saying so, where
../shared/data or the extra is missing.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch

from machine import score_lines
from treetune.core.errors import ModelError
from treetune.core.settings import TuneSettings
from treetune.models.embedded import minilm_folder
from treetune.workflow.evaluate import evaluate
from treetune.workflow.path import tune

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
COMMON: dict[str, Any] = {"model": "minilm", "seed": 0, "optim": "adamw", "validation_share": 0.05}
SENTIMENT = {"task": "sentiment", "num_train_epochs": 2, "learning_rate": 2e-4, "per_device_train_batch_size": 32,
             "warmup_ratio": 0.1, "max_length": 128, "max_tokens_per_pass": 400}
SETTINGS: dict[str, dict[str, Any]] = {
    "sentiment_two_way": SENTIMENT,
    "sentiment_three_way": SENTIMENT,
    "qa_squad": {"task": "question_answering", "num_train_epochs": 0.9, "learning_rate": 2e-4,
                 "per_device_train_batch_size": 8, "warmup_ratio": 0.1, "max_length": 384,
                 "max_tokens_per_pass": 1024, "eval_steps": 1000},
}
# Questions on single sentences first: a fifth of the tokens a row, so that the head learns to point before contexts
# grow long. Its time counts.
FIRST: dict[str, dict[str, Any]] = {
    "qa_squad": {"set": "qa/qamr", "task": "question_answering", "num_train_epochs": 0.8, "learning_rate": 3e-4,
                 "per_device_train_batch_size": 16, "warmup_ratio": 0.1, "max_length": 128,
                 "max_tokens_per_pass": 1024, "eval_steps": 1000},
}
SETS = {"sentiment_two_way": "sentiment/sst3", "sentiment_three_way": "sentiment/sst3", "qa_squad": "qa/squad_v11_dev"}
NOT_NEUTRAL = "two_way"


def watch(event: dict[str, Any]) -> None:
    """Evaluations, and a step now and then."""
    if event["event"] in ("evaluation", "tokens", "layout") or (event["event"] == "step" and event["step"] % 50 == 0):
        print(json.dumps(event), file=sys.stderr, flush=True)


def rows_for(name: str, split: str, folder: Path) -> Path:
    """The split's file; for two-way sentiment a copy without the neutral rows."""
    source = DATA / SETS[name] / f"{split}.jsonl.gz"
    if not name.endswith(NOT_NEUTRAL):
        return source
    target = folder / f"{split}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(source, "rt", encoding="utf-8") as lines:
        target.write_text("".join(line for line in lines if json.loads(line)["label"] != "neutral"), "utf-8")
    return target


def measure(name: str, runs: Path, threads: int) -> dict[str, Any]:
    """Tune and measure; all systems' scores with intervals."""
    folder = runs / name
    data = {split: str(rows_for(name, split, runs / "data" / name)) for split in ("train", "validation")}
    began = time.perf_counter()
    model = COMMON["model"]
    if first := dict(FIRST.get(name, {})):
        rows, before = DATA / first.pop("set") / "train.jsonl.gz", runs / f"{name}_first"
        tune(TuneSettings(**COMMON, **first, torch_threads=threads, output_dir=str(before), data=str(rows)), watch)
        model = str(before / "model")
    facts = tune(TuneSettings(**{**COMMON, "model": model}, **SETTINGS[name], torch_threads=threads,
                              output_dir=str(folder), data=data["train"]), watch)
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    record = evaluate(str(folder), data["validation"], watch, split="validation")
    return {
        "name": name, "set": SETS[name], "settings": {**COMMON, **SETTINGS[name]},
        "first": FIRST.get(name), "rows": record["counts"]["rows"],
        "tuning_seconds": round(seconds), "training_seconds": facts["seconds"],
        "evaluation_seconds": round(time.perf_counter() - began), "steps": facts["steps"],
        "best_step": facts["best_step"], "systems": record["scores"],
        "machine": f"{platform.machine()}, {threads} threads of {os.cpu_count()} cores",
        "versions": {each: importlib.metadata.version(each) for each in ("torch", "transformers")},
        "date": time.strftime("%Y-%m-%d"),
    }


def line(result: dict[str, Any]) -> str:
    """One line a system."""
    rows = [f"{result['name']}  ({result['rows']} rows, tuned in {result['tuning_seconds']} s, {result['machine']})"]
    return "\n".join([*rows, *score_lines(result["systems"])])


def main() -> None:
    """Measure and print; add to the results file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=list(SETTINGS))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--results", default=str(ROOT / "benchmarks" / "results" / "minilm.jsonl"))
    parser.add_argument("--runs", default=str(ROOT / "runs" / "minilm"))
    options = parser.parse_args()
    try:
        minilm_folder()
    except ModelError as error:
        print(f"skipped: {error}")
        return
    if not DATA.is_dir():
        print(f"skipped: {DATA} is not there")
        return
    torch.set_num_threads(options.threads)
    for name in options.only or SETTINGS:
        result = measure(name, Path(options.runs), options.threads)
        print(line(result), flush=True)
        with open(options.results, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(result, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
