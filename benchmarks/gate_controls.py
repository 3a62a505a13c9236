"""The claim: what should void a gate does, and setting it on training rows breaks its promise.

    python benchmarks/gate_controls.py RUN --train FILE [--rows 900] [--splits 300] [--write]

For a label run: the gate is set on one half of the rows that the run was measured on and tested on the other, dealt out
anew ``splits`` times; then with training rows in place of the first half (the refusal is bypassed here, which the
command does not allow); then the other half is answered under another prompt, with inputs cut short, and by models
whose matrices were rounded, to fewer and fewer bits, with one scale a row or one a matrix, under the threshold of the
first gate. Shown: how often the bound breaks when the scope is not looked at, and what `changes` says when it is.
Rounding need not break the bound: a gate bound to the weights' digest is void after any rounding, because nobody can
tell beforehand which one does.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gate import stored
from gate_shift import examples_by_row, examples_in
from machine import RESULTS, conditions, facts, keep_results, table
from treetune.core.language import choose_language
from treetune.core.records import Example
from treetune.decide.judged import Judged
from treetune.decide.scores import PLAIN, ScoreChoice
from treetune.decide.sequence import Promise, thresholds_to_test, walk
from treetune.tasks.contract import TaskOptions
from treetune.workflow.gate import definition_of, judge
from treetune.workflow.run import Run, open_run
from treetune.workflow.scope import changes, scope_of

MAX_ERROR = 0.10
SPLITS = 300
ROUNDINGS = ((8, "row"), (4, "row"), (3, "row"), (2, "row"), (8, "matrix"), (5, "matrix"), (4, "matrix"), (3, "matrix"),
             (2, "matrix"))


def rounded(run: Run, bits: int, scale_of: str) -> Run:
    """The same run with every matrix rounded to ``bits`` bits, with one scale a ``row`` or a ``matrix``, in place."""
    import torch

    with torch.no_grad():
        for weight in run.loaded.model.parameters():
            if weight.ndim == 2:
                largest = weight.abs().amax(1, keepdim=True) if scale_of == "row" else weight.abs().amax()
                scale = largest.clamp_min(1e-9) / (2 ** (bits - 1) - 1)
                weight.copy_((weight / scale).round() * scale)
    return run


def rates(own: Judged, fresh: Judged, splits: int, same_rows: bool) -> dict[str, float]:
    """Violations and acceptance: ``own`` sets the gate, ``fresh`` tests it; halves where they are the same rows."""
    score, promise = ScoreChoice(PLAIN), Promise(MAX_ERROR, 0.95)
    sure, new = score.values(own.predictions), score.values(fresh.predictions)
    random, found = np.random.default_rng(0), []
    for _ in range(splits):
        order = random.permutation(len(own))
        half = order[: len(order) // 2]
        cut = len(half) * 2 // 5
        tune, test = half[:cut], half[cut:]
        rest = order[len(order) // 2 :] if same_rows else random.permutation(len(fresh))[: len(fresh) // 2]
        thresholds = thresholds_to_test(sure[tune], own.wrong[tune], len(test), promise)
        threshold = walk(thresholds, sure[test], own.wrong[test], promise).threshold
        inside = new[rest] >= (np.inf if threshold is None else threshold)
        found.append((bool(inside.any() and fresh.wrong[rest][inside].mean() > MAX_ERROR), float(inside.mean()),
                      float(fresh.wrong[rest][inside].mean()) if inside.any() else np.nan))
    broken, accepted, error = zip(*found, strict=True)
    return {"violations": float(np.mean(broken)), "accepted": float(np.mean(accepted)),
            "error": float(np.nanmean(error)) if not np.isnan(error).all() else float("nan"),
            "wrong": float(fresh.wrong.mean())}


def again(run: Run, examples: Sequence[Example], options: TaskOptions) -> list[Example]:
    """The rows as they are read under other options."""
    from treetune.core.records import Row

    made = []
    for each in examples:
        row = Row({"text": each.source, "label": each.answers[0]}, "again", 1, each.row, "test")
        made.append(run.task.example_from_row(row, options))
    return made


def measure(folder: str, train: str, rows: int, splits: int) -> list[dict[str, Any]]:
    choose_language("en")
    run = open_run(folder)
    definition, scope = definition_of(run.task, ""), scope_of(run)
    judged = stored(folder, "", "")
    examples = examples_by_row(folder, "", run)
    own = [examples[each.row] for each in judged.predictions]
    training = judge(run, examples_in(train, run, rows), definition)
    lines = [{"what": "as it should be", "scope": "unchanged", **rates(judged, judged, splits, True)},
             {"what": "set on training rows", "scope": "refused: E1501", **rates(training, judged, splits, False)}]
    other = "en" if run.options.prompt_language != "en" and own[0].language == "zh" else "zh"
    others: list[tuple[str, Run, list[Example]]] = [
        ("another prompt language", replace(run, options=replace(run.options, prompt_language=other)),
         again(run, own, replace(run.options, prompt_language=other))),
        ("inputs cut to 32 tokens", replace(run, facts={**run.facts, "max_length": 32}), own),
    ]
    for what, changed, rows_of in others:
        lines.append({"what": what, "scope": ", ".join(changes(scope, scope_of(changed))),
                      **rates(judged, judge(changed, rows_of, definition), splits, True)})
    for bits, scale_of in ROUNDINGS:
        changed = rounded(open_run(folder), bits, scale_of)
        lines.append({"what": f"weights in {bits} bits, a scale a {scale_of}",
                      "scope": ", ".join(changes(scope, scope_of(changed))),
                      **rates(judged, judge(changed, own, definition), splits, True)})
        print(lines[-1], flush=True)
    return lines


def to_markdown(kept: dict[str, Any]) -> str:
    lines = [[row["what"], row["scope"], f"{row['wrong']:.3f}", f"{row['accepted']:.3f}", f"{row['error']:.3f}",
              f"{row['violations']:.3f}"] for row in kept["rows"]]
    whole = kept["rows"][0]["violations"]
    chance = 3 * (2 * whole * (1 - whole) / SPLITS) ** 0.5
    broken = [row["what"] for row in kept["rows"]
              if row["what"].startswith("weights") and row["violations"] > whole + chance]
    note = ("Every rounded model voids the gate by its digest. If nobody looked, the bound would break oftener than "
            f"with the model as it is, beyond chance (three standard errors), at: {'; '.join(broken) or 'none'}. "
            f"Violations are counted on a finite half: an upper estimate, {whole:.3f} for the gate as it should be.")
    head = ["what", "scope says changed", "wrong", "accepted", f"wrong among accepted (bound {MAX_ERROR:.0%})",
            "violations if nobody looks"]
    return (f"# Negative controls of the gate\n\n`python benchmarks/gate_controls.py RUN --train FILE --write`\n\n"
            f"{table(head, lines)}\n\n{note}\n\n{conditions(kept['conditions'])}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--train", required=True)
    parser.add_argument("--rows", type=int, default=900)
    parser.add_argument("--splits", type=int, default=SPLITS)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    rows = measure(given.run, given.train, given.rows, given.splits)
    for row in rows:
        print("  ".join(f"{value:.4f}" if isinstance(value, float) else str(value) for value in row.values()))
    if given.write:
        keep_results("gate_controls", {"conditions": facts(1), "rows": rows}, to_markdown, RESULTS)


if __name__ == "__main__":
    main()
