"""``treetune audit-log``: see whether anybody changed the log of a run's decisions."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from treetune.core.errors import EXIT_DONE, EXIT_FAILED, UsageError
from treetune.core.language import say


def run(
    action: Annotated[str, typer.Argument(metavar="ACTION", help="verify")],
    run_folder: Annotated[str, typer.Argument(metavar="RUN", help="run folder whose log it is")],
    json_output: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> int:
    """Check the log of decisions: treetune audit-log verify RUN. Exit code 1 where a line was changed or is missing."""
    from treetune.core.files import RunFolder
    from treetune.decide.audit_log import AuditLog

    if action != "verify":
        raise UsageError("E2509", "there is no action {action!r}", action=action, found=action, allowed="verify",
                         do="write treetune audit-log verify RUN")
    folder = RunFolder(Path(run_folder))
    if not folder.root.is_dir():
        raise UsageError("E2030", "there is no run {name!r}", name=run_folder, found=run_folder,
                         allowed="a folder that treetune tune wrote", do="check the path")
    found = AuditLog(folder.trust).verify()
    if json_output:
        print(json.dumps(asdict(found), ensure_ascii=False))
    elif found.fault:
        print(say("not intact after {count} records: {where}: {fault}", count=found.records, where=found.where,
                  fault=found.fault))
    else:
        print(say("intact: {count} records in {files} files, last digest {digest}", count=found.records,
                  files=found.files, digest=found.head))
    return EXIT_FAILED if found.fault else EXIT_DONE
