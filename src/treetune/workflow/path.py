"""The straight path of tuning: rows -> examples -> tokens -> trees -> batches -> loss -> checkpoint -> model."""

from __future__ import annotations

import contextlib
import platform
import time
from collections import Counter
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treetune.core.errors import RunError, UsageError
from treetune.core.files import RunFolder, model_digest, read_json, value_digest, write_json, write_text
from treetune.core.records import TokenizedExample
from treetune.core.settings import TuneSettings, to_yaml
from treetune.models.embedded import resolve
from treetune.models.family import Head, family_of_head, head_for, load_head
from treetune.tasks.contract import Task, TaskOptions, load_task
from treetune.workflow.check import inspect_splits
from treetune.workflow.gather import Gathered, cut_report, gather_training
from treetune.workflow.log import MetricsLog, OnEvent
from treetune.workflow.run import save_facts, save_model
from treetune.workflow.seen import content_digests

if TYPE_CHECKING:
    from treetune.models.exactness import Exactness

MAY_DIFFER = {"output_dir", "logging_steps", "save_total_limit", "torch_threads"}


def tune(settings: TuneSettings, on_event: OnEvent) -> dict[str, Any]:
    """Tune a model on rows. The same call on the same folder resumes, or says that it is done.

    Returns:
        The facts also found in ``model/treetune.json``.

    Raises:
        TreetuneError: see `treetune.core.errors`; nothing half-written is left looking whole.
    """
    folder = RunFolder(Path(settings.output_dir))
    task = load_task(settings.task)
    head_name = head_for(settings.model, task, revision=settings.revision)
    training, validation, options = gather_training(settings, task, folder.quarantine)
    fingerprint = fingerprint_of(settings, training, validation)
    refuse_changed(folder, fingerprint)
    log = MetricsLog(folder.metrics, on_event)
    if folder.is_complete():
        log.watch({"event": "complete", "path": str(folder.root)})
        return dict(read_json(folder.model / "treetune.json"))

    # only now: a fault in the rows, or a finished run, need not wait for torch
    import torch

    from treetune.models.adapters import add_lora
    from treetune.models.load import load_model
    from treetune.train.loop import fit
    from treetune.train.order import groups_of

    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
    head = load_head(head_name)
    loaded = load_model(settings.model, revision=settings.revision, random_init=settings.random_init,
                        seed=settings.seed, head=head_name, labels=options.labels)
    max_length = min(settings.max_length or head.MAX_LENGTH or loaded.window, loaded.window)
    train_tokens = head.encode(training.examples, loaded.tokenizer, max_length)
    validation_tokens = head.encode(validation.examples, loaded.tokenizer, max_length)
    settled = head.settle(training.examples)
    loaded.model.config.update(settled)
    write_text(folder.config, to_yaml(settings))  # from here on the folder is this run's
    write_json(folder.data, data_record(task, training, validation, options, fingerprint))
    log({"event": "tokens", "cut": cut_report([each.num_cut for each in train_tokens]),
         "rows": len(train_tokens), "validation_rows": len(validation_tokens)})
    model = loaded.model
    if settings.lora_r:
        model = add_lora(model, settings.lora_r, settings.lora_alpha, settings.lora_dropout, head.PEFT_TASK)
    if settings.gradient_checkpointing:
        model.activation_checkpointing_enable()
    proof = prove_exact(model, settings, train_tokens, log, head)
    layout = proof.layout
    make_batches = partial(head.batches_of, layout=layout, rows_per_pass=settings.per_device_train_batch_size,
                           max_tokens=settings.max_tokens_per_pass)
    started = time.time()
    groups = None
    if settings.row_order != "shuffled" and len(train_tokens) == len(training.examples):
        groups = groups_of([each.source for each in training.examples])
    state = fit(model, train_tokens, validation_tokens, settings, make_batches, folder, fingerprint, log, groups,
                head.loss_sum)
    loaded.tokenizer.model_max_length = loaded.window
    save_model(folder, model, loaded.tokenizer)
    facts = {
        "task": task.NAME, "family": family_of_head(head_name), "head": head_name, "settled": settled,
        "labels": list(options.labels), "prompt_language": options.prompt_language,
        "max_length": max_length, "max_new_tokens": settings.max_new_tokens or task.MAX_NEW_TOKENS,
        "layout": layout, "engine": asdict(proof.engine),
        "base_model": settings.model, "random_init": settings.random_init,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "trained_parameters": sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        "seed": settings.seed, "steps": state.step, "best_step": state.best_step,
        "validation_loss": state.best_loss, "seconds": round(state.seconds, 3), "row_tokens": state.tokens,
        "computed_tokens": state.computed_tokens,
        "created": time.strftime("%Y-%m-%d", time.localtime(started)), "machine": platform.machine(),
        "threads": torch.get_num_threads(), "fingerprint": fingerprint,
    }
    save_facts(folder, facts)
    log({"event": "saved", "path": str(folder.model), "validation_loss": state.best_loss})
    return facts


