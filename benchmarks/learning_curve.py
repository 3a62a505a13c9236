"""Learning-curve advice: the score predicted for twice the rows against the score that twice the rows gave.

``python benchmarks/learning_curve.py`` tunes the shipped base on 32 to 1024 rows of each sentiment set of the shared
data, two draws of rows a set; a case is the prediction of a point from all smaller ones, three points at least. About
twenty minutes on two quiet cores; ``--progress FILE`` keeps finished curves and takes them up again.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from children import run_child, serve_child
from machine import RESULTS, conditions, facts, keep_results, table

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data" / "sentiment"
ROWS = (32, 64, 128, 256, 512, 1024)
VALIDATION_ROWS = 400
LEAST_POINTS = 3


def main() -> None:
    """Tune all curves, predict every point from those before it, print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2, help="draws of rows a set")
    parser.add_argument("--most", type=int, default=ROWS[-1], help="rows of the largest point")
    parser.add_argument("--sets", nargs="*", default=[], help="names of the sets; default: all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--progress", default="", help="file that keeps finished curves")
    given = parser.parse_args()
    if not DATA.is_dir():
        raise SystemExit(f"the shared data is not beside the repository: {DATA}")
    names = given.sets or sorted(path.name for path in DATA.iterdir() if path.is_dir())
    machine = facts(given.threads)
    progress = Path(given.progress or tempfile.mkstemp(suffix=".jsonl")[1])
    text = progress.read_text("utf-8") if progress.exists() else ""
    kept = {(line["set"], line["draw"]): line for line in map(json.loads, text.splitlines())}
    curves = []
    for name, draw in itertools.product(names, range(given.draws)):
        if (name, draw) not in kept:
            told = run_child(__file__, {"set": name, "draw": draw, "threads": given.threads, "most": given.most})
            if "error" in told:
                print(f"{name} {draw}: {told['error']}", file=sys.stderr)
                continue
            kept[name, draw] = {"set": name, "draw": draw, **told}
            with open(progress, "a", encoding="utf-8") as handle:
                handle.write(json.dumps(kept[name, draw]) + "\n")
        curves.append(kept[name, draw])
        print(name, draw, [f"{rows}: {score:.3f}" for rows, score in curves[-1]["points"]], flush=True)
    found = {"machine": machine, "curves": curves, "cases": [case for curve in curves for case in cases(curve)],
             "command": "python benchmarks/learning_curve.py " + " ".join(sys.argv[1:])}
    print(report(found))
    if not given.sets:
        keep_results("learning_curve", found, report, RESULTS)


def child(job: dict[str, Any]) -> dict[str, Any]:
    """One curve, by the functions that ``treetune plan --learning-curve`` uses."""
    from treetune.core.seeds import generator
    from treetune.core.settings import TuneSettings
    from treetune.tasks.contract import load_task
    from treetune.workflow.curve import measure, write_rows
    from treetune.workflow.gather import gather_training

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        held = folder / "held.jsonl"
        with gzip.open(DATA / job["set"] / "validation.jsonl.gz", "rt", encoding="utf-8") as handle:
            held.write_text("".join(itertools.islice(handle, VALIDATION_ROWS)), "utf-8")
        settings = TuneSettings(
            task="sentiment", data=str(DATA / job["set"] / "train.jsonl.gz"), validation_data=str(held),
            output_dir=str(folder / "unused"), seed=job["draw"], num_train_epochs=4, per_device_train_batch_size=16,
            max_length=160, learning_rate=1e-3, torch_threads=job["threads"], max_refused_share=1.0)
        training, validation, _ = gather_training(settings, load_task("sentiment"), None)
        held = write_rows(folder / "validation.jsonl", validation.rows)
        order = generator(settings.seed, "curve", 0).permutation(len(training.rows))
        points = []
        for count in (rows for rows in ROWS if rows <= job["most"]):
            rows = [training.rows[place] for place in sorted(order[:count])]
            metric, point = measure(settings, rows, held, folder / str(count))
            points.append([count, point.score])
        return {"points": points, "measured_on": point.measured_on, "metric": metric}


def cases(curve: dict[str, Any]) -> list[dict[str, Any]]:
    """Every point that has three or more before it, predicted from them."""
    sys.path.insert(0, str(ROOT / "src"))
    from treetune.plan.curve import Point, ahead, fit

    points = [Point(rows, score, curve["measured_on"]) for rows, score in curve["points"]]
    found = []
    for place in range(LEAST_POINTS, len(points)):
        told = ahead(fit(points[:place]), points[place].rows).score
        actual = points[place].score
        found.append({"set": curve["set"], "draw": curve["draw"], "rows": points[place].rows, "actual": actual,
                      **told.as_dict(), "before": points[place - 1].score, "inside": told.low <= actual <= told.high})
    return found


def report(found: dict[str, Any]) -> str:
    """Coverage, errors, and every case."""
    lines = found["cases"]
    each = [[case["set"], str(case["draw"]), f"{case['rows']:,}", f"{case['before']:.3f}", f"{case['expected']:.3f}",
             f"{case['low']:.3f} – {case['high']:.3f}", f"{case['actual']:.3f}", "yes" if case["inside"] else "no"]
            for case in lines]
    summary = "no case"
    if lines:
        errors = [abs(case["expected"] - case["actual"]) for case in lines]
        naive = [abs(case["before"] - case["actual"]) for case in lines]
        summary = (
            f"{len(lines)} cases: the score with twice the rows lay inside the 90 % interval in "
            f"{sum(case['inside'] for case in lines)} ({100 * statistics.mean(c['inside'] for c in lines):.0f} %); "
            f"mean width {statistics.mean(c['high'] - c['low'] for c in lines):.3f}; median error "
            f"{statistics.median(errors):.3f}, worst {max(errors):.3f}; saying \"no change\" instead: median "
            f"{statistics.median(naive):.3f}, worst {max(naive):.3f}.")
    return "\n\n".join([
        "# Learning curves: predicted and measured", f"`{found['command']}`", summary,
        table(["set", "draw", "rows", "score before", "predicted", "90 %", "measured", "inside"], each),
        conditions(found["machine"])]) + "\n"


if __name__ == "__main__":
    if "--child" in sys.argv:
        serve_child(child)
    else:
        main()
