"""The straight path of tuning: rows -> examples -> tokens -> trees -> batches -> loss -> checkpoint -> model."""

from __future__ import annotations

import contextlib
import platform
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treetune.core.errors import RunError, UsageError
from treetune.core.files import RunFolder, model_digest, read_json, value_digest, write_json, write_text
from treetune.core.lock import run_lock
from treetune.core.processes import count as count_processes
from treetune.core.processes import is_lead
from treetune.core.records import IntArray, Row, TokenizedExample
from treetune.core.settings import TuneSettings, reported_to, to_yaml, unknown_key
from treetune.models.adapters import adapt, refuse_combination
from treetune.models.embedded import resolve
from treetune.models.family import Head, family_of_head, head_for, load_head, refuse_unread
from treetune.tasks.contract import Task, TaskOptions, is_extractive, load_task
from treetune.workflow.account import open_account
from treetune.workflow.check import inspect_splits
from treetune.workflow.distill import teacher_digest, with_teacher
from treetune.workflow.gather import Gathered, cut_report, gather_training
from treetune.workflow.log import MetricsLog, OnEvent
from treetune.workflow.reporting import Reporting
from treetune.workflow.run import facts_of_options, save_facts, save_model
from treetune.workflow.seen import content_digests
from treetune.workflow.trackers.contract import require

if TYPE_CHECKING:
    from treetune.models.exactness import Exactness
    from treetune.models.load import LoadedModel
    from treetune.train.checkpoint import TrainState

MAY_DIFFER = {"output_dir", "logging_steps", "save_total_limit", "torch_threads", "on_bad_loss", "bad_loss_factor",
              "max_memory_gb", "max_time", "max_energy", "max_cost", "price_per_hour", "price_per_kwh", "grid",
              "energy_meter", "fsdp", "report_to"}


def tune(settings: TuneSettings, on_event: OnEvent, allow_changed: Sequence[str] = ()) -> dict[str, Any]:
    """Tune a model on rows. The same call on the same folder resumes, or says that it is done.

    Started by torchrun, this is one of several processes that tune one model; only the lead writes and speaks.

    Args:
        allow_changed: settings (or ``data``, ``validation_data``, ``model_files``) that a resumed run may have
            other values of than it was started with; noted in ``data.json`` and ``metrics.jsonl``.

    Returns:
        The facts also found in ``model/treetune.json``.

    Raises:
        TreetuneError: see `treetune.core.errors`; nothing half-written is left looking whole.
    """
    require(reported_to(settings))
    folder = RunFolder(Path(settings.output_dir))
    with contextlib.ExitStack() as held:
        if is_lead():
            held.enter_context(run_lock(folder.root, MetricsLog(folder.metrics, on_event)))
            on_event = held.enter_context(Reporting(settings, folder, on_event))
        if count_processes() > 1:
            from treetune.train.distributed import join_team

            held.enter_context(join_team())
        return tune_folder(settings, on_event if is_lead() else _unheard, allow_changed)


def _unheard(event: dict[str, Any]) -> None:
    """Takes the events of a process that does not lead: they are the lead's, too."""


