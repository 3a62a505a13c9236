"""The first issue's claim: on five real data sets, tuning the shipped base beats the untuned base and the same
shape from random weights; honest baselines stand beside them. The English sentiment rows are tuned on MiniLM as well, a
real pretrained encoder of 22 million parameters (the `minilm` extra), against its own shape from random weights.

    python benchmarks/five_tasks.py [--only NAME] [--starts tuned] [--results FILE]
    python benchmarks/five_tasks.py --search NAME [--runs FOLDER]

Full validation splits, seed 0. The validation split measures and chooses nothing: the best checkpoint is chosen on a
twentieth split off the training rows, optimizer and learning rate by `--search` on rows split off the training part,
for each start by itself. Skips, saying so, where ../shared/data is missing.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from machine import score_lines
from treetune.core.settings import TuneSettings
from treetune.workflow.evaluate import evaluate
from treetune.workflow.path import tune

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
COMMON: dict[str, Any] = {"model": "gpt3", "seed": 0, "per_device_train_batch_size": 32, "optim": "muon",
                          "validation_share": 0.05, "torch_threads": 1}
SETS: dict[str, dict[str, Any]] = {
    "sentiment/sst3": {"task": "sentiment", "num_train_epochs": 2},
    "sentiment/online_shopping_10_cats": {"task": "sentiment", "max_steps": 80, "max_length": 160},
    "qa/squad_v11_dev": {"task": "question_answering", "max_steps": 360},
    "translation/multi30k_en_de": {"task": "translation", "max_steps": 200, "max_new_tokens": 48},
    "summarization/scitldr": {"task": "summarization", "max_steps": 171, "max_new_tokens": 48,
                              "no_repeat_ngram_size": 3},
    "sentiment/sst3 with minilm": {"task": "sentiment", "model": "minilm", "optim": "adamw", "num_train_epochs": 2,
                                   "per_device_train_batch_size": 16, "warmup_ratio": 0.1, "max_length": 128,
                                   "max_tokens_per_pass": 1024, "bf16": True},
}
# each start by itself, by trials on rows split off the training part: benchmarks/results/five_tasks_search.md
RATES: dict[str, dict[str, float]] = {
    "sentiment/sst3": {"tuned": 0.002, "random-init": 0.005},
    "sentiment/online_shopping_10_cats": {"tuned": 0.005, "random-init": 0.005},
    "qa/squad_v11_dev": {"tuned": 0.002, "random-init": 0.005},
    "translation/multi30k_en_de": {"tuned": 0.005, "random-init": 0.005},
    "summarization/scitldr": {"tuned": 0.002, "random-init": 0.005},
    "sentiment/sst3 with minilm": {"tuned": 0.0001, "random-init": 0.0003},
}
STARTS = ("tuned", "random-init")
# of --search: rows split off, steps of a trial, and what each start is tried with
SPLIT_OFF = {"sentiment/sst3": (800, 240), "sentiment/online_shopping_10_cats": (800, 60),
             "qa/squad_v11_dev": (400, 120), "translation/multi30k_en_de": (500, 60),
             "summarization/scitldr": (150, 57), "sentiment/sst3 with minilm": (800, 240)}
TRIALS = (("muon", 0.002), ("muon", 0.005), ("adamw", 0.001), ("adamw", 0.003))
MINILM_TRIALS = (("adamw", 0.0001), ("adamw", 0.0003), ("adamw", 0.001))


def rows_of(name: str) -> Path:
    """The folder of a set, whichever model it is tuned on."""
    return DATA / name.split(" with ")[0]


def watch(event: dict[str, Any]) -> None:
    """Evaluations only."""
    if event["event"] in ("evaluation", "exactness", "tokens"):
        print(json.dumps(event), file=sys.stderr, flush=True)


def folder_of(name: str) -> str:
    """A name as a folder."""
    return name.replace("/", "-").replace(" ", "-")


def measure(name: str, runs: Path, starts: Sequence[str] = STARTS) -> dict[str, Any]:
    """Tune base and random initialisation on one set; all systems' scores."""
    systems: dict[str, Any] = {}
    seconds = {}
    for start in starts:
        random_init = start == "random-init"
        folder = runs / folder_of(name) / start
        began = time.perf_counter()
        settings = TuneSettings(**{**COMMON, **SETS[name]}, random_init=random_init, output_dir=str(folder),
                                learning_rate=RATES[name][start], data=str(rows_of(name) / "train.jsonl.gz"))
        tune(settings, watch)
        seconds[start] = round(time.perf_counter() - began)
        measured = folder / "evaluation.json"
        record = json.loads(measured.read_text(encoding="utf-8")) if measured.exists() else evaluate(
            str(folder), str(rows_of(name) / "validation.jsonl.gz"), watch, compare_base=not random_init,
            split="validation")
        for system, scores in record["scores"].items():
            systems[start if system == "tuned" else system] = scores
    return {"set": name, "settings": {**COMMON, **SETS[name]}, "learning_rate": RATES[name], "seconds": seconds,
            "rows": record["counts"]["rows"], "systems": systems}


