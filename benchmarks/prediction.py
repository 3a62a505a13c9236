"""The claim: the same trees make predictions several times faster than transformers and lm-evaluation-harness.

    python benchmarks/prediction.py --shape gpt2-82m gpt3-base --threads 2

Sentiment: the likelihood of every label, by treetune, by a transformers pipeline (batch size 1 is its default) and by
lm-evaluation-harness' log-likelihoods (also in its own form, without end-of-text). Question answering: greedy answers
by treetune and by ``generate`` at several batch sizes, in the order of the file and sorted by length. Every run is a
process of its own; the first round runs every setting, the rounds after it treetune and each peer's fastest and
default settings. Answers are compared row by row, and every difference is explained.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from children import add_options, run_child, serve_child, take_turns
from machine import conditions, facts, has_peer, keep_results, processor, table
from rows import SETS, is_there
from shapes import SHAPES

SYSTEMS = {
    "sentiment": ("treetune", "pipeline-1", "pipeline-8", "pipeline-32", "harness-1", "harness-8", "harness-32",
                  "harness-own-1", "harness-own-8", "harness-own-32"),
    "question_answering": ("treetune", "generate-1", "generate-8", "generate-16", "generate-32", "generate-sorted-8",
                           "generate-sorted-16", "generate-sorted-32"),
}
MODULES = {"harness": "lm_eval"}


def work(job: dict[str, Any]) -> dict[str, Any]:
    """What a child does."""
    from answers import explain, predict, prepare

    return {"prepare": prepare, "explain": explain, "predict": predict}[job["do"]](job)


def group_of(system: str) -> str:
    """``generate-sorted-8`` -> ``generate``; ``harness-own-8`` -> ``harness-own``."""
    return "-".join(part for part in system.split("-")[:-1] if part != "sorted") or system


def installed(systems: tuple[str, ...]) -> list[str]:
    """Those whose package is here; says which are not."""
    missing = {module for family, module in MODULES.items()
               if not has_peer(module) and any(system.startswith(family) for system in systems)}
    for module in missing:
        print(f"{module}: left out, it is not installed", flush=True)
    return [system for system in systems if MODULES.get(system.split("-")[0]) not in missing]


def finalists(runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    """treetune, each peer's fastest setting, and the pipeline's default."""
    usable = {system: done[0]["seconds"] for system, done in runs.items() if "error" not in done[0]}
    groups = {group_of(system) for system in usable}
    best = {min((system for system in usable if group_of(system) == group), key=usable.__getitem__) for group in groups}
    return [system for system in usable if system in best or system == "pipeline-1"]


def measure(options: argparse.Namespace, shape: str, rows: str, systems: list[str], folder: Path) -> dict[str, Any]:
    """All rounds of one table."""
    job = {"do": "prepare", "shape": shape, "rows": rows, "model": str(folder / "model"), "count": options.count,
           "threads": options.threads}
    found = facts(options.threads)
    prepared = run_child(__file__, job)
    if "error" in prepared:
        return prepared
    job |= {"layout": prepared["layout"], "engine": prepared["engine"]}

    def run(system: str) -> dict[str, Any]:
        done = run_child(__file__, {**job, "do": "predict", "system": system}, options.timeout)
        said = done.get("error") or (f"{done['seconds']:8.2f} s {done['cpu_seconds']:8.2f} CPU-s "
                                     f"{done['peak_memory']:6.0f} MiB")
        print(f"  {shape} {rows} {system:20s} {said}", flush=True)
        return done

    runs = take_turns(systems, options.repeats, finalists, run)
    compared = {system: compare(runs["treetune"][0], done[0], job) for system, done in runs.items()
                if system != "treetune" and "error" not in done[0] and "error" not in runs["treetune"][0]}
    return {"conditions": found, "shape": shape, "rows": rows, "count": options.count, "compared": compared,
            "proof": prepared,
            "systems": {system: summary(done) for system, done in runs.items()}}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the runs of one system; an error if any run failed."""
    for run in runs:
        if "error" in run:
            return {"error": run["error"]}
    seconds = sorted(run["seconds"] for run in runs)
    return {"seconds": median(seconds), "low": seconds[0], "high": seconds[-1], "runs": len(runs),
            "cpu_seconds": median(run["cpu_seconds"] for run in runs),
            "peak_memory": median(run["peak_memory"] for run in runs)}


