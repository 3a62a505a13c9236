"""``treetune init``: a folder with sample rows and a commented config that trains in a minute."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from treetune.core.errors import UsageError
from treetune.core.files import write_text
from treetune.core.language import say
from treetune.tasks.contract import load_task

CONFIG = """\
# treetune tune {folder}/run.yaml     (any flag of treetune tune --help may stand here)
task: {task}
model: gpt3                  # or a folder, or a hub name
data: {folder}/train.jsonl
validation_data: {folder}/validation.jsonl
output_dir: {folder}/run
num_train_epochs: 3
learning_rate: 0.001
per_device_train_batch_size: 16
seed: 0
"""


def run(
    folder: Annotated[str, typer.Argument(help="folder to make")],
    task: Annotated[str, typer.Option(help="translation, summarization, sentiment or qa")] = "sentiment",
) -> int:
    """Write sample rows and a config to start from."""
    from treetune.data.sample import sample_path

    name = load_task(task).NAME
    target = Path(folder)
    if target.exists() and any(target.iterdir()):
        raise UsageError("E2040", "the folder is not empty", where=folder, do="name a new folder")
    target.mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation", "test"):
        shutil.copyfile(sample_path(name, split), target / f"{split}.jsonl")
    write_text(target / "run.yaml", CONFIG.format(folder=folder, task=name))
    print(say("wrote {folder}; next: treetune tune {folder}/run.yaml", folder=folder))
    return 0
