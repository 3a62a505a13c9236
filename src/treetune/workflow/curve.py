"""Advice from the user's own learning curve: tune on growing shares, extrapolate, stop when it is enough."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from treetune.core.errors import UsageError
from treetune.core.files import write_text
from treetune.core.language import say
from treetune.core.records import Row
from treetune.core.seeds import generator
from treetune.core.settings import TuneSettings
from treetune.plan.curve import LEAST_POINTS, Ahead, Point, ahead, fit, worth_going_on
from treetune.tasks.contract import load_task
from treetune.workflow.gather import gather_training
from treetune.workflow.log import OnEvent

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
LEAST_GAIN = 0.01
LEAST_ROWS = 16
IN_HUNDREDS = ("bleu", "chrf")


def learning_curve(
    settings: TuneSettings, on_event: OnEvent, *, shares: Sequence[float] = SHARES, least_gain: float = LEAST_GAIN,
) -> dict[str, Any]:
    """Tune on nested shares of the training rows and measure each on the validation rows.

    Ends early when a gain of ``least_gain`` by taking all rows has fallen out of the 90 % bounds.

    Returns:
        ``points``, ``ahead`` (twice and four times the rows), ``advice`` in a sentence, ``metric``,
        ``validation_rows``, ``ended_early``.

    Raises:
        UsageError: E2064 too few rows for three points.
    """
    task = load_task(settings.task)
    training, validation, _ = gather_training(settings, task, None)
    counts = sorted({max(LEAST_ROWS, round(share * len(training.rows))) for share in shares})
    counts = [count for count in counts if count <= len(training.rows)]
    if len(counts) < LEAST_POINTS:
        raise UsageError("E2064", "a learning curve needs at least {least} points", least=LEAST_POINTS,
                         found=f"{len(training.rows)} rows", do="give more rows or smaller shares")
    order = generator(settings.seed, "curve", 0).permutation(len(training.rows))
    points: list[Point] = []
    seconds: list[float] = []
    metric = ""
    ended = False
    with tempfile.TemporaryDirectory(prefix="treetune-curve-") as folder:
        held = write_rows(Path(folder) / "validation.jsonl", validation.rows)
        for count in counts:
            rows = [training.rows[place] for place in sorted(order[:count])]
            began = time.monotonic()
            metric, point = measure(settings, rows, held, Path(folder) / str(count))
            seconds.append(time.monotonic() - began)
            points.append(point)
            on_event({"event": "curve_point", "rows": count, "score": point.score, "metric": metric})
            if len(points) >= LEAST_POINTS and count < counts[-1]:
                ended = not worth_going_on(fit(points), counts[-1], least_gain)
            if ended:
                break
    curves = fit(points)
    last = points[-1]
    found = [ahead(curves, factor * last.rows) for factor in (2, 4)]
    return {
        "metric": metric, "validation_rows": last.measured_on, "ended_early": ended,
        "points": [{"rows": point.rows, "score": point.score, "seconds": spent}
                   for point, spent in zip(points, seconds, strict=True)],
        "ahead": [{"rows": each.rows, "score": each.score.as_dict(), "gain": each.gain.as_dict()} for each in found],
        "advice": advice(found[0], least_gain, seconds[-1]),
    }


def write_rows(path: Path, rows: Sequence[Row]) -> Path:
    """Rows under the task's own column names."""
    write_text(path, "".join(json.dumps(dict(row.values), ensure_ascii=False) + "\n" for row in rows))
    return path


def measure(settings: TuneSettings, rows: Sequence[Row], held: Path, folder: Path) -> tuple[str, Point]:
    """The name of the task's first metric and the score of a model tuned on these rows."""
    from treetune.workflow.evaluate import evaluate
    from treetune.workflow.path import tune

    part = settings.model_copy(update={
        "data": str(write_rows(folder.with_suffix(".jsonl"), rows)), "validation_data": str(held), "columns": {},
        "output_dir": str(folder)})
    tune(part, _quiet)
    record = evaluate(str(folder), str(held), _quiet, compare_base=False, split="validation")
    score = record["scores"]["tuned"][0]
    scale = 100.0 if str(score["metric"]).lower().startswith(IN_HUNDREDS) else 1.0
    return str(score["metric"]), Point(len(rows), float(score["value"]) / scale, int(score["count"]))


def _quiet(event: dict[str, Any]) -> None:
    """The runs of a curve speak by their scores."""


def advice(twice: Ahead, least_gain: float, seconds: float) -> str:
    """What doubling the rows is likely to buy, and whether it is worth it."""
    bounds = {"rows": f"{twice.rows:,}", "gain": f"{twice.gain.expected:+.3f}", "low": f"{twice.gain.low:+.3f}",
              "high": f"{twice.gain.high:+.3f}", "seconds": f"{2 * seconds:.0f}"}
    if twice.gain.high < least_gain:
        return say("More rows of this kind are unlikely to help: with {rows} rows a gain of {gain} ({low} to {high}, "
                   "90 %) is expected, for about {seconds} s.", **bounds)
    if twice.gain.low >= least_gain:
        return say("More rows are worth it: with {rows} rows a gain of {gain} ({low} to {high}, 90 %) is expected, "
                   "for about {seconds} s.", **bounds)
    return say("More rows may help: with {rows} rows a gain of {gain} ({low} to {high}, 90 %) is expected, for about "
               "{seconds} s.", **bounds)