def tune_folder(settings: TuneSettings, on_event: OnEvent, allow_changed: Sequence[str]) -> dict[str, Any]:
    """`tune` in a folder that is this process's to write."""
    folder = RunFolder(Path(settings.output_dir))
    task = load_task(settings.task)
    refuse_combination(settings)
    head_name = head_for(settings.model, task, revision=settings.revision)
    refuse_unread(settings, head_name)
    made_of = answers_from(settings.answers_from, task, head_name)
    training, validation, options = gather_training(settings, task, folder.quarantine if is_lead() else None)
    fingerprint = fingerprint_of(settings, training, validation)
    changes = refuse_changed(folder, fingerprint, allow_changed)
    log: OnEvent = MetricsLog(folder.metrics, on_event) if is_lead() else on_event
    if folder.is_complete():
        on_event({"event": "complete", "path": str(folder.root)})
        return dict(read_json(folder.model / "treetune.json"))

    account = open_account(settings, folder, head_name, training, validation, options.labels, log, lead=is_lead(),
                           devices=count_processes())
    # only now: a fault in the rows, or a finished run, need not wait for torch
    from treetune.train.distributed import gather_model
    from treetune.train.loop import fit

    head = load_head(head_name)
    loaded, model = load_to_tune(settings, head_name, options.labels, account.shape.checkpointing)
    max_length = min(settings.max_length or head.MAX_LENGTH or loaded.window, loaded.window)
    train_tokens = head.encode(training.examples, loaded.tokenizer, max_length)
    validation_tokens = head.encode(validation.examples, loaded.tokenizer, max_length)
    settled = head.settle(training.examples)
    loaded.model.config.update(settled)
    if is_lead():
        record = data_record(task, training, validation, options, fingerprint)
        record["allowed_changes"] = [*changes_before(folder), *changes]
        write_text(folder.config, to_yaml(settings))  # from here on the folder is this run's
        write_json(folder.data, record)
    for change in changes:
        log({"event": "allowed_change", **change})
    log({"event": "tokens", "cut": cut_report([each.num_cut for each in train_tokens]),
         "rows": len(train_tokens), "validation_rows": len(validation_tokens)})
    proof = prove_exact(model, settings.model_copy(update={"max_tokens_per_pass": account.shape.max_tokens}),
                        train_tokens, log, head)
    make_batches = partial(account.watching(head.batches_of), layout=proof.layout,
                           rows_per_pass=account.shape.rows_per_pass, max_tokens=account.shape.max_tokens)
    started = time.time()
    groups = groups_to_keep(settings, training, len(train_tokens))
    loss_of = head.loss_sum
    if settings.distill_from:
        loss_of, train_tokens = with_teacher(settings, task, head_name, loaded, proof.layout, train_tokens,
                                             training.examples, log)
    with account:
        state = fit(model, train_tokens, validation_tokens, settings, make_batches, folder, fingerprint, account,
                    groups, loss_of, partial(places_of_rows, {row.number: row for row in training.rows}))
        loaded.tokenizer.model_max_length = loaded.window
        gather_model(model)
        if is_lead():
            save_model(folder, model, loaded.tokenizer, settings.model if settings.lora_r else "", loaded.place)
    facts = {
        "task": task.NAME, "family": family_of_head(head_name), "head": head_name, "settled": settled,
        **facts_of_options(options),
        "max_length": max_length, "max_new_tokens": settings.max_new_tokens or task.MAX_NEW_TOKENS,
        "no_repeat_ngram_size": settings.no_repeat_ngram_size, "answers_from": made_of,
        "layout": proof.layout, "engine": asdict(proof.engine),
        **facts_of_training(settings, model, state, started), "fingerprint": fingerprint,
    }
    if is_lead():
        save_facts(folder, facts)
    log({"event": "saved", "path": str(folder.model), "validation_loss": state.best_loss})
    return facts


def load_to_tune(
    settings: TuneSettings, head_name: str, labels: Sequence[str], checkpointing: bool
) -> tuple[LoadedModel, Any]:
    """The base model, and the model that is trained: with adapters, checkpointing or in parts where that is set."""
    import torch

    from treetune.models.load import load_model
    from treetune.train.distributed import in_turn, shard_model

    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
    with in_turn(bool(settings.fsdp)):
        loaded = load_model(settings.model, revision=settings.revision, random_init=settings.random_init,
                            seed=settings.seed, head=head_name, labels=labels, load_in=settings.load_in,
                            move=not settings.fsdp or count_processes() == 1)
        model = adapt(loaded.model, settings, load_head(head_name).PEFT_TASK, loaded.fresh)
        if checkpointing:
            model.activation_checkpointing_enable()
        if settings.fsdp:
            shard_model(model)
    return loaded, model


