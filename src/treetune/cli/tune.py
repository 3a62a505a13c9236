"""``treetune tune``: tune a model on rows; the same command again resumes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from treetune.cli.flags import with_flags
from treetune.cli.launch import launch, note_final
from treetune.cli.show import Watcher
from treetune.core.errors import TreetuneError
from treetune.core.settings import TuneSettings, read_settings


def tune(
    config: str | None, overrides: dict[str, Any], *,
    allow_changed: Annotated[list[str] | None, typer.Option(
        "--allow-changed", help="setting that a resumed run may have another value of; may be given again")] = None,
    nproc_per_node: Annotated[int, typer.Option(
        "--nproc-per-node", min=1, help="processes that train together on this machine (torchrun)")] = 1,
    json_output: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> int:
    """Tune a model for a task on your rows. The same command again resumes."""
    from treetune.core.files import RunFolder
    from treetune.core.processes import count, is_lead
    from treetune.workflow.path import tune as tune_model
    from treetune.workflow.report import write_report

    settings = read_settings(TuneSettings, Path(config) if config else None, overrides)
    folder = RunFolder(Path(settings.output_dir))
    if nproc_per_node > 1 and count() == 1:
        return launch(nproc_per_node, sys.argv[1:], folder)
    try:
        facts = tune_model(settings, Watcher(quiet=json_output), allow_changed or ())
    except TreetuneError as error:
        note_final(error)
        raise
    if is_lead() and not folder.report.exists():
        write_report(folder)
    if is_lead() and json_output:
        print(json.dumps(facts, ensure_ascii=False))
    return 0


run = with_flags(TuneSettings, tune)
