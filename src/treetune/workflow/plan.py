"""The plan of a run from its settings: its model's configuration, its own rows, this machine. Loads no torch."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from treetune.core.errors import ModelError, UsageError
from treetune.core.records import Example
from treetune.core.settings import TuneSettings
from treetune.models.embedded import resolve
from treetune.models.family import configuration, family_of, head_for, refuse_unread
from treetune.plan.architecture import Architecture, read
from treetune.plan.budget import Budget, budget_of, refuse_over
from treetune.plan.devices import Device, device_named
from treetune.plan.duration import answer_seconds
from treetune.plan.energy import Rates, cost_of, energy_kwh, grid_of
from treetune.plan.estimate import Estimate, estimate, over_devices
from treetune.plan.fit import changes_that_fit
from treetune.plan.flops import answer_flops
from treetune.plan.history import Lesson, learn
from treetune.plan.memory import FLOAT, ROW_BYTES, MemorySettings, cache_bytes
from treetune.plan.presets import TOKENS, WINDOW, Preset, preset_named
from treetune.plan.quantity import Range
from treetune.plan.workload import Workload, by_hand, of_tokens
from treetune.tasks.contract import load_task
from treetune.workflow.gather import Gathered, gather_training
from treetune.workflow.machine import Machine, this_machine
from treetune.workflow.workload import SAMPLED_ROWS, SPAN_LENGTH, PlainTokenizer, count_workload, rows_of, window_of

ASSUMED = {"task": "sentiment", "data": "", "output_dir": "unused"}
"""Settings that a plan can do without."""
ASSUMED_ROWS, ASSUMED_LENGTH, ASSUMED_LABELS = 1000, 256, 8
ANSWERS = 1000
LEAST_TOKENS = 64
LOADED_BYTES = {"": 4.0, "8bit": 1.05, "4bit": 0.56}
"""Of a weight of the layers as it is held, with the scales of its blocks."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a run runs, whatever it runs: machine, device, how many of it, prices, limits."""

    machine: Machine
    device: Device
    rates: Rates
    budget: Budget
    devices: int = 1


def surroundings(settings: TuneSettings, device: str = "here", devices: int = 1) -> Surroundings:
    """This machine or a device of the table, with the prices and limits of the settings.

    Raises:
        UsageError: E2052 no such device, E2053 no such grid, E2055 no length of time.
    """
    machine = this_machine(settings.torch_threads)
    grid, grams = grid_of(settings.grid)
    return Surroundings(
        machine, machine.device() if device == "here" else device_named(device),
        Rates(grid, grams, settings.price_per_hour, settings.price_per_kwh),
        budget_of(settings.max_time, settings.max_energy, settings.max_cost, settings.max_memory_gb), devices)


@dataclass(frozen=True, slots=True)
class Planned:
    """What is known of a run before it starts."""

    settings: TuneSettings
    model: Architecture
    work: Workload
    memory: MemorySettings
    around: Surroundings
    estimate: Estimate
    lesson: Lesson | None = None

    def again(self, **changes: Any) -> Estimate:
        """The estimate with other parts, e.g. a measured duration."""
        return estimate(self.model, changes.pop("work", self.work), changes.pop("settings", self.memory),
                        self.around.device, self.around.rates, devices=self.around.devices, lesson=self.lesson,
                        **changes)


@dataclass(frozen=True, slots=True)
class Question:
    """What a plan is asked for beside a run's settings.

    Attributes:
        preset: a row of the GPT-3 paper. sizes: layers, width, heads, vocabulary of a model given by hand.
        rows, length, labels: of data given by hand: rows, tokens of one, tokens learnt from in one; 0: not given.
        device, devices: of the table of devices, and how many; ``here``: this machine.
        pretraining_tokens: train on so many tokens of whole windows instead of on rows; 0: do not.
        runs: folder of past runs. probe: measure the first steps. samples: answers drawn a question.
    """

    sizes: Mapping[str, int]
    preset: str = ""
    rows: int = 0
    length: int = 0
    labels: int = 0
    device: str = "here"
    devices: int = 1
    pretraining_tokens: float = 0.0
    runs: str = ""
    samples: int = 1


