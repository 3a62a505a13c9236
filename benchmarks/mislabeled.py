"""The claim: the ranking that `treetune explain RUN --suspects` uses finds planted wrong labels better than others do.

    python benchmarks/mislabeled.py [--rows 800] [--seeds 3] [--share 0.05]

Each seed: training rows of a real sentiment set, 5 % of whose labels are changed to another one; the shipped base is
tuned on them for one epoch as `treetune tune` would, and every ranking orders the training rows. AUC: chance that a
changed row ranks above an unchanged one; found: share of the changed rows among as many of the first rows.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from machine import RESULTS, conditions, facts, keep_results, table
from treetune.core.seeds import generator
from treetune.explain.suspects import RANKINGS, Rows
from treetune.explain.traces import representations, traces
from treetune.verbs import tune
from treetune.workflow.explain import training_of
from treetune.workflow.run import open_run

RESAMPLES = 200
DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "sentiment"


def planted(data: Path, count: int, share: float, seed: int) -> tuple[list[dict[str, Any]], set[str]]:
    """``count`` rows with an id each, and the ids of those whose label was changed."""
    with gzip.open(data, "rt", encoding="utf-8") as handle:
        rows = [json.loads(line) for line in handle]
    random = generator(seed, "mislabeled")
    chosen = [rows[place] for place in random.permutation(len(rows))[:count]]
    labels = sorted({row["label"] for row in rows})
    flipped = set(random.permutation(count)[: round(share * count)].tolist())
    for place, row in enumerate(chosen):
        row["id"] = f"r{place}"
        if place in flipped:
            others = [label for label in labels if label != row["label"]]
            row["label"] = others[int(random.integers(len(others)))]
    return chosen, {f"r{place}" for place in flipped}


def one_seed(data: Path, count: int, share: float, seed: int, work: Path) -> dict[str, Any]:
    """AUC and share found of every ranking."""
    rows, flipped = planted(data, count, share, seed)
    path, held = work / f"train-{seed}.jsonl", work / f"held-{seed}.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    held.write_text("".join(json.dumps({**row, "id": f"h{n}"}) + "\n" for n, row in enumerate(rows[:20])), "utf-8")
    output = work / f"run-{seed}"
    began = time.process_time()
    tune(task="sentiment", model="gpt3", data=str(path), validation_data=str(held), output_dir=str(output),
         num_train_epochs=1.0, learning_rate=1e-3, seed=seed, torch_threads=1)
    tuned = time.process_time() - began
    run = open_run(str(output))
    training = training_of(run)[0]
    changed = np.array([each.row_id in flipped for each in training])
    began = time.process_time()
    states = representations(run.loaded, training, run.max_length)
    at_states = time.process_time() - began
    began = time.process_time()
    left = traces(run.loaded, training, run.max_length)
    at_traces = time.process_time() - began
    own = Rows([each.answers[0] for each in training], states, left, seed, [each.source for each in training])
    scores = {name: rank(own) for name, rank in RANKINGS.items()}
    result = {}
    random = generator(seed, "rows of the interval")
    draws = [random.integers(0, len(changed), size=len(changed)) for _ in range(RESAMPLES)]
    for name, values in scores.items():
        first = np.argsort(-values, kind="stable")[: int(changed.sum())]
        result[name] = {"auc": float(roc_auc_score(changed, values)), "found": float(changed[first].mean()),
                        "drawn": [float(roc_auc_score(changed[draw], values[draw])) for draw in draws]}
    return {"seed": seed, "rows": len(training), "changed": int(changed.sum()), "rankings": result,
            "cpu_seconds": {"tuning": round(tuned, 1), "states": round(at_states, 1), "traces": round(at_traces, 1)}}


def to_markdown(kept: dict[str, Any]) -> str:
    """The page."""
    lines = []
    for key, one in kept.items():
        for name in one["seeds"][0]["rankings"]:
            aucs = [each["rankings"][name]["auc"] for each in one["seeds"]]
            found = [each["rankings"][name]["found"] for each in one["seeds"]]
            low, high = one["intervals"][name]
            lines.append([key, name, f"{np.mean(aucs):.3f} [{low:.3f}, {high:.3f}]",
                          ", ".join(f"{value:.3f}" for value in aucs), f"{np.mean(found):.3f}"])
    costs = "; ".join(f"{key}: {one['seeds'][0]['cpu_seconds']}" for key, one in kept.items())
    head = ["data", "ranking", "AUC, mean over seeds [95 %]", "each seed", "changed rows among as many of the first"]
    return (f"# Finding planted wrong labels\n\n`python benchmarks/mislabeled.py`\n\n{table(head, lines)}\n\n"
            f"Processor seconds of the first seed: {costs}.\n\n"
            + "\n".join(sorted({conditions(one["machine"]) for one in kept.values()})) + "\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="sst3")
    parser.add_argument("--rows", type=int, default=800)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    data = DATA / given.set / "train.jsonl.gz"
    if not data.is_file():
        raise SystemExit(f"the shared data is not beside the repository: {data}")
    torch.set_num_threads(1)
    seeds = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(given.seeds):
            seeds.append(one_seed(data, given.rows, given.share, seed, Path(folder)))
            print(seed, {name: round(each["auc"], 3) for name, each in seeds[-1]["rankings"].items()}, flush=True)
    key = f"{given.set}, {given.rows} rows, {given.share:.0%} changed"
    intervals = {}
    for name in seeds[0]["rankings"]:  # of the mean over seeds, rows drawn anew in each
        means = np.mean([each["rankings"][name].pop("drawn") for each in seeds], axis=0)
        intervals[name] = [float(value) for value in np.quantile(means, [0.025, 0.975])]
    record = {key: {"seeds": seeds, "intervals": intervals, "machine": facts(1)}}
    keep_results("mislabeled", record, to_markdown, given.results)
    print(to_markdown(record))


if __name__ == "__main__":
    main()
