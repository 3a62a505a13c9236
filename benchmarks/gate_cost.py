"""The claim: a decision costs less than a twentieth of its prediction.

    python benchmarks/gate_cost.py RUN … [--write]

The stored predictions of each run pass through the whole door once more: text scores, checks, score, threshold,
drift watch, audit log on disk. Their time a row (processor time of this process, the median of five passes) is set
against the
prediction's own stored time a row. A gate of this benchmark's making stands in a copy of the run's small files; loading
the model and its digest (once a process) are not counted.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gate import stored
from gate_shift import examples_by_row
from machine import RESULTS, conditions, facts, keep_results, table
from treetune.core.files import RunFolder, read_json, value_digest, write_json
from treetune.decide.drift import ALARM_CHANCE, reference_of
from treetune.decide.gate import fit_gate, sealed
from treetune.decide.judged import one_per_group, split_judged
from treetune.decide.sequence import Promise
from treetune.decide.validators.contract import validators_of
from treetune.tasks.contract import load_task
from treetune.workflow.decider import Decider, Recording
from treetune.workflow.run import options_of

WRONG = {"translation": "chrf<20", "summarization": "rougeL<0.1"}


def measure(run: str) -> dict[str, Any]:
    """Milliseconds a row of the prediction and of the door."""
    settings = read_json(RunFolder(Path(run)).model / "treetune.json")
    task = load_task(settings["task"])
    open_run = SimpleNamespace(task=task, options=options_of(settings))
    judged = stored(run, "", WRONG.get(task.NAME, ""))
    own = examples_by_row(run, "", open_run)
    examples = [own[each.row] for each in judged.predictions]
    tune, calibration = split_judged(judged)
    checks = validators_of(task.NAME)
    fitted = fit_gate(tune, calibration, Promise(0.3, 0.9), checks=[each.NAME for each in checks],
                      flag_only=[each.NAME for each in checks if each.FLAG_ONLY])
    used = one_per_group(calibration)
    reference = reference_of([own[each.row] for each in tune.predictions], [own[each.row] for each in used.predictions],
                             [0.5] * len(used)).as_dict()
    with tempfile.TemporaryDirectory() as name:
        folder = RunFolder(Path(name))
        write_json(folder.trust / "reference.json", reference)
        write_json(folder.gate, sealed({**fitted, "wrong": WRONG.get(task.NAME, "label differs"), "scope": {},
                                        "drift": {"alarm_chance": ALARM_CHANCE, "reference": value_digest(reference)}}))
        passes = []
        for _ in range(5):
            stub: Any = SimpleNamespace(folder=folder, task=task)
            decider = Decider(stub, Recording(), changed=())
            began = time.process_time()
            decider.decide([replace(each, decision=None) for each in judged.predictions], examples)
            passes.append((time.process_time() - began) / len(judged))
            for path in folder.trust.glob("stream-*"):
                path.unlink()
    predicted = sum(each.seconds for each in judged.predictions) / len(judged)
    door = statistics.median(passes)
    return {"run": task.NAME, "base": settings["base_model"], "rows": len(judged), "prediction_ms": 1000 * predicted,
            "decision_ms": 1000 * door, "share": door / predicted}


def to_markdown(kept: dict[str, Any]) -> str:
    lines = [[f"{row['run']} ({row['base']})", str(row["rows"]), f"{row['prediction_ms']:.3f}",
              f"{row['decision_ms']:.3f}", f"{row['share']:.2%}"] for row in kept["rows"]]
    return (f"# What a decision costs\n\n`python benchmarks/gate_cost.py RUN … --write`\n\n"
            f"{table(['run', 'rows', 'prediction, ms a row', 'decision, ms a row', 'share'], lines)}\n\n"
            f"{conditions(kept['conditions'])}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    rows = [measure(run) for run in given.runs]
    for row in rows:
        print("  ".join(f"{value:.4f}" if isinstance(value, float) else str(value) for value in row.values()))
    if given.write:
        keep_results("gate_cost", {"conditions": facts(1), "rows": rows}, to_markdown, RESULTS)


if __name__ == "__main__":
    main()
