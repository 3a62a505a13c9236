"""MLflow: the store of ``MLFLOW_TRACKING_URI``, else a database in the run folder."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from treetune.workflow.trackers.contract import EXPECTED, Begin

PACKAGES = ("mlflow",)
EXPERIMENT = "treetune"  # unless MLFLOW_EXPERIMENT_NAME says otherwise
MOST_TEXT = 500  # characters of a setting that every store takes


class MLflow:
    """Works with the client alone: no run of the user's own in this process is touched."""

    def __init__(self, how: Begin) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        how.folder.mkdir(parents=True, exist_ok=True)
        own = f"sqlite:///{how.folder.resolve() / 'mlflow.db'}"
        self.client: Any = MlflowClient(tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or own)
        self.id = how.id
        if how.id:
            self.client.update_run(how.id, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        found = self.client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self.client.create_experiment(name)
        self.id = self.client.create_run(experiment, run_name=how.name).info.run_id
        self.client.log_batch(self.id, params=[Param(key, str(value)[:MOST_TEXT])
                                               for key, value in how.settings.items()])

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(self.id, metrics=[Metric(name, value, now, step) for name, value in values.items()])

    def end(self, finished: bool) -> None:
        self.client.set_terminated(self.id, "FINISHED" if finished else "KILLED")


def begin(how: Begin) -> MLflow:
    """See the contract."""
    return MLflow(how)


def failures() -> tuple[type[Exception], ...]:
    """Its stores' errors are wrapped into its own."""
    from mlflow.exceptions import MlflowException

    return (*EXPECTED, MlflowException)
