"""Watching over a run: losses that cannot be right, steps that do not end, disks that will not hold the run."""

from __future__ import annotations

import math
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch

from treetune.core.errors import RunError
from treetune.train.checkpoint import TrainState, trainable_weights

USUAL_AFTER = 20  # good steps before a loss can be called unusual
MEMORY_OF_LOSS = 0.95
STALL_AT_LEAST, STALL_FACTOR, STALL_STEPS = 60.0, 20.0, 20
STATES_OF_WEIGHT = {"adamw": 2, "adam": 2, "muon": 2, "sgd": 0}  # tensors of an optimizer's state, of a weight's size
ROOM_FOR_TEXT = 1 << 20


class BadLoss(Exception):
    """A step's loss or gradient cannot be right; no weight has been changed. ``reason`` is for the user."""

    def __init__(self, loss: float, norm: float, reason: str) -> None:
        super().__init__(reason)
        self.loss = loss
        self.norm = norm
        self.reason = reason


def reason_against(loss: float, norm: float, state: TrainState, factor: float) -> str:
    """Why a step must not be taken, ``""`` when it may: not a number, or ``factor`` times the usual loss (0: never)."""
    if not math.isfinite(loss):
        return f"loss {loss}"
    if not math.isfinite(norm):
        return f"gradient norm {norm}"
    if factor and state.usual_count >= USUAL_AFTER and loss > factor * state.usual_loss:
        return f"loss {loss:.4g}, usually {state.usual_loss:.4g}"
    return ""


def note_loss(state: TrainState, loss: float) -> None:
    """Take a good step's loss into the moving average."""
    share = max(1 - MEMORY_OF_LOSS, 1 / (state.usual_count + 1))  # a plain mean at first
    state.usual_loss += share * (loss - state.usual_loss)
    state.usual_count += 1
    state.bad_in_row = 0


class StallWatch:
    """Tells when a step takes far longer than the steps before it; a thread, since the step itself cannot."""

    def __init__(self, tell: Callable[[dict[str, Any]], None]) -> None:
        self.tell = tell
        self.times: deque[float] = deque(maxlen=STALL_STEPS)
        self.began = time.monotonic()
        self.step = 0
        self.told = False
        self.done = threading.Event()

    def begin(self, step: int) -> None:
        """A step begins (or an evaluation after it)."""
        self.began, self.step, self.told = time.monotonic(), step, False

    def end(self) -> None:
        """The step is over."""
        self.times.append(time.monotonic() - self.began)

    def limit(self) -> float:
        """Seconds after which a step counts as stalled; no step has set a measure yet: infinite."""
        return max(STALL_AT_LEAST, STALL_FACTOR * median(self.times)) if self.times else math.inf

    def look(self) -> None:
        """Tell once a step."""
        seconds = time.monotonic() - self.began
        if not self.told and seconds > self.limit():
            self.told = True
            self.tell({"event": "stalled", "step": self.step, "seconds": round(seconds, 1),
                       "usual_seconds": round(median(self.times), 3)})

    def run(self) -> None:
        """Look now and then until `done`."""
        while not self.done.wait(min(STALL_AT_LEAST / 10, 5.0)):
            self.look()


@contextmanager
def stall_watch(tell: Callable[[dict[str, Any]], None]) -> Iterator[StallWatch]:
    """A `StallWatch` whose thread runs inside."""
    watch = StallWatch(tell)
    thread = threading.Thread(target=watch.run, name="stall watch", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch.done.set()
        thread.join()


def bytes_of_checkpoint(model: torch.nn.Module, optim: str) -> int:
    """Bytes of one checkpoint: trainable weights and the optimizer's state of them."""
    weights = sum(weight.numel() * weight.element_size() for weight in trainable_weights(model).values())
    return weights * (1 + STATES_OF_WEIGHT[optim]) + ROOM_FOR_TEXT


def refuse_small_disk(folder: Path, model: torch.nn.Module, optim: str, keep: int) -> int:
    """Bytes the run will have on disk at most: ``keep`` checkpoints, the best, the one being written, the model.

    Raises:
        RunError: E5013 they cannot fit beside what the disk holds.
    """
    one = bytes_of_checkpoint(model, optim)
    total = (keep + 2) * one + sum(weight.numel() * weight.element_size() for weight in model.parameters())
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.exists() else 0
    place = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(place).free
    if total - there > free:
        raise RunError(
            "E5013", "the checkpoints of this run cannot fit on the disk", where=str(folder),
            found=f"{free / 1e9:.2f} GB free, {there / 1e9:.2f} GB of this run already there",
            allowed=f"{total / 1e9:.2f} GB: {keep + 2} x {one / 1e9:.2f} GB and the model",
            do="free some space, lower --save-total-limit, or use --lora-r",
        )
    return total
