"""The training loop: a function that calls parts. A step's loss is a sum over its labels, divided in one place."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from treetune.core.errors import Interrupted, TrainingError
from treetune.core.files import RunFolder, read_json
from treetune.core.lock import refuse_lost
from treetune.core.records import IntArray
from treetune.core.seeds import seed_of
from treetune.core.settings import LoopSettings
from treetune.models.decoder import LossSum, loss_sum
from treetune.models.engine import core_model
from treetune.models.norm import total_norm
from treetune.models.shard import inside, is_sharded
from treetune.train.checkpoint import (
    MANIFEST,
    TrainState,
    bring_back,
    gather_with_lead,
    is_whole,
    load_weights,
    newest_valid,
    problem_of,
    restore,
    save_checkpoint,
    versions,
)
from treetune.train.distributed import team
from treetune.train.memory import is_out_of_memory, keep_freed_memory, memory_ceiling, with_passes
from treetune.train.optimizers import build_optimizers, set_learning_rate, start_state
from treetune.train.order import row_chooser
from treetune.train.pace import Pace, pace_of
from treetune.train.schedule import learning_rate
from treetune.train.signals import Asked, stop_on_signal
from treetune.train.update import update
from treetune.train.waiting import gradient_that_waits
from treetune.train.watch import BadLoss, note_loss, reason_against, refuse_small_disk, stall_watch

MakeBatches = Callable[[Sequence[Any]], Iterator[Any]]
LossOf = Callable[[Any, Any], LossSum]
OnEvent = Callable[[dict[str, Any]], None]
MAX_BAD_IN_ROW = 10


class OutOfMemory(Exception):
    """Memory ran out in a step, in one process of the team at least; no weight has been changed."""


class CutOff(Exception):
    """A signal came during an evaluation."""


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
    places_of: Callable[[Sequence[int]], str] | None = None,
) -> TrainState:
    """Train until done, resuming from the newest whole checkpoint; leaves the best weights in ``model``.

    Args:
        examples, validation: tokenized rows. make_batches: rows of a step -> forward passes.
        fingerprint: what must be equal for a resume, stored in each checkpoint (checked by the caller).
        groups: (rows,) groups whose rows are kept together (see `row_chooser`), None to shuffle all rows.
        on_event: told about every log line, evaluation and checkpoint.
        loss_of: (model, batch) -> loss; that of causal language models by default.
        places_of: 0-based row numbers -> where the user finds them; "rows 1, 2" by default.

    Raises:
        Interrupted: a signal asked for a stop; all is saved.
        TrainingError: E4001 the loss cannot be right, E4003 memory ran out twice.
        RunError: E5013 the checkpoints cannot fit on the disk.
    """
    keep_freed_memory()
    crew = team()
    pace = pace_of(len(examples), settings)
    if crew.is_lead:
        refuse_small_disk(folder.checkpoints, model, settings.optim, settings.save_total_limit)
    optimizers = build_optimizers(model, settings.optim, settings.learning_rate, settings.weight_decay)
    state = resume(model, optimizers, folder, on_event)
    if not is_sharded(model):
        start_state(optimizers)
    crew.same_weights(model)
    passes = crew.smaller(make_batches, pace.rows_per_step)
    rows_of = row_chooser(len(examples), pace.rows_per_step, settings.seed, groups)

    def save() -> None:
        save_all(folder, model, optimizers, state, fingerprint, settings.save_total_limit, on_event)

    def finish() -> None:
        finish_step(state, pace, evaluate if validation else None, save, asked, on_event)

    with stop_on_signal() as asked, stall_watch(on_event) as watch, memory_ceiling(settings.max_memory_gb):
        evaluate = partial(mean_loss, model, validation, make_batches, loss_of, asked)
        if validation and pace.evaluates(state.step) and state.evaluated_step < state.step:
            finish()  # a signal cut the evaluation off
        if state.step == 0 and settings.on_bad_loss == "rollback":
            save()  # so that there is something to roll back to
        while state.step < pace.steps and not out_of_patience(state, settings):
            started = time.perf_counter()
            watch.begin(state.step + 1)
            taken = [examples[row] for row in rows_of(state.step)]
            try:
                next_step(state, pace, model, optimizers, taken, passes, settings, loss_of, on_event, started)
            except OutOfMemory as error:
                halve(state, optimizers, settings, on_event, error)
                continue
            except BadLoss as bad:
                state = pass_over(bad, state, model, optimizers, taken, settings, folder, on_event, places_of)
            finish()
            watch.end()
    if out_of_patience(state, settings):
        on_event({"event": "early_stop", "step": state.step})
    take_best(state, model, folder, on_event)
    return state


def next_step(
    state: TrainState, pace: Pace, model: torch.nn.Module, optimizers: list[torch.optim.Optimizer],
    taken: Sequence[Any], passes: MakeBatches, settings: LoopSettings, loss_of: LossOf, on_event: OnEvent,
    started: float,
) -> None:
    """Train on the rows taken, at the rate that is due, and count the step; errors as `train_step`.

    Args:
        started: when the step began, by `time.perf_counter`.
    """
    rate = learning_rate(state.step, pace.steps, settings.learning_rate, settings.warmup_ratio,
                         settings.lr_scheduler_type)
    set_learning_rate(optimizers, rate)
    result = train_step(model, optimizers, taken, with_passes(passes, 0.5) if state.halved else passes, settings, state,
                        loss_of)
    note_loss(state, result.loss)
    state.step += 1
    state.tokens += result.row_tokens
    state.computed_tokens += result.tokens
    state.seconds += time.perf_counter() - started
    if state.step % settings.logging_steps == 0 or state.step == pace.steps:
        on_event({"event": "step", "step": state.step, "of": pace.steps, "epoch": state.step / pace.per_epoch,
                  "learning_rate": rate, "seconds": time.perf_counter() - started, **asdict(result)})


def finish_step(
    state: TrainState, pace: Pace, evaluate: Callable[[], float] | None, save: Callable[[], None], asked: Asked,
    on_event: OnEvent,
) -> None:
    """Evaluate and save where they are due, stop where it was asked; an evaluation cut off is made up for.

    Args:
        evaluate: gives the validation loss; None without validation rows.

    Raises:
        Interrupted: E4010.
    """
    cut_off = False
    if pace.evaluates(state.step) and evaluate and state.evaluated_step < state.step:
        try:
            note_evaluation(state, evaluate(), on_event)
        except CutOff:
            cut_off = True
    stop, save_now = team().add_up([bool(asked()), asked.save])
    stop = stop and (state.step < pace.steps or cut_off)
    if pace.saves(state.step) or stop or save_now:
        save()
        asked.save = False
    if stop:
        team().add_up([0.0])  # nobody leaves before the lead has saved
        raise Interrupted("E4010", "stopped by {signal} after step {step}; everything is saved",
                          signal=asked() or "a signal to another process", step=state.step,
                          do="run the same command again to go on")


def save_all(
    folder: RunFolder, model: torch.nn.Module, optimizers: list[torch.optim.Optimizer], state: TrainState,
    fingerprint: dict[str, Any], keep: int, on_event: OnEvent,
) -> None:
    """A checkpoint, written by the lead; the others only give their parts. ``keep``: whole ones that stay."""
    if not team().is_lead:
        gather_with_lead(model, optimizers)
        return
    refuse_lost(folder.root)
    path = save_checkpoint(folder.checkpoints, model, optimizers, state, fingerprint, keep)
    on_event({"event": "checkpoint", "step": state.step, "path": path.name})


def out_of_patience(state: TrainState, settings: LoopSettings) -> bool:
    """Whether as many evaluations as allowed have passed without a better loss."""
    return 0 < settings.early_stopping_patience <= state.evaluations_without_gain


def resume(
    model: torch.nn.Module, optimizers: list[torch.optim.Optimizer], folder: RunFolder, on_event: OnEvent
) -> TrainState:
    """The state of the newest whole checkpoint, or a fresh one; says which it was and what was broken or differs."""

    def newest() -> str:
        bring_back(folder.checkpoints)
        path, broken = newest_valid(folder.checkpoints)
        for line in broken:
            on_event({"event": "broken_checkpoint", "found": line})
        return path.name if path else ""

    name = team().from_lead(newest)
    if not name:
        return TrainState()
    path = folder.checkpoints / name
    state = restore(path, model, optimizers)
    on_event({"event": "resumed", "step": state.step, "path": path.name})
    before = read_json(path / MANIFEST).get("versions", {})
    changed = {key: [before[key], now] for key, now in versions().items() if before.get(key, now) != now}
    if changed:
        on_event({"event": "other_software", "changed": changed})
    best = folder.checkpoints / f"step-{state.best_step}"
    if state.best_step and best != path and not is_whole(best):
        lose_best(state, problem_of(best), on_event)
    return state


def lose_best(state: TrainState, problem: str, on_event: OnEvent) -> None:
    """The checkpoint of the best step is broken: the best of the evaluations to come is taken instead, and said."""
    on_event({"event": "best_lost", "best_step": state.best_step, "loss": state.best_loss, "found": problem})
    state.best_step, state.best_loss, state.evaluations_without_gain = 0, None, 0


def take_best(state: TrainState, model: torch.nn.Module, folder: RunFolder, on_event: OnEvent) -> None:
    """Leave the weights of the best step in the model; those of the last where the best's were damaged."""
    best = folder.checkpoints / f"step-{state.best_step}"
    if state.best_step in (0, state.step):
        return
    if is_whole(best):
        load_weights(best, model)
    else:
        lose_best(state, problem_of(best), on_event)


