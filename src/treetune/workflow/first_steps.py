"""The probe: the first steps of the run itself, in a folder that is thrown away, in place of priors."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from treetune.core.errors import UsageError
from treetune.core.settings import TuneSettings
from treetune.plan.memory import Memory
from treetune.plan.probe import PROBE_STEPS, Seen, Step, measured_duration
from treetune.plan.quantity import about
from treetune.workflow.plan import Question, plan_question, record_of

PEAK_SPREAD = (0.97, 1.15)


def probe(settings: TuneSettings, question: Question) -> dict[str, Any]:
    """The plan of a run, with its time and its memory measured over its first 20 steps and one evaluation.

    Raises:
        UsageError: E2063 there are no rows to run on.
    """
    if not settings.data or question.preset or question.sizes:
        raise UsageError("E2063", "a probe runs on rows, with a model that is there", where="--probe",
                         found=settings.data or "no --data", do="give --data and --model, or leave --probe out")
    from treetune.workflow.path import tune

    began = time.monotonic()
    before, _ = plan_question(settings, question)
    told: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="treetune-probe-") as folder:
        first = settings.model_copy(update={
            "output_dir": str(Path(folder) / "run"), "max_steps": min(PROBE_STEPS, before.work.steps), "max_time": "",
            "max_energy": 0.0, "max_cost": 0.0, "eval_steps": 0, "save_steps": 0})
        tune(first, told.append)
    [seen] = [event for event in told if event["event"] == "account"]
    first = seen["first_steps"]
    duration = measured_duration(before.estimate.duration, Seen(
        first["elapsed"], [Step(**step) for step in first["steps"]], first["evaluations"], first["saves"]),
        before.work)
    measured = float(seen["actual"]["peak_bytes"])
    old = before.estimate.memory
    found = replace(before, estimate=replace(
        before.again(duration=duration), memory=Memory(old.parts, old.phases, about(measured, *PEAK_SPREAD))))
    record = record_of(found, question)
    return {**record, "probe": {"steps": seen["actual"]["steps"], "peak_bytes": measured,
                                "seconds": seen["actual"]["seconds"]},
            "seconds_to_plan": round(time.monotonic() - began, 3)}
