"""Ray Train: python recipes/cluster/ray_train.py run.yaml WORKERS

Ray starts the workers and tells them of each other; each runs the same command, as it would under torchrun. A worker
that fails makes Ray start all again, which resume.
"""

from __future__ import annotations

import sys
from typing import Any


def work(options: dict[str, Any]) -> None:
    """One worker: the command line, with Ray's RANK and WORLD_SIZE in the environment."""
    from treetune.cli.app import run

    code = run(["tune", options["config"]], False, False)
    if code:
        raise RuntimeError(f"treetune tune left with {code}")


def main() -> None:
    """Start the workers."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig  # type: ignore[import-not-found]
    from ray.train.torch import TorchTrainer  # type: ignore[import-not-found]

    TorchTrainer(
        work, train_loop_config={"config": sys.argv[1]},
        scaling_config=ScalingConfig(num_workers=int(sys.argv[2])),
        run_config=RunConfig(failure_config=FailureConfig(max_failures=3)),
    ).fit()


if __name__ == "__main__":
    main()
