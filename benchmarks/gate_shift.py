"""The claim: under shift the bound breaks, and the watch says so; without shift it is quiet.

    python benchmarks/gate_shift.py quiet [--streams 1000] [--rows 300] [--write]
    python benchmarks/gate_shift.py shift NAME=RUN[:DATA] OTHER=DATA … [--write]

``quiet``: streams of rows like the calibration rows (scores with ties, text values), and how many of them ever raise an
alarm; the promise is at most 1 in 100. ``shift``: a gate is set on half of the stored predictions of a run, and the
watch gets first 100 rows of the other half, then rows of each other file (answered by the run), rows with typing
errors; how many shifted rows until the alarm, in ten orders, and what share of the accepted ones is wrong.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gate import stored
from machine import RESULTS, conditions, facts, keep_results, table
from treetune.core.files import RunFolder
from treetune.core.records import Example, PromptPart, Row
from treetune.decide.drift import ALARM_CHANCE, Profile, Reference, Watch, reference_of
from treetune.decide.judged import one_per_group, split_judged
from treetune.decide.scores import PLAIN, ScoreChoice
from treetune.decide.sequence import Promise, thresholds_to_test, walk
from treetune.decide.support import with_text_scores
from treetune.metrics.interval import wilson

QUIET_FIRST = 100
MOST = 400
ORDERS = 10
MAX_ERROR = 0.10


def quiet(streams: int, rows: int, calibration: int = 200) -> dict[str, Any]:
    """How many streams of exchangeable rows ever raise the alarm."""
    random, alarms = np.random.default_rng(0), 0
    for stream in range(streams):
        reference = Reference(Profile({}, 1.0), {
            "score": tuple(random.beta(5, 1, size=calibration).round(2)),
            "text": tuple(random.normal(size=calibration))})
        watch = Watch(reference)
        for row in range(rows):
            watch.add({"score": round(float(random.beta(5, 1)), 2), "text": float(random.normal())}, f"{stream}-{row}")
            if watch.alarm:
                alarms += 1
                break
    return {"streams": streams, "rows": rows, "calibration": calibration, "alarms": alarms,
            "rate": [alarms / streams, *(getattr(wilson(alarms / streams, streams), end) for end in ("low", "high"))],
            "promised": ALARM_CHANCE}


@dataclass(frozen=True)
class Part:
    """Rows of one kind: what is watched of each, its score, whether its answer is wrong."""

    values: Sequence[dict[str, float]]
    scores: Any
    wrong: Any


def typed(text: str, random: Any, share: float = 0.1) -> str:
    """Neighbouring characters swapped at so many places."""
    letters = list(text)
    for place in range(len(letters) - 1):
        if random.uniform() < share:
            letters[place], letters[place + 1] = letters[place + 1], letters[place]
    return "".join(letters)


def examples_in(path: str, run: Any, most: int) -> list[Example]:
    """The first rows of a file as the run's task reads them; labels the run does not know are left out."""
    open_ = gzip.open if path.endswith(".gz") else open
    with open_(path, "rt", encoding="utf-8") as lines:
        rows = [Row(json.loads(line), path, place + 1, place, "test") for place, line in enumerate(lines)]
    kept = [row for row in rows if not run.options.labels or row.values.get("label") in run.options.labels]
    order = np.random.default_rng(0).permutation(len(kept))[:most]
    return [run.task.example_from_row(replace(kept[place], number=n), run.options) for n, place in enumerate(order)]


def shift(name: str, folder: str, data: str, others: dict[str, str]) -> list[dict[str, Any]]:
    """One line a kind of rows."""
    from treetune.workflow.evaluate import answer
    from treetune.workflow.gate import definition_of, wrong_answers
    from treetune.workflow.run import open_run

    run = open_run(folder)
    judged = stored(folder, data, "")
    own = examples_by_row(folder, data, run)
    tune, rest = split_judged(judged, 0.3)
    calibration, fresh = split_judged(rest, 0.5)
    score, definition = ScoreChoice(PLAIN), definition_of(run.task, "")
    used = one_per_group(calibration)
    reference = reference_of([own[each.row] for each in tune.predictions], [own[each.row] for each in used.predictions],
                             score.values(used.predictions).tolist())
    promise = Promise(MAX_ERROR, 0.95)
    order = thresholds_to_test(score.values(tune.predictions), tune.wrong, len(used), promise)
    threshold = walk(order, score.values(used.predictions), used.wrong, promise).threshold

    def part(examples: Sequence[Example]) -> Part:
        predictions = with_text_scores(run.task.NAME, answer(run, run.loaded, examples), examples)
        scores = score.values(predictions)
        return Part([reference.values_of(float(each), row) for each, row in zip(scores, examples, strict=True)],
                    scores, wrong_answers(predictions, examples, definition))

    fresh_examples = [own[each.row] for each in fresh.predictions]
    plain = Part([reference.values_of(float(each), row) for each, row in zip(
        score.values(fresh.predictions), fresh_examples, strict=True)], score.values(fresh.predictions), fresh.wrong)
    random = np.random.default_rng(1)
    misspelt = [with_source(each, typed(each.source, random)) for each in fresh_examples[:MOST]]
    parts = {"the same": plain, "typing errors": part(misspelt),
             **{other: part(examples_in(path, run, MOST)) for other, path in others.items()}}
    return [{"run": name, "rows": other, "threshold": threshold, **outcome(reference, plain, each, threshold)}
            for other, each in parts.items()]


