"""How many steps a run has, and what is due after which of them."""

from __future__ import annotations

from dataclasses import dataclass

from treetune.core.settings import LoopSettings
from treetune.train.order import steps_per_epoch, total_steps


@dataclass(frozen=True, slots=True)
class Pace:
    """Numbers of steps. ``eval_every``, ``save_every``: steps between two evaluations, two checkpoints."""

    rows_per_step: int
    steps: int
    per_epoch: int
    eval_every: int
    save_every: int

    def evaluates(self, step: int) -> bool:
        """Whether an evaluation is due after this step."""
        return step % self.eval_every == 0 or step == self.steps

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is due after this step: at each evaluation, too."""
        return self.evaluates(step) or step % self.save_every == 0


def pace_of(num_rows: int, settings: LoopSettings) -> Pace:
    """The pace of a run over so many rows."""
    rows_per_step = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    per_epoch = steps_per_epoch(num_rows, rows_per_step)
    eval_every = settings.eval_steps or per_epoch
    return Pace(rows_per_step, total_steps(num_rows, rows_per_step, settings.num_train_epochs, settings.max_steps),
                per_epoch, eval_every, settings.save_steps or eval_every)
