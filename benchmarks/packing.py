"""The claim: packing rows into trees takes time linear in tokens, seconds for a million.

    python benchmarks/packing.py

SQuAD rows through treetune's prompts (synthetic passages with five questions each where the set is not here), packed
all at once and step by step (32 rows), into trees of at most 768 unique tokens. Where the set has too few tokens its
rows come again with other ids, which share nothing with the first. One thread; medians.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from children import run_child, serve_child
from machine import RESULTS, conditions, facts, keep_results, table
from rows import is_there, num_tokens
from treetune.core.records import TokenizedExample
from treetune.trees import pack

SQUAD = "qa/squad_v11_dev"
VOCABULARY = 8192


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Tokenize once, then time packing at each size."""
    rows = real_rows() if job["real"] else synthetic_rows(max(job["tokens"]))
    return {"sizes": [measure(rows, size, job["budget"], job["repeats"]) for size in job["tokens"]]}


def real_rows() -> list[TokenizedExample]:
    """The whole set, one passage's rows side by side."""
    from rows import chosen_rows, examples_of
    from shapes import save_shape

    with tempfile.TemporaryDirectory() as folder:
        save_shape("tiny", Path(folder))
        return chosen_rows(SQUAD, folder, len(examples_of(SQUAD)[0]), 0, together=True)


def synthetic_rows(tokens: int) -> list[TokenizedExample]:
    """Passages of 150 tokens with five questions of 20 and answers of 5."""
    chance = np.random.default_rng(0)
    rows: list[TokenizedExample] = []
    while 175 * len(rows) < tokens:
        passage = chance.integers(VOCABULARY, size=150)
        rows += [TokenizedExample(len(rows) + place, 0, np.concatenate([passage, chance.integers(VOCABULARY, size=20)]),
                                  chance.integers(VOCABULARY, size=5), 0) for place in range(5)]
    return rows


def rows_of_size(rows: list[TokenizedExample], tokens: int) -> list[TokenizedExample]:
    """As many rows as have ``tokens`` tokens; after the last row the first again, its ids moved by the vocabulary."""
    chosen: list[TokenizedExample] = []
    total, place = 0, 0
    while total < tokens:
        turn, at = divmod(place, len(rows))
        shift = turn * VOCABULARY
        chosen.append(TokenizedExample(place, 0, rows[at].prompt_ids + shift, rows[at].completion_ids + shift, 0))
        total += num_tokens(rows[at])
        place += 1
    return chosen


def measure(rows: list[TokenizedExample], tokens: int, budget: int, repeats: int) -> dict[str, Any]:
    """Seconds to pack that many tokens, all at once and in steps of 32 rows."""
    chosen = rows_of_size(rows, tokens)
    whole, steps = [], []
    for _ in range(repeats):
        began = time.perf_counter()
        trees = pack(chosen, budget)
        whole.append(time.perf_counter() - began)
        began = time.perf_counter()
        for start in range(0, len(chosen), 32):
            pack(chosen[start : start + 32], budget)
        steps.append(time.perf_counter() - began)
    return {"tokens": sum(map(num_tokens, chosen)), "rows": len(chosen), "trees": len(trees),
            "unique_tokens": sum(len(tree.input_ids) for tree in trees), "seconds": median(whole),
            "seconds_by_step": median(steps)}


def growth(sizes: list[dict[str, Any]], field: str) -> float:
    """Slope of log seconds over log tokens: 1 is linear, 2 quadratic."""
    tokens = [math.log(size["tokens"]) for size in sizes]
    return float(np.polyfit(tokens, [math.log(size[field]) for size in sizes], 1)[0])


def section_to_markdown(key: str, section: dict[str, Any]) -> str:
    """One table."""
    if "error" in section:
        return f"## {key}\n\nfailed: {section['error']}\n"
    lines = [[f"{size['tokens']:,}", f"{size['rows']:,}", f"{size['trees']:,}", f"{size['unique_tokens']:,}",
              f"{size['seconds']:.2f}", f"{size['seconds_by_step']:.2f}"] for size in section["sizes"]]
    head = ["tokens", "rows", "trees", "unique tokens", "seconds", "seconds by step"]
    text = [f"## {key}", "", table(head, lines), ""]
    if len(lines) > 1:
        text += [f"Seconds grow with tokens to the power of {growth(section['sizes'], 'seconds'):.2f} at once, "
                 f"{growth(section['sizes'], 'seconds_by_step'):.2f} by step.", ""]
    return "\n".join([*text, conditions(section["conditions"]), ""])


def to_markdown(sections: dict[str, Any]) -> str:
    """The results page."""
    head = ["# Packing", "", __doc__.split("\n\n")[0], ""]
    return "\n".join([*head, *(section_to_markdown(key, sections[key]) for key in sorted(sections))])


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[100_000, 300_000, 1_000_000, 3_000_000])
    parser.add_argument("--budget", type=int, default=768, help="unique tokens of a tree")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--synthetic", action="store_true", help="no real rows")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        serve_child(work)
        return
    real = not options.synthetic and is_there(SQUAD)
    job = {"tokens": options.tokens, "budget": options.budget, "repeats": options.repeats, "real": real, "threads": 1}
    section = {"conditions": facts(1), **run_child(__file__, job)}
    key = SQUAD if real else "synthetic passages, five questions each"
    print(section_to_markdown(key, section))
    keep_results("packing", {key: section}, to_markdown, options.results)


if __name__ == "__main__":
    main()