def plan_run(
    settings: TuneSettings, config: Mapping[str, Any], head: str, training: Gathered, validation: Gathered,
    labels: Sequence[str], question: Question, around: Surroundings,
) -> Planned:
    """The plan of a run over rows that were read already.

    Raises:
        UsageError: E2050, E2051 the model's weights cannot be counted; E2055 to E2057 a budget.
        ModelError: E3007 its tokenizer cannot be read without transformers.
    """
    model = read(config, head, len(labels) or 2)
    folder = tokenizer_folder(settings)
    tokenizer = PlainTokenizer(folder)
    window = window_of(config, model.positions)
    limit = min(settings.max_length or (SPAN_LENGTH if head == "spans" else window), window)
    chosen = _every_nth(training.examples)
    rows = rows_of(chosen, tokenizer, head, limit)
    held = rows_of(_every_nth(validation.examples), tokenizer, head, limit)
    work = count_workload(
        rows, held, settings, head, num_rows=len(training.examples), num_validation=len(validation.examples),
        sources=[example.source for example in chosen] if len(chosen) == len(training.examples) else None)
    text = sum(len(example.prompt_text) for example in chosen) * len(training.examples) / len(chosen)
    memory = replace(memory_settings(settings, model, around), stored_bytes=_stored_bytes(config),
                     data_bytes=ROW_BYTES * (len(training.examples) + len(validation.examples)) + 4 * text)
    return planned(settings, model, work, memory, question, around)


def planned(
    settings: TuneSettings, model: Architecture, work: Workload, memory: MemorySettings, question: Question,
    around: Surroundings,
) -> Planned:
    """A plan in these surroundings, corrected by past runs where they are named."""
    lesson = None
    if question.runs:
        accounts = read_accounts(Path(question.runs))
        lesson = learn(accounts, model.kind, model.width, bool(memory.lora_r), around.machine.name)
    found = estimate(model, work, memory, around.device, around.rates, devices=around.devices, lesson=lesson)
    return Planned(settings, model, work, memory, around, found, lesson)


def memory_settings(settings: TuneSettings, model: Architecture, around: Surroundings) -> MemorySettings:
    """What of the settings decides the memory."""
    gpu = around.device.gpu
    return MemorySettings(
        lora_r=settings.lora_r, frozen=settings.freeze_layers, head_only=settings.freeze_base, optim=settings.optim,
        checkpointing=settings.gradient_checkpointing, bf16=settings.bf16,
        tree=settings.layout != "padded" and model.family == "decoder", gpu=gpu,
        shards=around.devices if settings.fsdp else 1,
        weight_bytes=LOADED_BYTES[settings.load_in])


