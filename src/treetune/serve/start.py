"""From the command line's words to a server that listens."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence

from treetune.serve.access import Keys, check_binding, host_names, read_key
from treetune.serve.app import build_app
from treetune.serve.desk import Desk
from treetune.serve.limits import Limits
from treetune.serve.listen import bind, listen
from treetune.serve.runs import Runs, parse_names
from treetune.workflow.decider import Recording


def start(
    words: Sequence[str], *, host: str, port: int, api_key_file: str, allowed_hosts: Sequence[str], limits: Limits,
    recording: Recording, torch_threads: int, on_ready: Callable[[str, Desk], None],
) -> None:
    """Serve runs until a signal comes.

    Args:
        words: ``RUN`` or ``NAME=RUN``. on_ready: told the address and the desk once connections are taken.

    Raises:
        UsageError: E2701 to E2705, and what `treetune.workflow.run.open_run` raises.
    """
    key = read_key(api_key_file, os.environ)
    check_binding(host, key)
    folders = parse_names(words)
    found = bind(host, port)
    try:
        if torch_threads:
            import torch

            torch.set_num_threads(torch_threads)
        desk = Desk(Runs(folders), limits, recording, on_fault=_log_fault)
        _, guard = build_app(desk, host_names(host, tuple(allowed_hosts)), Keys(key))
        own = f"[{host.strip('[]')}]" if ":" in host else host
        address = f"http://{own}:{found.getsockname()[1]}"
        listen(found, guard, desk, lambda: on_ready(address, desk))
    finally:
        found.close()


def _log_fault(error: BaseException) -> None:
    logging.getLogger("treetune.serve").error("worker: %s", type(error).__name__, exc_info=error)
