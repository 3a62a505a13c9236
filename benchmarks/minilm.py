"""A real pretrained encoder (MiniLM, 22 M parameters, the `minilm` extra) tuned for sentiment and for extractive QA.

    python benchmarks/minilm.py [--only NAME] [--minutes M] [--threads N] [--rows R] [--out FOLDER]

Claims: sentiment accuracy on rows that are positive or negative at least 0.86 (the three-way figure beside it), and F1
of extractive answers at least 0.60, each after at most 20 minutes on two cores (or 40 on one). Full validation splits,
seed 0; they measure only: early choice of the best checkpoint uses a twentieth split off the training rows.

Questions are learnt in two stages whose times count together. Questions on single sentences (QAMR) first: a quarter of
the tokens a row, so that the head learns to point before contexts grow long. SQuAD then gets what is left of the
budget, by the speed that the first stage measured, at most three epochs: its schedule ends when the time does.
Skips, saying so, where ../shared/data or the extra is missing. --rows is for a smoke test.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import torch

from machine import RESULTS, conditions, facts, keep_results, table
from treetune.core.errors import ModelError
from treetune.core.settings import TuneSettings
from treetune.models.embedded import minilm_folder
from treetune.models.family import load_head
from treetune.models.load import load_tokenizer
from treetune.tasks.contract import load_task
from treetune.workflow.evaluate import evaluate
from treetune.workflow.gather import gather_training
from treetune.workflow.path import tune

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
COMMON: dict[str, Any] = {"model": "minilm", "seed": 0, "optim": "adamw", "validation_share": 0.05}
SENTIMENT: dict[str, Any] = {"task": "sentiment", "num_train_epochs": 3, "learning_rate": 1e-4,
                             "per_device_train_batch_size": 16, "warmup_ratio": 0.1, "max_length": 128,
                             "max_tokens_per_pass": 1024}
SETTINGS: dict[str, dict[str, Any]] = {
    "sentiment_two_way": SENTIMENT,
    "sentiment_three_way": SENTIMENT,
    "qa_squad": {"task": "question_answering", "num_train_epochs": 3, "learning_rate": 2e-4,
                 "per_device_train_batch_size": 8, "warmup_ratio": 0.1, "max_length": 384,
                 "max_tokens_per_pass": 2048},
}
FIRST: dict[str, Any] = {"set": "qa/qamr", "task": "question_answering", "num_train_epochs": 1, "learning_rate": 3e-4,
                         "per_device_train_batch_size": 16, "warmup_ratio": 0.1, "max_length": 128,
                         "max_tokens_per_pass": 2048, "eval_steps": 100_000}
SETS = {"sentiment_two_way": "sentiment/sst3", "sentiment_three_way": "sentiment/sst3", "qa_squad": "qa/squad_v11_dev"}
CLAIMS = {"sentiment_two_way": ("accuracy", 0.86), "sentiment_three_way": ("accuracy", None), "qa_squad": ("f1", 0.60)}
NOT_NEUTRAL = "two_way"
CORE_SECONDS = 2 * 20 * 60  # two cores for twenty minutes, or one for forty
OVERHEAD = 0.15  # of a stage's time: evaluations, reading, the proof


def watch(event: dict[str, Any]) -> None:
    """Evaluations, and a step now and then."""
    kind = event["event"]
    if kind in ("evaluation", "tokens", "exactness") or (kind == "step" and event["step"] % 50 == 0):
        print(json.dumps(event), file=sys.stderr, flush=True)


def rows_for(source: Path, folder: Path, count: int, two_way: bool) -> str:
    """The file, or a copy of its first ``count`` rows; for two-way sentiment without the neutral ones."""
    if not two_way and not count:
        return str(source)
    target = folder / source.name.removesuffix(".gz")
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(source, "rt", encoding="utf-8") as lines:
        kept = [line for line in lines if not two_way or json.loads(line)["label"] != "neutral"]
    target.write_text("".join(kept[: count or len(kept)]), "utf-8")
    return str(target)


def epochs_left(seconds: float, speed: float, settings: TuneSettings) -> float:
    """Epochs that fit into ``seconds`` at ``speed`` row tokens a second, between a tenth and three."""
    training, _, _ = gather_training(settings, load_task(settings.task), None)
    tokenizer, _ = load_tokenizer(settings.model)
    rows = load_head("spans").encode(training.examples, tokenizer, settings.max_length)
    tokens = sum(row.num_tokens for row in rows)
    return round(min(3.0, max(0.1, seconds * (1 - OVERHEAD) * speed / tokens)), 2)


def measure(name: str, runs: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Tune and measure; all systems' scores with intervals."""
    found = facts(options.threads)
    data = {split: rows_for(DATA / SETS[name] / f"{split}.jsonl.gz", runs / "data" / name, options.rows,
                            name.endswith(NOT_NEUTRAL)) for split in ("train", "validation")}
    common = {**COMMON, "torch_threads": options.threads}
    settings = dict(SETTINGS[name])
    stages = []
    began = time.perf_counter()
    if name == "qa_squad":
        first = dict(FIRST)
        rows = rows_for(DATA / first.pop("set") / "train.jsonl.gz", runs / "data" / "first", options.rows, False)
        before = runs / f"{name}_first"
        known = tune(TuneSettings(**common, **first, output_dir=str(before), data=rows), watch)
        used = time.perf_counter() - began
        stages.append({"set": FIRST["set"], "seconds": round(used), "steps": known["steps"]})
        common["model"] = str(before / "model")
        settings["num_train_epochs"] = epochs_left(
            options.minutes * 60 - used, known["row_tokens"] / known["seconds"],
            TuneSettings(**common, **settings, output_dir=str(runs / name), data=data["train"]))
    known = tune(TuneSettings(**common, **settings, output_dir=str(runs / name), data=data["train"]), watch)
    seconds = time.perf_counter() - began
    stages.append({"set": SETS[name], "seconds": round(seconds - sum(each["seconds"] for each in stages)),
                   "steps": known["steps"], "epochs": settings["num_train_epochs"]})
    record = evaluate(str(runs / name), data["validation"], watch, split="validation")
    return {
        "set": SETS[name], "settings": settings, "first": FIRST if len(stages) > 1 else None, "stages": stages,
        "rows": record["counts"]["rows"], "tuning_seconds": round(seconds), "layout": known["layout"],
        "tokens_a_second": round(known["row_tokens"] / known["seconds"]), "systems": record["scores"],
        "command": shlex.join(["python", "benchmarks/minilm.py", *sys.argv[1:]]), "facts": found,
    }