def _every_nth(examples: Sequence[Example]) -> Sequence[Example]:
    """All, or evenly spread ones where there are very many."""
    if len(examples) <= SAMPLED_ROWS:
        return examples
    return [examples[place * len(examples) // SAMPLED_ROWS] for place in range(SAMPLED_ROWS)]


def _stored_bytes(config: Mapping[str, Any]) -> int:
    """Bytes a stored weight has."""
    name = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    return 2 if "16" in name else 4


def tokenizer_folder(settings: TuneSettings) -> Path:
    """Where the model's ``tokenizer.json`` lies; of its base, for an adapter; a hub model's is fetched."""
    folder = Path(str(resolve(settings.model)))
    if folder.is_dir() or settings.model.startswith((".", "/", "~")):
        return folder
    from treetune.models.hub import fetch

    return fetch(settings.model, settings.revision, weights=False)


def read_accounts(folder: Path) -> list[dict[str, Any]]:
    """Every account below a folder; what cannot be read teaches nothing and is passed over.

    Raises:
        UsageError: E2061 there is none.
    """
    found = []
    for path in sorted(folder.rglob("account.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict):
            found.append(content)
    if not found:
        raise UsageError("E2061", "no run in this folder has an account", where=str(folder), found="no account.json",
                         do="name a folder with runs that treetune tune wrote")
    return found


def refuse_over_budget(plan: Planned, done: Mapping[str, float]) -> list[str]:
    """Compare the plan with the budgets before anything is spent; see `treetune.plan.budget.refuse_over`."""
    cost = plan.estimate.cost
    return refuse_over(plan.around.budget, {
        "max_time": plan.estimate.duration.total, "max_energy": plan.estimate.energy,
        "max_cost": Range(cost["low"], cost["expected"], cost["high"]) if cost else None,
    }, done)


@dataclass(frozen=True, slots=True)
class Shape:
    """How a run is laid out to keep to its memory: rows and tokens of a pass, and whether activations are recomputed.

    The rows of a step, and so the result, stay what they are.
    """

    rows_per_pass: int
    max_tokens: int
    checkpointing: bool
    changed: bool = False


def shape_for(plan: Planned | None, settings: TuneSettings) -> Shape:
    """The settings' own shape, or the cheapest one that is expected to keep to ``max_memory_gb``.

    Raises:
        UsageError: E2060 none does.
    """
    own = Shape(settings.per_device_train_batch_size, settings.max_tokens_per_pass, settings.gradient_checkpointing)
    room = plan.around.budget.memory if plan else 0.0
    if plan is None or not room or plan.estimate.memory.peak.expected <= room:
        return own
    changes = changes_that_fit(plan.model, plan.work, plan.memory, room, may_shard=False)
    same = [change for change in changes if change.same_model]
    if not same:
        least = min((change.memory.peak.expected for change in changes), default=0.0)
        raise UsageError(
            "E2060", "the run is expected to take more memory than it may, whatever its passes", where="max_memory_gb",
            found=f"{plan.estimate.memory.peak.expected / 1e9:.2f} GB", allowed=f"{room / 1e9:.2f} GB",
            do="use --lora-r 8" if least else "take a smaller model, or allow more memory")
    chosen, largest = same[0].settings, plan.work.largest
    recompute = bool(chosen.get("gradient_checkpointing", own.checkpointing))
    rows = chosen.get("per_device_train_batch_size", largest.rows)
    if rows >= largest.rows:
        return Shape(own.rows_per_pass, own.max_tokens, recompute, True)
    tokens = round((largest.tokens + largest.source_tokens) * rows / largest.rows)
    return Shape(rows, min(own.max_tokens, max(LEAST_TOKENS, tokens)), recompute, True)


def plan(settings: TuneSettings, question: Question) -> dict[str, Any]:
    """What ``treetune plan`` answers: a record of all figures, each with how it is known.

    Args:
        settings: of the run; ``data`` may be ``""``: the rows are then described by the question.

    Raises:
        UsageError: E2050 to E2062, see `treetune.plan`. ModelError, DataError: as in tuning.
    """
    began = time.monotonic()
    found, paper = plan_question(settings, question)
    record = record_of(found, question, assumed=[] if settings.data or paper else assumptions(question))
    if paper is not None:
        record["model"]["name"], record["paper"] = paper.name, paper.as_dict()
    return {**record, "seconds_to_plan": round(time.monotonic() - began, 3)}


def plan_question(settings: TuneSettings, question: Question) -> tuple[Planned, Preset | None]:
    """The plan that was asked for, and the row of the paper if it was one."""
    if question.preset:
        preset = preset_named(question.preset)
        return plan_preset(preset, question, settings), preset
    around = surroundings(settings, question.device, question.devices)
    task = load_task(settings.task)
    config = sized_config(question.sizes) if question.sizes else configuration(settings.model, settings.revision)
    if not config:
        raise ModelError("E3002", "there is no model in the folder", where=settings.model, found="no config.json",
                         allowed="a folder in Hugging Face layout", do="check the path")
    by_task = {"decoder": "causal", "seq2seq": "seq2seq"}
    head = by_task.get(family_of(config)) or head_for(settings.model, task, revision=settings.revision)
    refuse_unread(settings, head)
    if settings.data:
        training, validation, options = gather_training(settings, task, None)
        return plan_run(settings, config, head, training, validation, options.labels, question, around), None
    return plan_by_hand(settings, config, head, question, around), None


def plan_by_hand(
    settings: TuneSettings, config: Mapping[str, Any], head: str, question: Question, around: Surroundings
) -> Planned:
    """The plan of a run over rows that are described, not read."""
    model = read(config, head)
    if question.pretraining_tokens:
        work = of_tokens(int(question.pretraining_tokens), min(question.length or model.positions, model.positions),
                         settings.per_device_train_batch_size * settings.gradient_accumulation_steps
                         * (question.length or model.positions))
    else:
        work = by_hand(
            question.rows or ASSUMED_ROWS, min(question.length or ASSUMED_LENGTH, model.positions),
            question.labels or (2 if model.family == "encoder" else ASSUMED_LABELS),
            epochs=settings.num_train_epochs, max_steps=settings.max_steps, max_tokens=settings.max_tokens_per_pass,
            rows_per_step=settings.per_device_train_batch_size * settings.gradient_accumulation_steps,
            rows_per_pass=settings.per_device_train_batch_size, packed=model.family == "decoder",
            seq2seq=model.family == "seq2seq")
    return planned(settings, model, work, memory_settings(settings, model, around), question, around)


def assumptions(question: Question) -> list[str]:
    """Names of what was neither given nor counted."""
    wanted = ("rows", "length", "labels")
    return [] if question.pretraining_tokens else [name for name in wanted if not getattr(question, name)]


def sized_config(sizes: Mapping[str, int]) -> dict[str, Any]:
    """A GPT-3-type decoder of sizes given by hand.

    Raises:
        UsageError: E2062 a size is missing.
    """
    wanted = ("layers", "width", "heads", "vocabulary")
    missing = [name for name in wanted if not sizes.get(name)]
    if missing:
        raise UsageError("E2062", "a model given by hand needs all its sizes", where=", ".join(missing),
                         allowed=", ".join(f"--{name}" for name in wanted), do="give the missing ones")
    return {"model_type": "gpt3", "n_layer": sizes["layers"], "n_embd": sizes["width"], "n_head": sizes["heads"],
            "vocab_size": sizes["vocabulary"]}


def record_of(found: Planned, question: Question, *, assumed: Sequence[str] = ()) -> dict[str, Any]:
    """All figures of a plan, for ``--json`` and for the page."""
    model = found.model
    around, device = found.around, found.around.device
    room = device.memory if device.gpu else float(around.machine.memory)
    expected = found.estimate.memory.peak.expected
    changes = [] if expected <= room or not room else changes_that_fit(model, found.work, found.memory, room)
    return {
        "model": {"name": found.settings.model if not question.sizes else "sizes by hand", "kind": model.kind,
                  "family": model.family, "parameters": model.parameters, "by_part": model.by_part,
                  "trained": found.memory.trained(model), "lora_r": found.memory.lora_r, "odd": model.odd},
        "tokens": found.work.as_dict(), "assumed": list(assumed),
        "device": {"name": device.name, "count": around.devices, "memory_bytes": room, "watts": device.watts,
                   "gpu": device.gpu},
        "machine": around.machine.as_dict(), "grid": around.rates.grid,
        "grams_per_kwh": around.rates.grams_per_kwh.as_dict(), **found.estimate.as_dict(),
        "unknown_share": 1 - found.estimate.duration.known,
        "lesson": {"runs": found.lesson.runs, "time": found.lesson.time.as_dict(),
                   "memory": found.lesson.memory.as_dict()} if found.lesson else None,
        "fits": expected <= room if room else None, "changes": [change.as_dict() for change in changes],
        "budgets_in_doubt": refuse_over_budget(found, {}),
        "devices": over_devices(model, found.work, found.memory, around.rates, sharded=bool(found.settings.fsdp)),
        "answers": answers_record(found, question),
    }


def answers_record(found: Planned, question: Question) -> dict[str, Any]:
    """What a thousand answers take with the tuned model on the same device."""
    work, model, around = found.work, found.model, found.around
    new = 0.0 if model.family == "encoder" else max(1.0, work.labels / work.shown)
    prompt = max(1.0, work.row_tokens / work.shown - new)
    one = answer_seconds(model, prompt, new, around.device, samples=question.samples)
    seconds = one * ANSWERS
    energy = energy_kwh(seconds, around.device)
    return {
        "count": ANSWERS, "samples": question.samples, "prompt_tokens": prompt, "new_tokens": new,
        "flops": answer_flops(model, prompt, new, question.samples) * ANSWERS, "seconds": seconds.as_dict(),
        "energy_kwh": energy.as_dict(), "co2_g": energy.times(around.rates.grams_per_kwh).as_dict(),
        "cost": cost_of(seconds, energy, around.rates, around.device),
        "weights_bytes": FLOAT * model.parameters,
        "cache_bytes_a_row": cache_bytes(model, round(prompt + new), 1) if model.family != "encoder" else 0.0,
    }


def plan_preset(preset: Preset, question: Question, settings: TuneSettings) -> Planned:
    """A model of the GPT-3 paper trained as there: 300 billion tokens, on V100s where no device is named."""
    model = read(preset.config())
    work = of_tokens(int(TOKENS), WINDOW, int(preset.batch))
    around = surroundings(settings, "v100" if question.device == "here" else question.device, question.devices)
    return planned(settings, model, work, replace(memory_settings(settings, model, around), bf16=True), question,
                   around)
