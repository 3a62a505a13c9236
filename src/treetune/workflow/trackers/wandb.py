"""Weights & Biases: offline in the run folder, unless ``WANDB_MODE`` says otherwise. ``wandb sync`` sends it later."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from typing import Any

from treetune.workflow.trackers.contract import EXPECTED, Begin

PACKAGES = ("wandb",)
PROJECT = "treetune"  # unless WANDB_PROJECT says otherwise
# what it would collect by itself: printed text, source, git, the command line, packages, the machine
SILENT = {"console": "off", "silent": True, "disable_code": True, "save_code": False, "disable_git": True,
          "disable_job_creation": True, "x_disable_meta": True, "x_disable_stats": True,
          "x_disable_machine_info": True, "x_save_requirements": False, "host": "-"}


class WeightsAndBiases:
    """Of its own settings only those are given that this version of it knows."""

    def __init__(self, how: Begin) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        how.folder.mkdir(parents=True, exist_ok=True)
        known = getattr(wandb.Settings, "model_fields", SILENT)
        self.id = how.id or uuid.uuid4().hex[:8]
        self.run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT, name=how.name, id=self.id, resume="allow",
            dir=str(how.folder), mode=os.environ.get("WANDB_MODE") or "offline",
            config=dict(how.settings), reinit="create_new",
            settings=wandb.Settings(**{name: value for name, value in SILENT.items() if name in known}),
        )

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        self.run.log(dict(values), step=step)

    def end(self, finished: bool) -> None:
        self.run.finish(exit_code=0 if finished else 1)


def begin(how: Begin) -> WeightsAndBiases:
    """See the contract."""
    return WeightsAndBiases(how)


def failures() -> tuple[type[Exception], ...]:
    """Its own errors have a tree of their own."""
    import wandb

    return (*EXPECTED, wandb.errors.Error)