def split_training(name: str, folder: Path) -> None:
    """``train.jsonl.gz`` and ``dev.jsonl.gz`` in ``folder``; rows of one passage stay together."""
    with gzip.open(rows_of(name) / "train.jsonl.gz", "rt", encoding="utf-8") as handle:
        rows = [json.loads(text) for text in handle]
    owners = [row.get("context", number) for number, row in enumerate(rows)]
    drawn = sorted(set(owners))
    random.Random(0).shuffle(drawn)
    kept_out = set(drawn[: len(drawn) * SPLIT_OFF[name][0] // len(rows)])
    folder.mkdir(parents=True, exist_ok=True)
    for part, wanted in (("train", False), ("dev", True)):
        with gzip.open(folder / f"{part}.jsonl.gz", "wt", encoding="utf-8") as handle:
            handle.writelines(json.dumps(row, ensure_ascii=False) + "\n"
                              for row, owner in zip(rows, owners, strict=True) if (owner in kept_out) == wanted)


def search(name: str, runs: Path) -> None:
    """Short trials of every optimizer and learning rate for either start; a line each."""
    folder = runs / "search" / folder_of(name)
    split_training(name, folder)
    for optim, rate in MINILM_TRIALS if "minilm" in name else TRIALS:
        for start in RATES[name]:
            own = {**COMMON, **SETS[name], "optim": optim, "learning_rate": rate, "max_steps": SPLIT_OFF[name][1]}
            run = folder / f"{start}-{optim}-{rate}"
            facts = tune(TuneSettings(**own, random_init=start != "tuned", output_dir=str(run),
                                      data=str(folder / "train.jsonl.gz"),
                                      validation_data=str(folder / "dev.jsonl.gz")), watch)
            found = evaluate(str(run), str(folder / "dev.jsonl.gz"), watch, compare_base=False, split="validation")
            score = found["scores"]["tuned"][0]
            print(f"{name}  {start:12} {optim} {rate:<6} loss {facts['validation_loss']:.4f}  "
                  f"{score['metric']} {score['value']:.4f}", flush=True)


def line(result: dict[str, Any]) -> str:
    """One line a system."""
    rows = [f"{result['set']}  ({result['rows']} rows, tuned in {result['seconds']} s)"]
    return "\n".join([*rows, *score_lines(result["systems"])])


def main() -> None:
    """Measure and print; add to the results file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=list(SETS))
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=STARTS,
                        help="random weights do not change with the base")
    parser.add_argument("--results", default=str(ROOT / "benchmarks" / "results" / "five_tasks.jsonl"))
    parser.add_argument("--runs", default=str(ROOT / "runs" / "five_tasks"))
    parser.add_argument("--search", choices=list(SETS), help="try learning rates on rows split off the training part")
    options = parser.parse_args()
    if not DATA.is_dir():
        print(f"skipped: {DATA} is not there")
        return
    if options.search:
        search(options.search, Path(options.runs))
        return
    for name in options.only or SETS:
        result = measure(name, Path(options.runs), options.starts)
        print(line(result), flush=True)
        with open(options.results, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(result, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