def with_source(example: Example, text: str) -> Example:
    """The row with another text."""
    parts = tuple(PromptPart(text, True) if part.text == example.source else part for part in example.prompt)
    return replace(example, source=text, prompt=parts)


def examples_by_row(folder: str, data: str, run: Any) -> dict[int, Example]:
    from treetune.core.files import read_json
    from treetune.workflow.gather import read_for, to_examples

    measured = read_json(RunFolder(Path(folder)).evaluation)
    result = read_for(run.task, data or measured["data"], "test", {})
    return {each.row: each for each in to_examples(run.task, result, run.options, None, 1.0).examples}


def outcome(reference: Reference, quiet_rows: Part, rows: Part, threshold: float | None) -> dict[str, Any]:
    """Delay of the alarm over ``ORDERS`` orders, and the error of the accepted rows."""
    delays: list[int | None] = []
    for seed in range(ORDERS):
        random, watch = np.random.default_rng(seed), Watch(reference)
        for place in random.permutation(len(quiet_rows.values))[:QUIET_FIRST]:
            watch.add(quiet_rows.values[place], f"quiet-{place}")
        early = watch.alarm
        for place in random.permutation(len(rows.values)):
            if watch.alarm is not None:
                break
            watch.add(rows.values[place], f"new-{place}")
        delays.append(None if watch.alarm is None or early is not None else watch.alarm - QUIET_FIRST)
    found = sorted(each for each in delays if each is not None)
    inside = rows.scores >= (np.inf if threshold is None else threshold)
    return {"count": len(rows.values), "error": float(rows.wrong.mean()), "accepted": float(inside.mean()),
            "accepted_wrong": float(rows.wrong[inside].mean()) if inside.any() else None,
            "alarms": len(found), "orders": ORDERS, "median": found[len(found) // 2] if found else None,
            "longest": found[-1] if found else None}


def to_markdown(kept: dict[str, Any]) -> str:
    lines = [[row["run"], row["rows"], str(row["count"]), f"{row['error']:.3f}", f"{row['accepted']:.3f}",
              "–" if row["accepted_wrong"] is None else f"{row['accepted_wrong']:.3f}",
              f"{row['alarms']} of {row['orders']}", "–" if row["median"] is None else str(row["median"]),
              "–" if row["longest"] is None else str(row["longest"])] for name, rows in kept.items()
             if name.startswith("shift ") for row in rows]
    head = ["run", "rows", "count", "wrong", "accepted", f"wrong among accepted (bound {MAX_ERROR:.0%})", "alarms",
            "rows until alarm, median", "longest"]
    own = kept.get("quiet")
    said = (f"Quiet streams: {own['alarms']} of {own['streams']} (of {own['rows']} rows each) ever raised an alarm: "
            f"{own['rate'][0]:.4f} [{own['rate'][1]:.4f}, {own['rate'][2]:.4f}], promised {own['promised']}." if own
            else "")
    return (f"# Drift\n\n`python benchmarks/gate_shift.py quiet --write`, `… shift NAME=RUN OTHER=DATA … --write`\n\n"
            f"{said}\n\n{table(head, lines)}\n\n{conditions(kept['conditions'])}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("quiet", "shift"))
    parser.add_argument("names", nargs="*")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    if given.what == "quiet":
        sections: dict[str, Any] = {"quiet": quiet(given.streams, given.rows)}
    else:
        (name, _, first), *others = (word.partition("=") for word in given.names)
        run, _, data = first.partition(":")
        sections = {f"shift {name}": shift(name, run, data, {other: path for other, _, path in others})}
    print(json.dumps(sections, indent=1))
    if given.write:
        keep_results("gate_shift", {"conditions": facts(1), **sections}, to_markdown, RESULTS)


if __name__ == "__main__":
    main()
