"""``treetune demo``: the main job on the shipped base and sample rows, in under three minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from treetune.cli.show import Watcher, scores_table
from treetune.cli.table import table
from treetune.core.language import say
from treetune.core.settings import TuneSettings
from treetune.tasks.contract import load_task


def run(
    task: Annotated[str, typer.Option(help="translation, summarization, sentiment or qa")] = "sentiment",
    output_dir: Annotated[str, typer.Option(help="run folder")] = "runs/demo",
) -> int:
    """Tune the shipped base on sample rows, measure it, answer five held-out rows, write a report."""
    from treetune.core.files import RunFolder
    from treetune.data.read import read_rows
    from treetune.data.sample import sample_path
    from treetune.workflow.evaluate import evaluate
    from treetune.workflow.path import tune
    from treetune.workflow.predict import predict

    name = load_task(task).NAME
    watch = Watcher(quiet=False)
    settings = TuneSettings(
        task=name, data=str(sample_path(name, "train")),
        validation_data=str(sample_path(name, "validation")), output_dir=output_dir,
        learning_rate=2e-3, num_train_epochs=6, per_device_train_batch_size=16,
    )
    tune(settings, watch)
    test = str(sample_path(name, "test"))
    scores_table(evaluate(output_dir, test, watch))
    rows = read_rows(test, split="test", aliases={}, columns={}).rows[:5]
    answers = predict(output_dir, test, None)[:5]
    column = load_task(task).COLUMNS[1 if name == "question_answering" else 0].name
    table(say("five held-out rows"), [say("input"), say("answer"), say("probability")],
          [[str(row.values[column])[:70], each.answer[:70], f"{each.scores['probability']:.2f}"]
           for row, each in zip(rows, answers, strict=True)])
    print(say("report: {path}", path=str(RunFolder(Path(output_dir)).report)))
    return 0
