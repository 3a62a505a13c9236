"""The file that answers go to: looked at before the first row is read, because it gets its name after the last."""

from __future__ import annotations

import os
from pathlib import Path

from treetune.core.errors import UsageError
from treetune.workflow.journal import refuse_second

STANDARD_OUTPUT = "-"


def output_file(output: str, data: str) -> Path | None:
    """Where to write; None: to standard output. A link is followed, so that its file changes and not the link.

    Args:
        data: the rows, as the user named them.

    Raises:
        UsageError: E2043 nothing can be written whole there, E2044 rows would be lost, or answers taken for rows.
        RunError: E5020 another process writes there.
    """
    if output == STANDARD_OUTPUT:
        return None
    target = Path(os.path.realpath(output)) if os.path.islink(output) else Path(output)
    if not target.name or (os.path.exists(target) and not os.path.isfile(target)):  # a folder, a device, a pipe
        raise UsageError("E2043", "answers cannot be written there", where="--output", found=output or '""',
                         allowed="a file, or - for standard output", do="name a file")
    rows, place = os.path.realpath(data), os.path.realpath(target)
    if rows in (place, os.path.dirname(place)):
        raise UsageError("E2044", "answers do not belong among the rows they answer", where="--output", found=output,
                         do="name another file, in another folder where --data is a folder")
    refuse_second(target)
    return target