def groups_to_keep(settings: TuneSettings, training: Gathered, num_rows: int) -> IntArray | None:
    """(rows,) which source each row has, so that a step takes them together; None where rows are shuffled.

    Args:
        num_rows: tokenized ones; where a head makes several of a row, they are shuffled.
    """
    from treetune.train.order import groups_of

    if settings.row_order == "shuffled" or num_rows != len(training.examples):
        return None
    return groups_of([each.source for each in training.examples])


def facts_of_training(settings: TuneSettings, model: Any, state: TrainState, started: float) -> dict[str, Any]:
    """What was trained, from what, for how long. ``started``: by `time.time`."""
    import torch

    return {
        "base_model": settings.model, "random_init": settings.random_init, "load_in": settings.load_in,
        "distilled_from": settings.distill_from or "",
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "trained_parameters": sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        "seed": settings.seed, "steps": state.step, "best_step": state.best_step,
        "validation_loss": state.best_loss, "seconds": round(state.seconds, 3), "row_tokens": state.tokens,
        "computed_tokens": state.computed_tokens,
        "created": time.strftime("%Y-%m-%d", time.localtime(started)), "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }


def fingerprint_of(settings: TuneSettings, training: Gathered, validation: Gathered) -> dict[str, Any]:
    """What must be the same for a run to be resumed: settings by name, digests of the base model and of the data."""
    return {
        **settings.model_dump(exclude=MAY_DIFFER | {"data", "validation_data"}),
        "model_files": model_digest(Path(resolve(settings.model))),
        "data": training.digest,
        "validation_data": value_digest([validation.digest, len(validation.rows)]),
        **({"teacher_files": teacher_digest(settings.distill_from)} if settings.distill_from else {}),
    }


def answers_from(asked: str, task: Task, head: str) -> str:
    """``source`` where the answers of a decoder are to be pieces of the row's source, else ``anything``.

    Raises:
        UsageError: E2070 ``source`` was asked for where that cannot be done.
    """
    can = head == "causal" and is_extractive(task)
    if asked == "source" and not can:
        raise UsageError("E2070", "answers cannot be kept to the source here", where="--answers-from",
                         found=f"{task.NAME}, {head}", allowed="question answering by a decoder",
                         do="leave --answers-from away")
    return "source" if can and asked != "anything" else "anything"


def places_of_rows(rows: Mapping[int, Row], numbers: Sequence[int]) -> str:
    """Where the user finds rows: ``train.csv, lines 3, 7``."""
    files: dict[str, list[int]] = {}
    for number in numbers:
        files.setdefault(rows[number].file, []).append(rows[number].line)
    return "; ".join(f"{file}, line{'s' * (len(lines) > 1)} {', '.join(map(str, sorted(lines)))}"
                     for file, lines in files.items())


def refuse_changed(
    folder: RunFolder, fingerprint: dict[str, Any], allow_changed: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """A folder that holds another run is not resumed and not overwritten; what was allowed to differ is given back.

    A setting that the run's version did not know yet had its default.

    Raises:
        RunError: E5011 names the settings that differ. UsageError: E2003 ``allow_changed`` names no such thing.
    """
    for key in allow_changed:
        if key not in fingerprint:
            raise unknown_key(key, list(fingerprint), "--allow-changed")
    before = fingerprint_before(folder)
    if before is None:
        return []
    defaults = {name: field.get_default() for name, field in TuneSettings.model_fields.items()}
    before = {key: before.get(key, defaults.get(key)) for key in fingerprint}
    changed = [key for key in fingerprint if before[key] != fingerprint[key]]
    refused = [key for key in changed if key not in allow_changed]
    if refused:
        key = refused[0]
        raise RunError(
            "E5011", "the run in this folder was started differently: {keys}", keys=", ".join(refused),
            where=str(folder.root), found=f"{key}={fingerprint[key]!r}", allowed=f"{key}={before[key]!r}",
            do="choose another --output-dir, give the values the run was started with, or add --allow-changed KEY",
        )
    return [{"key": key, "before": before[key], "now": fingerprint[key]} for key in changed]


def changes_before(folder: RunFolder) -> list[dict[str, Any]]:
    """What earlier resumes of this run were allowed to change."""
    return list(read_json(folder.data).get("allowed_changes", [])) if folder.data.exists() else []


def fingerprint_before(folder: RunFolder) -> dict[str, Any] | None:
    """What the folder's run was started with: as written down, else as its newest readable checkpoint says."""
    if folder.data.exists():
        return dict(read_json(folder.data)["fingerprint"])
    from treetune.train.checkpoint import MANIFEST, steps_on_disk

    for _, path in steps_on_disk(folder.checkpoints):
        with contextlib.suppress(RunError, KeyError, TypeError, ValueError):  # broken: not resumed either
            return dict(read_json(path / MANIFEST)["fingerprint"])
    return None


def data_record(
    task: Task, training: Gathered, validation: Gathered, options: TaskOptions, fingerprint: dict[str, Any]
) -> dict[str, Any]:
    """``data.json``: fingerprint, counts, columns as resolved, labels, and the check of the rows."""
    report = inspect_splits(task, {"train": training, "validation": validation}, options)
    return {
        "fingerprint": fingerprint, "renamed": dict(training.renamed), "labels": list(options.labels),
        "rows": {"train": len(training.rows), "validation": len(validation.rows)},
        "row_ids": {"validation": [row.id for row in validation.rows]},
        "label_counts": Counter(each.answers[0] for each in training.examples) if options.labels else {},
        "check": report.as_dict(),
        "content_digests": content_digests([*training.examples, *validation.examples]),
    }


def prove_exact(
    model: Any, settings: TuneSettings, examples: list[TokenizedExample], on_event: OnEvent, head: Head
) -> Exactness:
    """Set the model up for the fastest layout that gives it the gradients of the separate rows; said what it is.

    Raises:
        UsageError: E4005 there are no rows to train on.
    """
    from treetune.models.engine import Engine
    from treetune.models.exactness import Exactness, prove, rows_to_prove
    from treetune.predict.labels import MAX_TOKENS

    if not examples:
        raise UsageError("E4005", "there are no rows to train on", where=settings.data, do="add rows")
    if not head.BRANCHES and head.PACKS and settings.layout != "padded":
        return prove_packed_rows(model, settings, examples, on_event, head)
    if not head.BRANCHES:
        on_event({"event": "layout", "asked": settings.layout, "used": "padded", "head": head.AUTO_CLASS})
        return Exactness("padded", Engine(), 0.0, ())
    # as large as training and prediction will make them, but for an instruction: the truth computes it row by row
    pack = max(settings.max_tokens_per_pass, MAX_TOKENS)
    proof = prove(model, rows_to_prove(examples, num_tokens=pack), settings.layout, pack)
    on_event(proof.event(settings.layout))
    return proof


def prove_packed_rows(
    model: Any, settings: TuneSettings, examples: Sequence[Any], on_event: OnEvent, head: Head
) -> Exactness:
    """The same for encoders, whose rows share no computation: side by side without padding, or padded."""
    from treetune.models.encoder import TOLERANCE, prove_packed, spread_of
    from treetune.models.engine import Engine
    from treetune.models.exactness import Exactness

    rows = spread_of(examples, settings.max_tokens_per_pass)
    layout, difference, reason = prove_packed(model, head, rows, settings.max_tokens_per_pass)
    on_event({"event": "exactness", "layout": "packed", "tolerance": TOLERANCE, "used": layout, "engine": "rows",
              "difference": str(difference) if reason else difference, "where": reason,
              "refused": [["packed", str(difference), reason]] if reason else []})
    return Exactness(layout, Engine(), difference, (("packed", difference, reason),) if reason else ())
