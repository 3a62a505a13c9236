"""``treetune pretrain``: train a model of the GPT-3 architecture on raw text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from treetune.cli.flags import with_flags
from treetune.cli.show import Watcher
from treetune.core.settings import PretrainSettings, read_settings


def pretrain(
    config: str | None, overrides: dict[str, Any], *,
    json_output: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> int:
    """Train a GPT-3-architecture model on text. The same command again resumes."""
    from treetune.workflow.pretrain import pretrain as pretrain_model

    settings = read_settings(PretrainSettings, Path(config) if config else None, overrides)
    record = pretrain_model(settings, Watcher(quiet=json_output))
    print(json.dumps(record, ensure_ascii=False, indent=None if json_output else 2))
    return 0


run = with_flags(PretrainSettings, pretrain)
