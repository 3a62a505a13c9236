"""The command line's verbs as Python functions: ``from treetune.verbs import tune, evaluate, predict``.

``treetune.tune`` is this one, too. `evaluate` and `predict` are not names of the package itself, because its folders
of these names hold their parts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from treetune.core.records import Prediction
from treetune.core.settings import PretrainSettings, TuneSettings, read_settings


def _quiet(event: dict[str, Any]) -> None:
    """Events are in the run folder's metrics.jsonl; nothing is printed."""


def tune(config: str | None = None, **settings: Any) -> dict[str, Any]:
    """Tune a model: ``tune(task="sentiment", data="train.csv", output_dir="runs/a")``; settings as the flags.

    Returns:
        The facts of the run, also found in its ``model/treetune.json``.
    """
    from treetune.workflow.path import tune as tune_model

    return tune_model(read_settings(TuneSettings, Path(config) if config else None, settings), _quiet)


def check(config: str | None = None, **settings: Any) -> dict[str, Any]:
    """What `tune` with the same settings would see in the data; nothing is written."""
    from treetune.workflow.check import check as check_data

    settings.setdefault("output_dir", "unused")
    return check_data(read_settings(TuneSettings, Path(config) if config else None, settings))


def evaluate(run: str, data: str, **options: Any) -> dict[str, Any]:
    """Measure a run on labelled rows; options as in `treetune.workflow.evaluate.evaluate`."""
    from treetune.workflow.evaluate import evaluate as evaluate_run

    return evaluate_run(run, data, _quiet, **options)


def predict(run: str, data: str, output: str | None = None, **options: Any) -> list[Prediction]:
    """Answer rows with a run; options as in `treetune.workflow.predict.predict`."""
    from treetune.workflow.predict import predict as predict_rows

    return predict_rows(run, data, output, **options)


def gate(run: str, data: str, **options: Any) -> dict[str, Any]:
    """Set a run's gate on labelled rows: ``gate("runs/a", "calibration.csv", max_error=0.05)``.

    Options as in `treetune.workflow.gate.gate`; the result's ``threshold`` is None when nothing can be accepted.
    """
    from treetune.workflow.gate import gate as set_gate

    return set_gate(run, data, _quiet, **options)


def pretrain(config: str | None = None, **settings: Any) -> dict[str, Any]:
    """Train a GPT-3-architecture model on raw text."""
    from treetune.workflow.pretrain import pretrain as pretrain_model

    return pretrain_model(read_settings(PretrainSettings, Path(config) if config else None, settings), _quiet)