def halve(
    state: TrainState, optimizers: list[torch.optim.Optimizer], settings: LoopSettings, on_event: OnEvent,
    error: OutOfMemory,
) -> None:
    """Passes half as large from now on; the rows of a step stay the same.

    Raises:
        TrainingError: E4003 they are half as large already.
    """
    if state.halved:
        raise TrainingError(
            "E4003", "memory ran out, also with passes half as large", found=str(error),
            allowed=f"{settings.max_memory_gb} GB" if settings.max_memory_gb else "",
            do="lower --per-device-train-batch-size or --max-length, or use --gradient-checkpointing",
        ) from error
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    state.halved = True
    on_event({"event": "halved", "step": state.step, "found": str(error)})


def pass_over(
    bad: BadLoss, state: TrainState, model: torch.nn.Module, optimizers: list[torch.optim.Optimizer],
    taken: Sequence[Any], settings: LoopSettings, folder: RunFolder, on_event: OnEvent,
    places_of: Callable[[Sequence[int]], str] | None,
) -> TrainState:
    """Leave a bad step out, as set: ``skip`` it, or ``rollback`` to the newest checkpoint and leave out all since.

    Raises:
        TrainingError: E4001 where the setting says stop, or after ten bad steps in a row.
    """
    rows = sorted({int(example.row) for example in taken})
    where = places_of(rows) if places_of else f"rows {', '.join(str(row + 1) for row in rows)}"
    if settings.on_bad_loss == "stop" or state.bad_in_row + 1 >= MAX_BAD_IN_ROW:
        unusual = math.isfinite(bad.loss)
        raise TrainingError(
            "E4001", "the loss is far above the usual in step {step}" if unusual
            else "the loss is not a finite number in step {step}", step=state.step + 1, found=bad.reason, where=where,
            do="lower --learning-rate or look at these rows (--on-bad-loss skip leaves them out); "
               "the last checkpoint is intact",
        )
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    step, in_row, from_step = state.step + 1, state.bad_in_row + 1, state.step
    if settings.on_bad_loss == "rollback":
        path, _ = newest_valid(folder.checkpoints)
        assert path is not None, "fit saved one before the first step"
        state = restore(path, model, optimizers)
        from_step = state.step
    state.step, state.bad_in_row = step, in_row
    state.skipped_steps += step - from_step
    on_event({"event": "bad_loss", "step": step, "done": settings.on_bad_loss, "found": bad.reason, "rows": where,
              "left_out_steps": step - from_step})
    return state


