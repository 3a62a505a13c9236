"""Which kind of subject explains a prediction: the model's head and the kind of answer decide."""

from __future__ import annotations

from treetune.core.errors import UsageError
from treetune.core.records import Example, OutputKind, Prediction
from treetune.explain.read import class_subject, span_subject
from treetune.explain.subject import Subject
from treetune.explain.written import label_subject, text_subject
from treetune.models.family import kind_of
from treetune.models.load import LoadedModel
from treetune.tasks.contract import Task


def subject_of(
    loaded: LoadedModel, task: Task, example: Example, prediction: Prediction, *, max_length: int, layout: str,
    against: str = "", token: int | None = None,
) -> Subject:
    """The prediction as something to explain.

    Args:
        against: the label it is compared with; "": the runner-up. token: of a written answer, this token alone.

    Raises:
        UsageError: E2608 ``against`` or ``token`` does not apply, E2604 no such token.
    """
    kind = kind_of(loaded.head, task)
    if (against and kind != OutputKind.LABEL) or (token is not None and kind != OutputKind.TEXT):
        raise UsageError("E2608", "this answer cannot be compared in that way", found=f"{loaded.head} × {kind}",
                         allowed="another label for labels, one token for written answers", do="leave the flag out")
    if kind == OutputKind.LABEL:
        rival = rival_label(example, prediction, against)
        if loaded.head == "classes":
            return class_subject(loaded, example, prediction.answer, rival, max_length=max_length)
        return label_subject(loaded, example, prediction.answer, rival, max_length=max_length, layout=layout)
    if kind == OutputKind.SPAN:
        start, end = (int(prediction.scores[name]) for name in ("start", "end"))
        return span_subject(loaded, example, start, end, max_length=max_length)
    return text_subject(loaded, example, prediction.text, max_length=max_length, layout=layout, token=token)


def rival_label(example: Example, prediction: Prediction, against: str) -> str:
    """The label ``against``, else the likeliest one that was not the answer.

    Raises:
        UsageError: E2609 it is no other label of the task.
    """
    others = [label for label in example.candidates if label != prediction.answer]
    if against and against not in others:
        raise UsageError("E2609", "the answer cannot be compared with this label", found=against,
                         allowed=", ".join(others), do="choose another label of the task")
    return against or max(others, key=lambda label: prediction.scores[f"probability:{label}"])
