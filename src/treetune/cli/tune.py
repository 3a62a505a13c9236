"""``treetune tune``: tune a model on rows; the same command again resumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from treetune.cli.flags import with_flags
from treetune.cli.show import Watcher
from treetune.core.settings import TuneSettings, read_settings


def tune(
    config: str | None, overrides: dict[str, Any], *,
    json_output: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> int:
    """Tune a model for a task on your rows. The same command again resumes."""
    from treetune.core.files import RunFolder
    from treetune.workflow.path import tune as tune_model
    from treetune.workflow.report import write_report

    settings = read_settings(TuneSettings, Path(config) if config else None, overrides)
    facts = tune_model(settings, Watcher(quiet=json_output))
    folder = RunFolder(Path(settings.output_dir))
    if not folder.report.exists():
        write_report(folder)
    if json_output:
        print(json.dumps(facts, ensure_ascii=False))
    return 0


run = with_flags(TuneSettings, tune)