def train_step(
    model: torch.nn.Module, optimizers: list[torch.optim.Optimizer], examples: Sequence[Any],
    make_batches: MakeBatches, settings: LoopSettings, state: TrainState | int, loss_of: LossOf = loss_sum,
) -> StepResult:
    """Loss, backward over all passes of the step, division by the step's label count, clipping, update.

    Gradients are summed over passes and processes and divided once by the labels of the whole step, so accumulation
    changes nothing but memory, also in a ragged last step. Dropout is seeded by (seed, step).

    Args:
        state: where the run stands; a number means that step of a run that watches for nothing but not-a-numbers.

    Raises:
        BadLoss: the loss or gradient cannot be right. OutOfMemory: memory ran out. No weight was changed by either.
    """
    state = TrainState(step=state) if isinstance(state, int) else state
    alone = team().size == 1  # sums over processes are of whole gradients
    with gradient_that_waits(core_model(model), optimizers if alone else []) as waiting:
        total, count, tokens, row_tokens = add_passes(model, examples, make_batches, settings, state.step, loss_of)
    reason = reason_against(total / count, 0.0, state, settings.bad_loss_factor)
    if reason:
        raise BadLoss(total / count, 0.0, reason)
    team().add_gradients(model)
    if waiting and waiting.matrix.grad is not None:  # another pass had too many labels
        waiting.settle()
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    norm = math.hypot(total_norm(gradients), waiting.norm() if waiting else 0.0) / count
    reason = reason_against(total / count, norm, state, 0.0)
    if reason:
        raise BadLoss(total / count, norm, reason)
    clipped = max(1.0, norm / settings.max_grad_norm) if settings.max_grad_norm else 1.0
    update(optimizers, count * clipped, waiting)
    return StepResult(total / count, int(count), norm, int(tokens), int(row_tokens))


