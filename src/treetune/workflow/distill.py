"""The teacher of a tuning: a run or a model whose probabilities the student learns beside the labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from treetune.core.errors import UsageError
from treetune.core.files import RunFolder, model_digest
from treetune.core.records import Example, OutputKind
from treetune.core.settings import TuneSettings
from treetune.models.embedded import resolve
from treetune.models.family import kind_of
from treetune.tasks.contract import Task
from treetune.workflow.log import OnEvent

SMALLEST = 1e-12  # of a probability, so that it has a logarithm


def teacher_digest(name: str) -> str:
    """What a resumed run is held to: the files of its teacher."""
    folder = RunFolder(Path(name))
    return model_digest(folder.model if folder.is_complete() else Path(str(resolve(name))))


def with_teacher(
    settings: TuneSettings, task: Task, head: str, student: Any, layout: str, rows: Sequence[Any],
    examples: Sequence[Example], on_event: OnEvent,
) -> tuple[Callable[..., Any], list[Any]]:
    """The loss with the teacher in it, and the training rows with what it needs of them.

    A decoder learns the teacher's probabilities of every labelled token, so both must have one vocabulary. A label
    head learns the probabilities of the labels, so its teacher may be of any family.

    Args:
        student: the loaded model. layout: that of its training. rows: encoded examples, in the order of ``examples``.

    Raises:
        UsageError: E2074 the head cannot learn so, E2075 the teacher answers another task or has other labels,
            E2076 another vocabulary, E2077 the teacher is not exact over the layout.
    """
    how: dict[str, Any] = {"temperature": settings.distill_temperature, "weight": settings.distill_weight}
    name = str(settings.distill_from)
    if head == "classes":
        from treetune.models.distill import class_loss

        logs = label_logs(name, task, examples, on_event)
        return partial(class_loss, **how), [replace(row, soft=logs[row.place]) for row in rows]
    if head != "causal":
        raise UsageError("E2074", "this kind of model cannot learn from a teacher", where="--distill-from", found=head,
                         allowed="a decoder, or an encoder with a label head", do="leave out --distill-from")
    from treetune.models.distill import token_loss

    return partial(token_loss, teacher=token_teacher(name, student, layout, rows, settings), **how), list(rows)


def label_logs(name: str, task: Task, examples: Sequence[Example], on_event: OnEvent) -> list[Any]:
    """(C,) the teacher's natural-log probabilities of the labels, for each example, in the order of its candidates."""
    import numpy as np

    from treetune.predict.answers import predict_answers
    from treetune.workflow.run import open_run

    run = open_run(name)
    labels = list(examples[0].candidates) if examples else []
    if run.task.NAME != task.NAME or kind_of(run.loaded.head, task) != OutputKind.LABEL or set(
            run.options.labels) != set(labels):
        raise UsageError("E2075", "the teacher answers another task, or with other labels", where=name,
                         found=f"{run.task.NAME}: {', '.join(run.options.labels)}",
                         allowed=f"{task.NAME}: {', '.join(labels)}", do="name a run of the same task and labels")
    on_event({"event": "predicting", "system": "teacher", "rows": len(examples)})
    # a student with a label head has no instruction; the teacher reads the one it was tuned with
    own = [replace(each, instruction=run.options.instruction) for each in examples]
    found = predict_answers(run.loaded, run.task, own, max_length=run.max_length,
                            max_new_tokens=run.max_new_tokens, layout=run.layout)
    return [np.array([math.log(max(SMALLEST, each.scores[f"probability:{label}"])) for label in labels])
            for each in found]


def token_teacher(name: str, student: Any, layout: str, rows: Sequence[Any], settings: TuneSettings) -> Any:
    """A decoder of the student's vocabulary, proved over the layout, without gradients."""
    from treetune.models.exactness import prove, rows_to_prove
    from treetune.models.load import load_model
    from treetune.workflow.run import finished_folder, load_run_model, read_facts

    folder = RunFolder(Path(name))
    if folder.is_complete():
        loaded = load_run_model(finished_folder(name), read_facts(folder))
    else:
        loaded = load_model(name)
    if loaded.head != "causal" or loaded.tokenizer.get_vocab() != student.tokenizer.get_vocab():
        raise UsageError("E2076", "teacher and student split text into different tokens", where=name,
                         found=type(loaded.tokenizer).__name__, allowed=type(student.tokenizer).__name__,
                         do="name a teacher with the tokenizer of --model")
    proof = prove(loaded.model, rows_to_prove(rows), layout, settings.max_tokens_per_pass)
    if proof.layout != layout:
        raise UsageError("E2077", "the teacher cannot read {layout} rows exactly", layout=layout, where=name,
                         found=proof.refused[0][2] if proof.refused else "", do="add --layout padded")
    return loaded.model.eval().requires_grad_(False)
