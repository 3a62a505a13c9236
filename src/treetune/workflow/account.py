"""The account of a run: what it used, as measured while it ran, beside what was planned; and its budgets, kept.

It looks at the passes a run asks for and at its events; the training loop knows nothing of it.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from treetune.core.errors import Interrupted, RunError, TreetuneError
from treetune.core.files import RunFolder, read_json, write_json
from treetune.core.settings import TuneSettings
from treetune.models.family import configuration
from treetune.plan.budget import refuse_over
from treetune.plan.energy import cost_of, energy_kwh
from treetune.plan.probe import PROBE_STEPS, Seen, Step, measured_duration
from treetune.plan.quantity import exactly
from treetune.workflow.energy import EnergyMeter
from treetune.workflow.gather import Gathered
from treetune.workflow.log import OnEvent
from treetune.workflow.machine import peak_bytes
from treetune.workflow.plan import (
    Planned,
    Question,
    Surroundings,
    plan_run,
    refuse_over_budget,
    shape_for,
    surroundings,
)

BatchesOf = Callable[..., Iterator[Any]]
NO_PLAN = ("E2050", "E2051", "E3007")
"""Why a model may have no plan: its weights cannot be counted, or its tokenizer needs transformers."""
NOTHING_USED = {"max_time": 0.0, "max_energy": 0.0, "max_cost": 0.0}


class Account(AbstractContextManager["Account"]):
    """Of one attempt at a run; earlier attempts are in its file and are added up.

    Args:
        plan: None where none could be made; the account is then without a comparison.
        began: time.monotonic of the run's start. lead: whether this process writes the account.
    """

    def __init__(
        self, settings: TuneSettings, folder: RunFolder, around: Surroundings, plan: Planned | None,
        on_event: OnEvent, began: float, lead: bool = True,
    ) -> None:
        self.around, self.plan, self.on_event, self.began, self.lead = around, plan, on_event, began, lead
        self.path = account_path(folder)
        self.before = before_account(folder)
        self.shape = shape_for(plan, settings)
        self.seen = Seen()
        self.meter = EnergyMeter(settings.energy_meter)
        self.tokens = self.row_tokens = self.steps = 0
        self.evaluation_seconds = self.first_elapsed = 0.0
        self.probed: dict[str, Any] = {}
        self.reached = ""
        self._open: tuple[float, int, int] | None = None  # start, tokens, passes of the step under way
        self._saving = 0.0

    def watching(self, batches_of: BatchesOf) -> BatchesOf:
        """The same passes, with the time between them and their tokens noted."""

        def watched(rows: Sequence[Any], *args: Any, **kwargs: Any) -> Iterator[Any]:
            import torch

            training = torch.is_grad_enabled()
            began = time.monotonic()
            self._close_step(began)
            self._saving = 0.0
            tokens = passes = 0
            for batch in batches_of(rows, *args, **kwargs):
                tokens, passes = tokens + batch.num_tokens, passes + 1
                if training:
                    self.row_tokens += batch.num_row_tokens
                yield batch
            if training:
                self._open = (began, tokens, passes)
                self.tokens += tokens
            else:
                self.seen.evaluations.append(time.monotonic() - began)
                self.evaluation_seconds += self.seen.evaluations[-1]

        return watched

    def _close_step(self, now: float) -> None:
        """A step ends where the next pass of whatever kind is asked for, or a checkpoint is begun."""
        if self._open is None:
            return
        began, tokens, passes = self._open
        self._open = None
        self.steps += 1
        self.seen.steps.append(Step(max(0.0, now - began), tokens, passes))
        self.seen.elapsed = now - self.began
        if self.steps <= PROBE_STEPS:
            self.first_elapsed = self.seen.elapsed
        if len(self.seen.steps) == PROBE_STEPS:
            self._tell_probe()
        self._keep_budget()

    def __call__(self, event: dict[str, Any]) -> None:
        """Pass an event on; a checkpoint's time is none of the steps'."""
        now = time.monotonic()
        if event["event"] == "step":
            self._close_step(now)
            self._saving = now
        elif event["event"] == "evaluation":
            self._saving = now
        elif event["event"] == "checkpoint" and self._saving:
            self._close_step(self._saving)
            self.seen.saves.append(now - self._saving)
        self.on_event(event)

    def _tell_probe(self) -> None:
        """After the first steps: the plan again, measured."""
        if self.plan is None:
            return
        duration = measured_duration(self.plan.estimate.duration, self.seen, self.plan.work)
        peak = peak_bytes()
        found = self.plan.again(duration=duration)
        planned = self.plan.estimate.memory
        # what is still to come and may be larger than what was seen: the largest pass, if it was not among these
        peak = max(peak, round(planned.peak.expected)) if peak < 0.8 * planned.peak.expected else peak
        self.probed = {"steps": len(self.seen.steps), "seconds": duration.total.as_dict(),
                       "peak_bytes": peak, "energy_kwh": found.energy.as_dict(), "co2_g": found.carbon.as_dict(),
                       "cost": found.cost, "unknown_share": 1 - duration.known}
        self.on_event({"event": "probe", **self.probed})

    def used(self) -> dict[str, float]:
        """Seconds, kWh and money of this attempt and the earlier ones."""
        seconds = time.monotonic() - self.began
        energy = self._energy(seconds)["kwh"]["expected"]
        before = {**NOTHING_USED, **self.before.get("used", {})}
        return {"max_time": before["max_time"] + seconds, "max_energy": before["max_energy"] + energy,
                "max_cost": before["max_cost"] + self._cost(seconds, energy)}

    def _energy(self, seconds: float) -> dict[str, Any]:
        """Energy so far, and how it is known."""
        measured = self.meter.kwh()
        if measured is not None:
            return {"kwh": exactly(measured).as_dict(), "source": self.meter.source, "measured": True}
        device = self.around.device
        return {"kwh": energy_kwh(exactly(seconds), device, self.around.devices).as_dict(), "measured": False,
                "source": "estimate", "watts": device.watts * self.around.devices}

    def _cost(self, seconds: float, energy: float) -> float:
        found = cost_of(exactly(seconds), exactly(energy), self.around.rates, self.around.device, self.around.devices)
        return float(found["expected"]) if found else 0.0

    def _keep_budget(self) -> None:
        """Ask the loop to stop as a user would, where a budget is reached; it saves first."""
        if self.reached or not self.around.budget.limits:
            return
        self.reached = self.around.budget.used_up(self.used())
        if self.reached:
            if threading.current_thread() is threading.main_thread():
                signal.raise_signal(signal.SIGTERM)  # the loop holds it: it saves after this step, and leaves
            else:
                self.reached = ""  # no signal can be held here; the refusal before the start is all there is

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what was used, whatever happened.

        Raises:
            Interrupted: E4011 in place of E4010 where a budget was the reason.
        """
        if self.lead:
            self.write(finished=error is None)
        self.meter.close()
        if isinstance(error, Interrupted) and self.reached:
            raise Interrupted(
                "E4011", "the budget {name} is used up after step {step}; everything is saved", name=self.reached,
                step=error.values.get("step", ""), where=self.reached,
                do="raise it and run the same command again to go on",
            ) from error

    def write(self, *, finished: bool) -> dict[str, Any]:
        """``account.json``: this attempt added to the earlier ones, beside the plan of the first."""
        self._close_step(time.monotonic())
        seconds = time.monotonic() - self.began
        used = self.used()
        energy = self._energy(seconds)
        before = self.before.get("actual", {})
        tokens, rows = (before.get(name, 0) + value for name, value in (("tokens", self.tokens),
                                                                        ("row_tokens", self.row_tokens)))
        plan, around = self.plan, self.around
        record: dict[str, Any] = {
            "machine": around.machine.as_dict(), "grid": around.rates.grid, "device": around.device.name,
            "finished": finished, "attempts": self.before.get("attempts", 0) + 1, "used": used,
            "planned": self.before.get("planned") or (planned_record(plan) if plan else {}),
            "probe": self.before.get("probe") or self.probed,
            "actual": {
                "seconds": used["max_time"], "steps": before.get("steps", 0) + self.steps,
                "step_seconds": before.get("step_seconds", 0.0) + sum(step.seconds for step in self.seen.steps),
                "evaluation_seconds": before.get("evaluation_seconds", 0.0) + self.evaluation_seconds,
                "save_seconds": before.get("save_seconds", 0.0) + sum(self.seen.saves),
                "peak_bytes": max(before.get("peak_bytes", 0), _peak_bytes()), "energy": energy,
                "energy_kwh": used["max_energy"], "co2_g": (around.rates.grams_per_kwh * used["max_energy"]).as_dict(),
                "cost": used["max_cost"] or None,
                "tokens": tokens, "row_tokens": rows, "saved_tokens": rows - tokens,
            },
        }
        if plan:
            record |= {"model": {"kind": plan.model.kind, "family": plan.model.family, "width": plan.model.width,
                                 "parameters": plan.model.parameters, "lora_r": plan.memory.lora_r}}
        write_json(self.path, record)
        first = self.seen.steps[:PROBE_STEPS]
        self.on_event({"event": "account", **record, "first_steps": {
            "elapsed": self.first_elapsed, "steps": [asdict(step) for step in first],
            "evaluations": self.seen.evaluations[:1], "saves": self.seen.saves[:1]}})
        return record


