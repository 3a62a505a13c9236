"""TensorBoard: event files in the run folder. ``tensorboard --logdir runs`` draws all runs below."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from treetune.workflow.trackers.contract import EXPECTED, Begin

PACKAGES = ("tensorboard",)


class TensorBoard:
    """Its event files are found by their folder; steps that are taken again are marked as void."""

    def __init__(self, how: Begin) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.id = "."
        self.writer: Any = SummaryWriter(
            str(how.folder / "tensorboard"), purge_step=how.kept_steps + 1 if how.id else None)
        if not how.id:
            lines = "".join(f"    {name}: {value}\n" for name, value in how.settings.items())
            self.writer.add_text("settings", lines, 0)

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()  # a killed run keeps its curve

    def end(self, finished: bool) -> None:
        self.writer.close()


def begin(how: Begin) -> TensorBoard:
    """See the contract."""
    return TensorBoard(how)


def failures() -> tuple[type[Exception], ...]:
    """Writing files is all it does."""
    return EXPECTED