def page(kept: dict[str, Any]) -> str:
    """The results as Markdown, with whether each claim was met."""
    lines = []
    for name, result in kept.items():
        metric, least = CLAIMS[name]
        for system, scores in result["systems"].items():
            [score] = [each for each in scores if each["metric"] == metric]
            within = result["tuning_seconds"] * result["facts"]["threads"] <= CORE_SECONDS
            claim = "" if least is None or system != "tuned" else f"{least:.2f}: " + (
                "met" if score["value"] >= least and within else "missed")
            spent = (result["tuning_seconds"], result["facts"]["threads"]) if system == "tuned" else ("", "")
            lines.append([name, system, metric, f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]",
                          str(result["rows"]), *map(str, spent), claim])
    head = ["what", "system", "metric", "value, 95 % interval", "rows", "tuning, s", "threads", "claim"]
    how = [f"- {name}: `{result['command']}`; {result['layout']} rows, {result['tokens_a_second']} row tokens/s; "
           f"stages {json.dumps(result['stages'])}; {conditions(result['facts'])}" for name, result in kept.items()]
    return "\n".join(["# MiniLM, tuned on two cores", "", table(head, lines), "", *how, ""])


def main() -> None:
    """Measure, print, and keep the results beside those of earlier calls."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=list(SETTINGS))
    parser.add_argument("--minutes", type=float, default=20.0, help="of both stages of question answering together")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rows", type=int, default=0, help="rows of each split; 0: all")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "minilm")
    parser.add_argument("--out", type=Path, default=RESULTS)
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
        result = measure(name, options.runs, options)
        print(keep_results("minilm", {name: result}, page, options.out)[1].read_text("utf-8"), flush=True)


if __name__ == "__main__":
    main()