def add_passes(
    model: torch.nn.Module, examples: Sequence[Any], make_batches: MakeBatches, settings: LoopSettings, step: int,
    loss_of: LossOf,
) -> list[float]:
    """Forward and backward over this process's passes; loss, labels, tokens and row tokens summed over all processes.

    Raises:
        OutOfMemory: in any process.
    """
    model.train()
    crew = team()
    torch.manual_seed(seed_of(settings.seed, "dropout", step, *([crew.rank] if crew.rank else [])))
    device = next(model.parameters()).device
    in_step = is_sharded(model)
    total, count, tokens, row_tokens, ran_out = 0.0, 0.0, 0.0, 0.0, ""
    try:
        for batch, counts in crew.share(make_batches(examples), width_of(model), in_step=in_step):
            # no cache of half-precision copies where a layer's weights are to be freed after the layer
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.bf16, cache_enabled=not in_step):
                part = inside(model, partial(loss_of, model, batch.to(device)))
            (counts * part.total).backward()  # type: ignore[no-untyped-call]
            total += counts * float(part.total.detach())
            count += counts * part.count
            tokens += counts * batch.num_tokens
            row_tokens += counts * batch.num_row_tokens
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if in_step:  # the others wait for this process's parts: there is no way back into step
            raise TrainingError(
                "E4003", "memory ran out in a pass whose weights are in parts",
                found=" ".join(str(error).split())[:300] or type(error).__name__,
                do="lower --max-tokens-per-pass or --max-length, or use --gradient-checkpointing",
            ) from error
        ran_out = " ".join(str(error).split())[:300] or type(error).__name__
    *sums, out = crew.add_up([total, count, tokens, row_tokens, bool(ran_out)])
    if out:
        raise OutOfMemory(ran_out or "in another process")
    return sums


def width_of(model: torch.nn.Module) -> int:
    """Numbers in a token's hidden state."""
    return int(getattr(getattr(model, "config", None), "hidden_size", 0) or 1024)


@torch.no_grad()
def mean_loss(
    model: torch.nn.Module, examples: Sequence[Any], make_batches: MakeBatches, loss_of: LossOf = loss_sum,
    stop: Callable[[], object] = lambda: False,
) -> float:
    """Nats a label over ``examples``, without dropout.

    Raises:
        CutOff: ``stop()`` became true in one of the processes.
    """
    model.eval()
    crew = team()
    device = next(model.parameters()).device
    total, count, in_step = 0.0, 0.0, is_sharded(model)
    for batch, counts in crew.share(make_batches(examples), width_of(model), in_step=in_step):
        if crew.agree(bool(stop()), in_step):
            break
        part = inside(model, partial(loss_of, model, batch.to(device)))
        total += counts * float(part.total)
        count += counts * part.count
    total, count, stopped = crew.add_up([total, count, bool(stop())])
    if stopped:
        raise CutOff
    return total / count


def note_evaluation(state: TrainState, loss: float, on_event: OnEvent) -> None:
    """Keep the best step; count evaluations without a gain.

    Raises:
        TrainingError: E4002 the validation loss is not finite.
    """
    if not math.isfinite(loss):
        raise TrainingError("E4002", "the validation loss is not a finite number in step {step}", step=state.step,
                            found=str(loss), do="lower --learning-rate or look at the validation rows")
    state.evaluated_step = state.step
    if state.best_loss is None or loss < state.best_loss:
        state.best_loss, state.best_step, state.evaluations_without_gain = loss, state.step, 0
    else:
        state.evaluations_without_gain += 1
    on_event({"event": "evaluation", "step": state.step, "loss": loss, "best_loss": state.best_loss,
              "best_step": state.best_step})
