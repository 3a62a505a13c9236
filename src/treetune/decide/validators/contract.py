"""What a check must offer, how all are run, and how well each did on planted defects.

A check looks at one answer and its row and says what it found, or nothing. It is pure Python, knows nothing of the
model, and is never the reason to accept: it can only send an answer to a person, or flag it.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, Protocol, cast

from treetune.core.records import Example, Prediction, Reason

NOT_CHECKS = ("contract", "words", "quantities")
MEASURED = "measured.json"


class Validator(Protocol):
    """A module in this folder. All names below are module-level.

    Attributes:
        NAME: the code of its finding. TASKS: tasks it is for, () for all. FLAG_ONLY: it never changes a verdict.
    """

    NAME: str
    TASKS: tuple[str, ...]
    FLAG_ONLY: bool

    def find(self, prediction: Prediction, example: Example) -> Reason | None:
        """What is wrong with the answer, with value, limit and the evidence; None where nothing is."""
        ...


@cache
def validators_of(task: str) -> tuple[Validator, ...]:
    """The checks for a task, by name."""
    import treetune.decide.validators as folder

    names = sorted(each.name for each in pkgutil.iter_modules(folder.__path__) if each.name not in NOT_CHECKS)
    modules = [cast(Validator, importlib.import_module(f"{folder.__name__}.{name}")) for name in names]
    return tuple(each for each in modules if not each.TASKS or task in each.TASKS)


def findings_of(task: str, prediction: Prediction, example: Example) -> tuple[Reason, ...]:
    """What the task's checks found, in the order of their names."""
    found = (each.find(prediction, example) for each in validators_of(task))
    return tuple(each for each in found if each is not None)


def all_findings(
    task: str, predictions: Sequence[Prediction], examples: Sequence[Example]
) -> tuple[tuple[Reason, ...], ...]:
    """`findings_of` each pair."""
    return tuple(findings_of(task, *pair) for pair in zip(predictions, examples, strict=True))


@cache
def measured() -> Mapping[str, Any]:
    """Precision and recall of each check on planted defects, as ``benchmarks/gate_validators.py`` measured them.

    {check: {"precision": {value, low, high}, "recall": {…}, "planted": rows, "sound": rows}}; {} before it ran.
    """
    file = resources.files("treetune.decide.validators").joinpath(MEASURED)
    return cast(Mapping[str, Any], json.loads(file.read_text("utf-8"))) if file.is_file() else {}
