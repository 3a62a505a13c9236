"""The training loop: a function that calls parts. A step's loss is a sum over its labels, divided in one place."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from treetune.core.errors import Interrupted, TrainingError
from treetune.core.files import RunFolder
from treetune.core.records import IntArray
from treetune.core.seeds import seed_of
from treetune.core.settings import LoopSettings
from treetune.models.decoder import LossSum, loss_sum
from treetune.train.checkpoint import TrainState, load_weights, newest_valid, restore, save_checkpoint
from treetune.train.memory import keep_freed_memory
from treetune.train.optimizers import build_optimizers, set_learning_rate
from treetune.train.order import rows_of_step, steps_per_epoch, total_steps
from treetune.train.schedule import learning_rate
from treetune.train.signals import stop_on_signal

MakeBatches = Callable[[Sequence[Any]], Iterator[Any]]
LossOf = Callable[[Any, Any], LossSum]
OnEvent = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class StepResult:
    """One optimizer step. ``loss`` in nats a label; tokens computed, and those of the separate rows."""

    loss: float
    num_labels: int
    grad_norm: float
    tokens: int
    row_tokens: int


def fit(
    model: torch.nn.Module,
    examples: Sequence[Any],
    validation: Sequence[Any],
    settings: LoopSettings,
    make_batches: MakeBatches,
    folder: RunFolder,
    fingerprint: dict[str, Any],
    on_event: OnEvent,
    groups: IntArray | None = None,
    loss_of: LossOf = loss_sum,
) -> TrainState:
    """Train until done, resuming from the newest whole checkpoint; leaves the best weights in ``model``.

    Args:
        examples, validation: tokenized rows. make_batches: rows of a step -> forward passes.
        fingerprint: what must be equal for a resume, stored in each checkpoint (checked by the caller).
        groups: (rows,) groups whose rows are kept together (see `rows_of_step`), None to shuffle all rows.
        on_event: told about every log line, evaluation and checkpoint.
        loss_of: (model, batch) -> loss; that of causal language models by default.

    Raises:
        Interrupted: a signal asked for a stop; all is saved.
        TrainingError: E4001 the loss is not finite.
    """
    keep_freed_memory()
    rows_per_step = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    steps = total_steps(len(examples), rows_per_step, settings.num_train_epochs, settings.max_steps)
    per_epoch = steps_per_epoch(len(examples), rows_per_step)
    eval_every = settings.eval_steps or per_epoch
    save_every = settings.save_steps or eval_every
    optimizers = build_optimizers(model, settings.optim, settings.learning_rate, settings.weight_decay)
    state = resume(model, optimizers, folder, on_event)

    def save() -> None:
        path = save_checkpoint(folder.checkpoints, model, optimizers, state, fingerprint, settings.save_total_limit)
        on_event({"event": "checkpoint", "step": state.step, "path": path.name})

    with stop_on_signal() as stop_asked:
        while state.step < steps and not out_of_patience(state, settings):
            started = time.perf_counter()
            rate = learning_rate(state.step, steps, settings.learning_rate, settings.warmup_ratio,
                                 settings.lr_scheduler_type)
            rows = rows_of_step(len(examples), rows_per_step, settings.seed, state.step, groups)
            set_learning_rate(optimizers, rate)
            result = train_step(model, optimizers, [examples[row] for row in rows], make_batches, settings,
                                state.step, loss_of)
            state.step += 1
            state.tokens += result.row_tokens
            state.computed_tokens += result.tokens
            state.seconds += time.perf_counter() - started
            if state.step % settings.logging_steps == 0 or state.step == steps:
                on_event({"event": "step", "step": state.step, "of": steps, "epoch": state.step / per_epoch,
                          "learning_rate": rate, "seconds": time.perf_counter() - started, **asdict(result)})
            due = state.step % eval_every == 0 or state.step == steps
            if due and validation:
                note_evaluation(state, mean_loss(model, validation, make_batches, loss_of), on_event)
            if due or state.step % save_every == 0:
                save()
            if (signal_name := stop_asked()) and state.step < steps:
                if not (due or state.step % save_every == 0):
                    save()
                raise Interrupted("E4010", "stopped by {signal} after step {step}; everything is saved",
                                  signal=signal_name, step=state.step,
                                  do="run the same command again to go on")
    if out_of_patience(state, settings):
        on_event({"event": "early_stop", "step": state.step})
    if state.best_step and state.best_step != state.step:
        load_weights(folder.checkpoints / f"step-{state.best_step}", model)
    return state


def out_of_patience(state: TrainState, settings: LoopSettings) -> bool:
    """Whether as many evaluations as allowed have passed without a better loss."""
    return 0 < settings.early_stopping_patience <= state.evaluations_without_gain


def resume(
    model: torch.nn.Module, optimizers: list[torch.optim.Optimizer], folder: RunFolder, on_event: OnEvent
) -> TrainState:
    """The state of the newest whole checkpoint, or a fresh one; says which it was and what was broken."""
    path, broken = newest_valid(folder.checkpoints)
    for line in broken:
        on_event({"event": "broken_checkpoint", "found": line})
    if path is None:
        return TrainState()
    state = restore(path, model, optimizers)
    on_event({"event": "resumed", "step": state.step, "path": path.name})
    return state


def train_step(
    model: torch.nn.Module, optimizers: list[torch.optim.Optimizer], examples: Sequence[Any],
    make_batches: MakeBatches, settings: LoopSettings, step: int, loss_of: LossOf = loss_sum,
) -> StepResult:
    """Loss, backward over all passes of the step, division by the step's label count, clipping, update.

    Gradients are summed over passes and divided once by the labels of the whole step, so accumulation changes
    nothing but memory, also in a ragged last step. Dropout is seeded by (seed, step).
    """
    model.train()
    torch.manual_seed(seed_of(settings.seed, "dropout", step))
    device = next(model.parameters()).device
    total, count, tokens, row_tokens = 0.0, 0.0, 0, 0
    for batch in make_batches(examples):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.bf16):
            part = loss_of(model, batch.to(device))
        part.total.backward()  # type: ignore[no-untyped-call]
        total += float(part.total.detach())
        count += part.count
        tokens += batch.num_tokens
        row_tokens += batch.num_row_tokens
    if not math.isfinite(total):
        rows = sorted(example.row for example in examples)
        raise TrainingError(
            "E4001", "the loss is not a finite number in step {step}", step=step + 1, found=str(total),
            where=f"rows {', '.join(map(str, rows))}",
            do="lower --learning-rate or look at these rows; the last checkpoint is intact",
        )
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    norm = float(torch.nn.utils.get_total_norm(gradients)) / count
    clipped = max(1.0, norm / settings.max_grad_norm) if settings.max_grad_norm else 1.0
    for gradient in gradients:  # the mean and the clip in one walk through memory
        gradient.div_(count * clipped)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return StepResult(total / count, int(count), norm, tokens, row_tokens)


@torch.no_grad()
def mean_loss(
    model: torch.nn.Module, examples: Sequence[Any], make_batches: MakeBatches, loss_of: LossOf = loss_sum
) -> float:
    """Nats a label over ``examples``, without dropout."""
    model.eval()
    device = next(model.parameters()).device
    total, count = 0.0, 0.0
    for batch in make_batches(examples):
        part = loss_of(model, batch.to(device))
        total += float(part.total)
        count += part.count
    return total / count


def note_evaluation(state: TrainState, loss: float, on_event: OnEvent) -> None:
    """Keep the best step; count evaluations without a gain.

    Raises:
        TrainingError: E4002 the validation loss is not finite.
    """
    if not math.isfinite(loss):
        raise TrainingError("E4002", "the validation loss is not a finite number in step {step}", step=state.step,
                            found=str(loss), do="lower --learning-rate or look at the validation rows")
    if state.best_loss is None or loss < state.best_loss:
        state.best_loss, state.best_step, state.evaluations_without_gain = loss, state.step, 0
    else:
        state.evaluations_without_gain += 1
    on_event({"event": "evaluation", "step": state.step, "loss": loss, "best_loss": state.best_loss,
              "best_step": state.best_step})
