"""How the cost of a step grows: rows a passage, row length, pack size.

    python benchmarks/scaling.py --shape gpt2-82m --threads 2

It takes the options of throughput.py, and is trained by it.

The rows are made of real SQuAD passages and questions (the packaged sample where the set is not here): a passage is
asked its own questions first, then those of the next passages, and cut or repeated to a length, so that one thing is
varied at a time. The peer is one named setting (``--systems``; default Trainer, rows sorted by length within the
step); the tables say which setting is the best of each peer.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

import throughput
from children import UNCOUNTED, run_child
from machine import conditions, facts, keep_results, table
from rows import save_rows
from shapes import save_shape
from treetune.core.records import TokenizedExample

PER_PASSAGE = (1, 2, 5, 10)
LENGTHS = (64, 128, 256, 448)  # with question and answer within the shipped base's window of 512
LONGEST_TAIL, LONGEST_ANSWER = 30, 20
PACK_SIZES = (256, 512, 768, 1024, 1536, 2048)
ROWS_PER_STEP = 30  # a multiple of every number of rows a passage
COLORS = {"treetune-tree": "#1b6ca8", "treetune-packed": "#7a9e3f", "peer": "#c4572f"}


def material(folder: str) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
    """Token ids of real passages, of question tails (question and frame), and of answers."""
    from rows import examples_of, is_there
    from treetune.models.load import load_tokenizer

    name = "qa/squad_v11_dev" if is_there("qa/squad_v11_dev") else "sample/question_answering"
    tokenizer, _ = load_tokenizer(folder)
    examples, _ = examples_of(name)

    def ids(texts: Sequence[str]) -> list[list[int]]:
        return list(tokenizer(list(texts), add_special_tokens=False)["input_ids"])

    passages = ids(list(dict.fromkeys(example.prompt[0].text for example in examples))[:400])
    some = examples[:2000]
    tails = ids(["".join(part.text for part in example.prompt[1:]) for example in some])
    answers = ids([example.completion for example in some])
    return (passages, [each for each in tails if len(each) <= LONGEST_TAIL],
            [[*each, tokenizer.eos_token_id] for each in answers if len(each) < LONGEST_ANSWER])


def made_rows(
    parts: tuple[list[list[int]], list[list[int]], list[list[int]]], count: int, per_passage: int, passage_length: int
) -> list[TokenizedExample]:
    """``count`` rows, ``per_passage`` neighbours on one passage of exactly ``passage_length`` tokens."""
    passages, tails, answers = parts
    rows = []
    for place in range(count):
        number = place // per_passage
        passage: list[int] = []
        while len(passage) < passage_length:
            passage += passages[number % len(passages)]
            number += 131  # a passage that is too short is followed by another
        prompt = np.array(passage[:passage_length] + tails[place % len(tails)], dtype=np.int64)
        rows.append(TokenizedExample(place, 0, prompt, np.array(answers[place % len(answers)], dtype=np.int64), 0))
    return rows


def points(options: argparse.Namespace) -> list[dict[str, Any]]:
    """What is varied, one child each."""
    peers = [system for system in options.systems if not system.startswith("treetune")]
    systems = ["treetune-tree", "treetune-packed", *peers]
    base = {"per_passage": 5, "length": 150, "max_tokens": options.max_tokens}
    found = [{**base, "panel": "rows a passage", "x": value, "per_passage": value, "system": system}
             for value in PER_PASSAGE for system in systems]
    found += [{**base, "panel": "row length", "x": value, "length": value, "per_passage": 2, "system": system}
              for value in LENGTHS for system in systems]
    return found + [{**base, "panel": "pack size", "x": value, "max_tokens": value, "system": system}
                    for value in PACK_SIZES for system in systems if system.startswith("treetune")]


def scale(options: argparse.Namespace) -> None:
    """Measure every point, print, keep, draw."""
    if options.systems == [*throughput.OURS, *throughput.PEERS]:  # nobody named any
        options.systems = ["trainer-sorted-8"]
    options.systems = throughput.installed(options.systems)
    found = facts(options.threads)
    for shape in options.shape:
        with tempfile.TemporaryDirectory() as folder:
            save_shape(shape, Path(folder) / "model")
            parts = material(str(Path(folder) / "model"))
            measured = [point | measure(point, shape, parts, Path(folder), options) for point in points(options)]
        section = {"conditions": found, "shape": shape, "points": measured, "rows_per_step": ROWS_PER_STEP}
        print(section_to_markdown(shape, section), flush=True)
        keep_results("scaling", {shape: section}, to_markdown, options.results)
        draw(section, options.results / f"scaling-{shape}.svg")


def measure(
    point: dict[str, Any], shape: str, parts: Any, folder: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """Median seconds a step and tokens per second of one point."""
    rows_file = folder / "rows.npz"
    save_rows(rows_file, made_rows(parts, ROWS_PER_STEP * options.steps, point["per_passage"], point["length"]))
    job = {"do": "train", "shape": shape, "model": str(folder / "model"), "rows_file": str(rows_file),
           "steps": options.steps, "rows_per_step": ROWS_PER_STEP, "lora": options.lora, "bf16": options.bf16,
           "threads": options.threads, "max_tokens": point["max_tokens"], "learning_rate": 1e-4,
           "system": point["system"], "memory_limit": options.memory_limit}
    runs = [run_child(throughput.__file__, job, options.timeout) for _ in range(options.repeats)]
    failed = next((run["error"] for run in runs if "error" in run), "")
    if failed:
        print(f"  {shape} {point['panel']} {point['x']} {point['system']}: {failed}", flush=True)
        return {"error": failed}
    result = {"tokens_per_second": median(map(throughput.speed, runs)),
              "seconds": median(mean(run["seconds"][UNCOUNTED:]) for run in runs),
              "peak_memory": median(run["peak_memory"] for run in runs)}
    print(f"  {shape} {point['panel']} {point['x']:5d} {point['system']:18s} {result['seconds']:8.2f} s a step "
          f"{result['tokens_per_second']:8.0f} tokens/s", flush=True)
    return result


def series(section: dict[str, Any], panel: str) -> dict[str, list[tuple[int, float, float]]]:
    """system -> (x, tokens per second, seconds a step) of one panel."""
    found: dict[str, list[tuple[int, float, float]]] = {}
    for point in section["points"]:
        if point["panel"] == panel and "error" not in point:
            found.setdefault(point["system"], []).append((point["x"], point["tokens_per_second"], point["seconds"]))
    return found


PANELS = ("rows a passage", "row length", "pack size")
CAPTIONS = {"rows a passage": "rows on one passage of 150 tokens", "row length": "passage tokens, two rows a passage",
            "pack size": "unique tokens of one pass, five rows a passage"}


def draw(section: dict[str, Any], path: Path) -> None:
    """Three panels of tokens per second, one colour a system, their names below."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    for axis, panel in zip(axes, PANELS, strict=True):
        for system, line in series(section, panel).items():
            axis.plot([x for x, _, _ in line], [speed for _, speed, _ in line], marker="o", markersize=4,
                      color=COLORS.get(system, COLORS["peer"]), label=system)
        axis.set_title(panel, loc="left", fontsize=11)
        axis.set_xlabel(CAPTIONS[panel], fontsize=9)
        axis.set_xticks([x for x, _, _ in next(iter(series(section, panel).values()), [])])
        axis.set_ylim(bottom=0)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    axes[0].set_ylabel("tokens of the rows per second", fontsize=9)
    lines, names = axes[0].get_legend_handles_labels()
    figure.legend(lines, names, frameon=False, fontsize=9, loc="outside lower center", ncols=max(1, len(names)))
    figure.suptitle(f"Throughput of a step of {section['rows_per_step']} rows, {section['shape']}", fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def section_to_markdown(key: str, section: dict[str, Any]) -> str:
    """One table a panel."""
    text = [f"## {key}", ""]
    for panel in PANELS:
        found = series(section, panel)
        values = sorted({x for line in found.values() for x, _, _ in line})
        lines = []
        for system, line in found.items():
            by_value = {x: f"{speed:.0f} ({seconds:.2f} s)" for x, speed, seconds in line}
            lines.append([system, *(by_value.get(x, "failed") for x in values)])
        text += [f"Tokens/s (seconds a step) over {CAPTIONS[panel]}:", "",
                 table(["system", *map(str, values)], lines), ""]
    return "\n".join([*text, f"![{key}](scaling-{key}.svg)", "", conditions(section["conditions"]), ""])


def to_markdown(sections: dict[str, Any]) -> str:
    """The results page."""
    head = ["# How the cost of a step grows", "", f"Steps of {ROWS_PER_STEP} rows made of real passages and questions; "
            "see scaling.py. Seconds are medians, the first two steps of a run not counted.", ""]
    return "\n".join([*head, *(section_to_markdown(key, sections[key]) for key in sorted(sections))])


if __name__ == "__main__":
    scale(throughput.parse(__doc__))