def compare(ours: dict[str, Any], theirs: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
    """Share of equal answers, and each difference: the margins of a label, or the first other token and its gap."""
    if "probability" in ours:
        different = [place for place, pair in enumerate(zip(ours["answers"], theirs["answers"], strict=True))
                     if pair[0] != pair[1]]
        pairs = zip(ours["probability"], theirs["probability"], strict=True)
        largest = max(abs(one - other) for mine, their in pairs for one, other in zip(mine, their, strict=True))
        notes = [{"row": place, "ours": ours["probability"][place], "theirs": theirs["probability"][place]}
                 for place in different]
        return {"equal": 1 - len(different) / len(ours["answers"]), "largest_difference": largest,
                "differences": notes}
    different = [place for place, pair in enumerate(zip(ours["texts"], theirs["texts"], strict=True))
                 if pair[0] != pair[1]]
    equal = 1 - len(different) / len(ours["texts"])
    if not different:
        return {"equal": equal, "differences": []}
    asked = {**job, "do": "explain", "ours": {str(place): ours["texts"][place] for place in different},
             "theirs": {str(place): theirs["ids"][place] for place in different}}
    return {"equal": equal, **run_child(__file__, asked)}


def section_to_markdown(key: str, section: dict[str, Any]) -> str:
    """One table, and how the answers compare."""
    if "error" in section:
        return f"## {key}\n\nfailed: {section['error']}\n"
    ours = section["systems"]["treetune"]
    lines = []
    for name, found in section["systems"].items():
        if "error" in found:
            lines.append([name, "failed", found["error"].replace("|", "/")[:90], "", "", ""])
            continue
        equal = f"{section['compared'][name]['equal']:.1%}" if name in section["compared"] else ""
        ratio = f"{found['seconds'] / ours['seconds']:.2f}" if "error" not in ours else ""
        lines.append([name, f"{found['seconds']:.2f}", f"{found['low']:.2f} to {found['high']:.2f} ({found['runs']})",
                      ratio, f"{found['peak_memory']:.0f}", equal])
    head = ["system", "seconds", "range (runs)", "× treetune's time", "peak MiB", "equal answers"]
    text = [f"## {key}", "", table(head, lines), "", f"{section['count']} rows of the validation split.", ""]
    for name, found in section["compared"].items():
        text += difference_lines(name, found)
    return "\n".join([*text, conditions(section["conditions"]), ""])


def difference_lines(name: str, found: dict[str, Any], most: int = 5) -> list[str]:
    """What the differences are, the closest calls first."""
    if "largest_difference" in found and not found["differences"]:
        return [f"- {name}: no answer differs; probabilities differ by at most {found['largest_difference']:.1e}."]
    if "error" in found:
        return [f"- {name}: differences not explained: {found['error']}"]
    shown = []
    for each in sorted(found["differences"], key=lambda one: one.get("gap", 0.0))[:most]:
        if "gap" in each:
            shown.append(f"row {each['row']}, token {each['token']}: {each['candidates']} {each['gap']:.1e} apart")
        else:
            shown.append(f"row {each['row']}: {[round(value, 4) for value in each['ours']]} "
                         f"and {[round(value, 4) for value in each['theirs']]}")
    if not shown:
        return []
    largest = max((each["gap"] for each in found["differences"] if "gap" in each), default=None)
    end = f" Largest gap of all: {largest:.1e}." if largest is not None else ""
    return [f"- {name}: {len(found['differences'])} differ, such as {'; '.join(shown)}.{end}"]


def to_markdown(sections: dict[str, Any]) -> str:
    """The results page."""
    head = ["# Prediction", "", __doc__.split("\n\n")[0], "",
            "Seconds from untokenized rows to answers, loading not counted; medians. × treetune's time: how many times "
            "as long. Equal answers: share of rows with treetune's label, or its very text. ``harness-own`` scores "
            "the label without its end-of-text, so its probabilities are others. A gap is the distance of "
            "the two largest logits (float64) where two texts part; batched float32 arithmetic moves logits by about "
            "1e-5.", ""]
    return "\n".join([*head, *(section_to_markdown(key, sections[key]) for key in sorted(sections))])


def parse() -> argparse.Namespace:
    """Options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=["gpt2-82m", "gpt3-base"])
    parser.add_argument("--rows", nargs="+", default=["sentiment/sst3", "qa/squad_v11_dev"],
                        choices=[name for name, task in SETS.items() if task in SYSTEMS])
    parser.add_argument("--systems", nargs="+", help="default: all of the task")
    parser.add_argument("--count", type=int, default=64, help="rows of the validation split")
    add_options(parser, timeout=900)
    return parser.parse_args()


def main() -> None:
    """Measure, print, keep."""
    options = parse()
    if options.child:
        serve_child(work)
        return
    for shape in options.shape:
        for rows in filter(is_there, options.rows):
            systems = installed(tuple(options.systems or SYSTEMS[SETS[rows]]))
            if "treetune" not in systems:
                systems = ["treetune", *systems]  # what the others are compared with
            with tempfile.TemporaryDirectory() as folder:
                section = measure(options, shape, rows, systems, Path(folder))
            key = f"{shape} · {rows} · {processor()}"
            print(section_to_markdown(key, section), flush=True)
            keep_results("prediction", {key: section}, to_markdown, options.results)


if __name__ == "__main__":
    main()
