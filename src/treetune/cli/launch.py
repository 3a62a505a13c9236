"""``--nproc-per-node``: this command in several processes that train one model, started and watched by torchrun."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from treetune.core.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, TreetuneError
from treetune.core.files import RunFolder
from treetune.core.processes import is_lead

LAUNCHED = "TREETUNE_LAUNCHED"  # names the file that takes the exit code a launched process would have had by itself
LOST = "E4006"
MAX_RESTARTS = 3


def launch(num_processes: int, words: Sequence[str], folder: RunFolder) -> int:
    """Run ``treetune words`` in each process; a process that dies is started again with all others, three times.

    Returns:
        What one process would: 0 done, 75 interrupted and resumable, else the code of the first that failed.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // num_processes)))
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=num_processes, run_id="treetune", max_restarts=MAX_RESTARTS,
        rdzv_backend="c10d", rdzv_endpoint="127.0.0.1:0", monitor_interval=0.5,
    )
    with tempfile.TemporaryDirectory(prefix="treetune-") as place:
        note = Path(place) / "exit_code"
        os.environ[LAUNCHED] = str(note)
        try:
            elastic_launch(config, sys.executable)("-m", "treetune", *words)
        except SignalException:
            return EXIT_INTERRUPTED
        except ChildFailedError:
            return EXIT_FAILED
        finally:
            del os.environ[LAUNCHED]
        return int(note.read_text(encoding="utf-8")) if note.exists() and not folder.is_complete() else EXIT_DONE


def note_final(error: TreetuneError) -> None:
    """torchrun starts whatever fails again; an error that would only come again must look done to it.

    A process that lost another one (E4006) stays a failure: starting all again is what mends that.
    """
    if LAUNCHED in os.environ and error.code != LOST:
        if is_lead():
            Path(os.environ[LAUNCHED]).write_text(str(error.exit_code), encoding="utf-8")
        error.exit_code = EXIT_DONE