def open_account(
    settings: TuneSettings, folder: RunFolder, head: str, training: Gathered, validation: Gathered,
    labels: Sequence[str], on_event: OnEvent, *, lead: bool = True, devices: int = 1,
) -> Account:
    """Plan a run over its rows, hold the plan against the budgets, and open its account; before torch is loaded.

    Raises:
        UsageError: E2052 to E2060, see `treetune.plan.budget` and `treetune.workflow.plan.shape_for`.
    """
    began = time.monotonic()
    around = surroundings(settings, devices=devices)
    done = {**NOTHING_USED, **before_account(folder).get("used", {})}
    plan, absent = None, "no rows"
    if training.examples:
        try:
            config = configuration(settings.model, settings.revision)
            plan = plan_run(settings, config, head, training, validation, labels, Question({}), around)
        except TreetuneError as error:
            if error.code not in NO_PLAN:
                raise
            absent = error.code
    doubtful = refuse_over_budget(plan, done) if plan else refuse_over(around.budget, {}, done)
    account = Account(settings, folder, around, plan, on_event, began, lead)
    if plan is None:
        on_event({"event": "no_plan", "why": absent})
    else:
        on_event({"event": "plan", **planned_record(plan), "doubtful": doubtful, "unknown_share": 1.0,
                  "shaped": asdict(account.shape) if account.shape.changed else None})
    return account


def before_account(folder: RunFolder) -> dict[str, Any]:
    """What earlier attempts at the run wrote; {} where there are none, or what they wrote is broken."""
    try:
        found = read_json(account_path(folder))
    except RunError:
        return {}
    return found if isinstance(found, dict) else {}


def account_path(folder: RunFolder) -> Path:
    """Where a run's account lies."""
    return folder.root / "account.json"


def planned_record(plan: Planned) -> dict[str, Any]:
    """The part of a plan that is held against what happens."""
    found = plan.estimate
    return {"seconds": found.duration.total.as_dict(), "how": found.duration.how,
            "parts": dict(found.duration.parts), "peak_bytes": found.memory.peak.as_dict(),
            "memory_phases": dict(found.memory.phases), "memory_parts": dict(found.memory.parts),
            "energy_kwh": found.energy.as_dict(), "co2_g": found.carbon.as_dict(), "cost": found.cost,
            "tokens": plan.work.tokens, "row_tokens": plan.work.row_tokens, "flops": found.flops.as_dict()}


def _peak_bytes() -> int:
    """Of the GPU where there is one, else of the process."""
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_bytes()