def fingerprint_of(settings: TuneSettings, training: Gathered, validation: Gathered) -> dict[str, Any]:
    """What must be the same for a run to be resumed: settings by name, digests of the base model and of the data."""
    return {
        **settings.model_dump(exclude=MAY_DIFFER | {"data", "validation_data"}),
        "model_files": model_digest(Path(resolve(settings.model))),
        "data": training.digest,
        "validation_data": value_digest([validation.digest, len(validation.rows)]),
    }


def refuse_changed(folder: RunFolder, fingerprint: dict[str, Any]) -> None:
    """A folder that holds another run is not resumed and not overwritten.

    Raises:
        RunError: E5011 names the settings that differ.
    """
    before = fingerprint_before(folder)
    if before is None:
        return
    changed = [key for key in fingerprint if before.get(key) != fingerprint[key]]
    if changed:
        key = changed[0]
        raise RunError(
            "E5011", "the run in this folder was started differently: {keys}", keys=", ".join(changed),
            where=str(folder.root), found=f"{key}={fingerprint[key]!r}", allowed=f"{key}={before.get(key)!r}",
            do="choose another --output-dir, or give the values the run was started with",
        )


def fingerprint_before(folder: RunFolder) -> dict[str, Any] | None:
    """What the folder's run was started with: as written down, else as its newest readable checkpoint says."""
    if folder.data.exists():
        return dict(read_json(folder.data)["fingerprint"])
    for path in sorted(folder.checkpoints.glob("step-*/manifest.json"), key=lambda path: -path.stat().st_mtime):
        with contextlib.suppress(RunError, KeyError, TypeError, ValueError):  # broken: not resumed either
            return dict(read_json(path)["fingerprint"])
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
    from treetune.models.exactness import TOLERANCE, Exactness, engine_name, prove, rows_to_prove
    from treetune.predict.labels import MAX_TOKENS

    if not examples:
        raise UsageError("E4005", "there are no rows to train on", where=settings.data, do="add rows")
    if not head.BRANCHES:
        on_event({"event": "layout", "asked": settings.layout, "used": "padded", "head": head.AUTO_CLASS})
        return Exactness("padded", Engine(), 0.0, ())
    pack = max(settings.max_tokens_per_pass, MAX_TOKENS)  # as large as training and prediction will make them
    proof = prove(model, rows_to_prove(examples, num_tokens=pack), settings.layout, pack)
    first = proof.refused[0] if proof.refused else None
    on_event({"event": "exactness", "layout": settings.layout, "tolerance": TOLERANCE, "used": proof.layout,
              "engine": engine_name(proof.engine),
              "difference": str(first[1]) if first and proof.layout != settings.layout else proof.difference,
              "where": first[2] if first else "",
              "refused": [[what, str(difference), where] for what, difference, where in proof.refused]})
    return proof
