"""The command line's verbs as Python functions: ``from treetune.verbs import tune, evaluate, predict``.

``treetune.tune`` is this one, too. `audit`, `evaluate` and `predict` are not names of the package itself, because its
folders of these names hold their parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treetune.core.records import Prediction
from treetune.core.settings import PretrainSettings, TuneSettings, read_settings, read_yaml

if TYPE_CHECKING:
    from treetune.workflow.estimator import TunedModel
    from treetune.workflow.review import Desk


def _quiet(event: dict[str, Any]) -> None:
    """Events are in the run folder's metrics.jsonl; nothing is printed."""


def tune(config: str | None = None, allow_changed: Sequence[str] = (), **settings: Any) -> dict[str, Any]:
    """Tune a model: ``tune(task="sentiment", data="train.csv", output_dir="runs/a")``; settings as the flags.

    Returns:
        The facts of the run, also found in its ``model/treetune.json``.
    """
    from treetune.workflow.path import tune as tune_model

    return tune_model(read_settings(TuneSettings, Path(config) if config else None, settings), _quiet, allow_changed)


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


def audit(run: str, data: str, **options: Any) -> dict[str, Any]:
    """Find out for whom a run fails: ``audit("runs/a", "test.csv", by=["region"])``.

    Options as in `treetune.workflow.audit.audit`.
    """
    from treetune.workflow.audit import audit as audit_run

    return audit_run(run, data, _quiet, **options)


def review(run: str) -> Desk:
    """The answers of a run that wait for a person: ``review("runs/a").pending()``, and ``.record(one)`` of each."""
    from treetune.workflow.review import open_desk

    return open_desk(run)


def explain(run: str, text: str, **options: Any) -> dict[str, Any]:
    """Why a run answers a text as it does: ``explain("runs/a", "A dull film.", method="shapley")``.

    Options: other columns of the task as ``fields={"question": …}``, and those of `treetune.workflow.explain.Wanted`.
    """
    from treetune.workflow.explain import Wanted, explain_text

    return explain_text(run, text, options.pop("fields", {}), Wanted(**options))


def plan(config: str | None = None, *, question: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    """What a run with these settings will take; ``question`` as in `treetune.workflow.plan.Question`."""
    from treetune.workflow.plan import ASSUMED, Question
    from treetune.workflow.plan import plan as plan_run

    written = read_yaml(Path(config)) if config else {}
    values = {**{name: value for name, value in ASSUMED.items() if name not in written}, **settings}
    return plan_run(read_settings(TuneSettings, Path(config) if config else None, values),
                    Question(**{"sizes": {}, **(question or {})}))


def load(run: str, **options: Any) -> TunedModel:
    """A run as scikit-learn knows models: ``load("runs/a").predict(["A warm film."])``, ``predict_proba``, ``decide``.

    Options as in `treetune.workflow.estimator.load`.
    """
    from treetune.workflow.estimator import load as load_run

    return load_run(run, **options)


def export(run: str, to: str, output: str, *, push: str = "", **options: Any) -> dict[str, Any]:
    """Write a run for other tools: ``export("runs/a", "safetensors", "out")``, proved on rows before it is done.

    Options as in `treetune.workflow.export.export`; the result stands in ``export.json``, too. ``push="OWNER/NAME"``
    sends it to the hub then, private unless ``public=True``; options as in `treetune.workflow.push.push`.
    """
    if push:
        from treetune.workflow.push import push as push_export

        return push_export(run, to, output, push, **{"agreed": lambda plan: True, **options})
    from treetune.workflow.export import export as export_run

    return export_run(run, to, output, **options)


def pretrain(config: str | None = None, **settings: Any) -> dict[str, Any]:
    """Train a GPT-3-architecture model on raw text."""
    from treetune.workflow.pretrain import pretrain as pretrain_model

    return pretrain_model(read_settings(PretrainSettings, Path(config) if config else None, settings), _quiet)
