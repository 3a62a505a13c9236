"""A tiny model, rows that can be learnt by heart, and runs in a temporary folder."""

import hashlib
import importlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from treetune.core.files import RunFolder
from treetune.core.records import TokenizedExample
from treetune.core.settings import LoopSettings
from treetune.models.batches import batches_of
from treetune.models.gpt3 import GPT3Config, GPT3LMHeadModel
from treetune.train.checkpoint import TrainState
from treetune.train.loop import fit


@pytest.fixture(autouse=True)
def always(one_thread: None) -> None:
    """For every test in this folder."""


@pytest.fixture(scope="session")
def benchmark_module() -> Iterator[Callable[[str], ModuleType]]:
    """(name of a file of benchmarks/ without its ending) -> module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).resolve().parents[3] / "benchmarks"))
        yield importlib.import_module


@pytest.fixture
def make_model() -> Callable[..., GPT3LMHeadModel]:
    """(options of GPT3Config) -> the same small random model each time."""

    def make(**changes: Any) -> GPT3LMHeadModel:
        torch.manual_seed(0)
        shape = {"vocab_size": 50, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4, "attention_band": 4}
        return GPT3LMHeadModel(GPT3Config(**{**shape, **changes}))

    return make


@pytest.fixture
def rows() -> list[TokenizedExample]:
    """Eleven rows of different lengths that share their first tokens."""
    random = np.random.default_rng(0)
    return [
        TokenizedExample(100 + n, 0, np.array([1, 2, 3, *random.integers(4, 50, 1 + n % 4)]),
                         np.array([*random.integers(4, 50, 1 + n % 3), 0]), 0)
        for n in range(11)
    ]


@pytest.fixture
def run_fit(tmp_path: Path, rows: list[TokenizedExample]) -> Callable[..., TrainState]:
    """(model, folder name, on_event, settings) -> state after `fit`."""

    def run(model: torch.nn.Module, name: str = "run", on_event: Any = None, **changes: Any) -> TrainState:
        given = {"output_dir": name, "num_train_epochs": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-2,
                 "logging_steps": 1} | changes
        make_batches = partial(batches_of, layout="tree", rows_per_pass=given["per_device_train_batch_size"],
                               max_tokens=200)
        return fit(model, rows, rows[:3], LoopSettings(**given), make_batches, RunFolder(tmp_path / name), {},
                   on_event or (lambda event: None))

    return run


@pytest.fixture
def digest() -> Callable[[torch.nn.Module], str]:
    """sha256 of all weights."""

    def of(model: torch.nn.Module) -> str:
        total = hashlib.sha256()
        for name, weight in sorted(model.state_dict().items()):
            total.update(name.encode() + weight.contiguous().numpy().tobytes())
        return total.hexdigest()

    return of
