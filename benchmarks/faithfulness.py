"""The claim: the explanations are true more often than chance, and where they are not the report says so.

    python benchmarks/faithfulness.py RUN --data FILE [--rows 60] [--methods integrated_gradients,...]

For each row: explain the run's own answer by every method, take the words it names away (comprehensiveness,
sufficiency, deletion curve), and compare in pairs with five random orders and with "rare words first". Also the time
of an explanation, the agreement of our integrated gradients with captum's, and the rank correlation of the map with
that of the same model with shuffled weights. Writes results/faithfulness.md; each run adds its own lines.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from machine import RESULTS, conditions, facts, has_peer, keep_results, table
from treetune.core.files import RunFolder, read_json
from treetune.explain.attribution import STEPS, attribute, integrated_gradients
from treetune.explain.choose import subject_of
from treetune.explain.faithfulness import FREQUENCY, METRICS, RANDOM, map_correlation, measure_faithfulness, word_counts
from treetune.explain.subject import Subject, varied
from treetune.explain.words import sums_of_words
from treetune.workflow.evaluate import answer
from treetune.workflow.gather import read_for, to_examples
from treetune.workflow.run import open_run

TITLE = """# Are the explanations true

`python benchmarks/faithfulness.py RUN --data FILE --rows N`

Chance of the answer against its runner-up when words are taken away in the order of the explanation. Difference to
random order on the same rows, 95 % interval; comprehensiveness above 0, sufficiency and deletion area below 0 are
better than chance. CPU s: processor seconds of one explanation, one thread, on a machine shared with other jobs.
Shuffled: rank correlation of the map with that of the same model with shuffled weights.
"""
DEFAULT_METHODS = "integrated_gradients,gradient_x_input,occlusion"


def subjects_of(run_path: str, data: str, rows: int) -> tuple[Any, list[Subject], list[str]]:
    """The run, the first ``rows`` rows with the run's own answers, and what their intervals are clustered by."""
    run = open_run(run_path)
    found = read_for(run.task, data, "test", {})
    every = max(1, len(found.rows) // rows)
    found = replace(found, rows=found.rows[::every][:rows])
    examples = to_examples(run.task, found, run.options, None, 1.0).examples
    predictions = answer(run, run.loaded, examples)
    made = [subject_of(run.loaded, run.task, example, prediction, max_length=run.max_length, layout=run.layout)
            for example, prediction in zip(examples, predictions, strict=True)]
    return run, made, [example.source for example in examples]


def captum_agreement(subject: Subject) -> float | None:
    """Cosine of our word values and those of captum's integrated gradients on the same path; None without captum."""
    if not has_peer("captum"):
        return None
    from captum.attr import IntegratedGradients

    places = varied(subject)
    tokens = [token for place in places for token in subject.words[place].tokens]
    point = subject.embedded()
    start = point.clone()
    start[tokens] = subject.baseline()
    theirs = IntegratedGradients(subject.scores_of_embedded).attribute(
        point[None], baselines=start[None], n_steps=STEPS, internal_batch_size=8)
    words = sums_of_words(subject.words, theirs[0].sum(-1).detach().double().numpy())
    ours = integrated_gradients(subject, places).values
    return float(ours @ words / (np.linalg.norm(ours) * np.linalg.norm(words)))


def measure(run_path: str, data: str, rows: int, methods: list[str]) -> dict[str, Any]:
    """All numbers of one run."""
    run, subjects, sources = subjects_of(run_path, data, rows)
    counts = word_counts(sources)
    began = time.process_time()
    found = measure_faithfulness(subjects, methods, counts, cluster=sources)
    record = found.as_dict()
    record["cpu_seconds_all"] = round(time.process_time() - began, 1)
    for name in methods:
        began = time.process_time()
        for subject in subjects[:3]:
            attribute(subject, name)
        record["methods"][name]["cpu_seconds"] = round((time.process_time() - began) / len(subjects[:3]), 3)
        record["methods"][name]["map_correlation"] = round(map_correlation(subjects[:4], name), 3)
    began = time.process_time()
    shapley = [attribute(subject, "shapley") for subject in subjects[:1]]
    record["shapley_cpu_seconds"] = round(time.process_time() - began, 3)
    record["shapley_evaluations"] = [each.evaluations for each in shapley]
    record["captum"] = [value for subject in subjects[:3] if (value := captum_agreement(subject)) is not None]
    own = read_json(RunFolder(Path(run_path)).model / "treetune.json")
    return {**record, "task": run.task.NAME, "model": f"{Path(own['base_model']).name} ({own['head']})",
            "data": Path(data).parent.name, "words": round(float(np.mean([len(varied(s)) for s in subjects])), 1),
            "parameters": own["parameters"], "machine": facts(torch.get_num_threads())}


def to_markdown(kept: dict[str, Any]) -> str:
    """The page."""
    lines = [TITLE]
    body = []
    for one in kept.values():
        for name, method in one["methods"].items():
            if name in (RANDOM, FREQUENCY):
                continue
            cells = []
            for metric in METRICS:
                versus = method["against"][RANDOM][metric]["interval"]
                cells.append(f"{versus['value']:+.3f} [{versus['low']:+.3f}, {versus['high']:+.3f}]")
            rare = method["against"][FREQUENCY]["deletion"]["interval"]
            body.append([f"{one['task']}, {one['data']}, {one['model']}", name, str(one["rows"]), str(one["words"]),
                         *cells, f"{rare['value']:+.3f} [{rare['low']:+.3f}, {rare['high']:+.3f}]",
                         "yes" if method["beats_random"] else "**no**", f"{method['cpu_seconds']:.2f}",
                         f"{method['map_correlation']:.2f}"])
    lines.append(table(["task, data, model", "method", "rows", "words", "comprehensiveness", "sufficiency",
                        "deletion area", "deletion area against rare words first", "beats random", "CPU s",
                        "shuffled"], body))
    lines.append("\nShapley sampling (20 orders), CPU s an explanation, and agreement (cosine over words) with "
                 "captum's integrated gradients on the same path:\n")
    lines.append(table(["run", "Shapley CPU s", "inputs computed", "cosine with captum, least of 3"], [
        [f"{one['task']}, {one['data']}, {one['model']}", str(one["shapley_cpu_seconds"]),
         ", ".join(map(str, one["shapley_evaluations"])), f"{min(one['captum']):.6f}" if one["captum"] else "–"]
        for one in kept.values()]))
    return "\n".join([*lines, "", *sorted({conditions(one["machine"]) for one in kept.values()})]) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--data", required=True)
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--methods", default=DEFAULT_METHODS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    record = measure(given.run, given.data, given.rows, given.methods.split(","))
    key = f"{record['task']}, {record['data']}, {record['model']}"
    for path in keep_results("faithfulness", {key: record}, to_markdown, given.results):
        print(path)
    print(to_markdown({key: record}))


if __name__ == "__main__":
    main()
