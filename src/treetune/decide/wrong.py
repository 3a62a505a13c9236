"""What counts as a wrong answer: said by the user in a form a machine can check, never guessed.

    label differs        f1 < 0.5        exact_match < 1        chrf < 40        rougeL < 0.2
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from treetune.core.errors import UsageError
from treetune.core.language import say

LABEL_DIFFERS = "label differs"
_FORM = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*<\s*([0-9]*\.?[0-9]+)\s*")
EXAMPLES = "label differs, f1<0.5, exact_match<1, chrf<40, rougeL<0.2"


@dataclass(frozen=True, slots=True)
class Wrong:
    """An answer is wrong when its own ``metric`` is below ``limit``."""

    metric: str
    limit: float

    def __str__(self) -> str:
        return LABEL_DIFFERS if self.metric == "accuracy" else f"{self.metric} < {self.limit:g}"

    def in_words(self) -> str:
        """For a sentence, in the language in force."""
        if self.metric == "accuracy":
            return say("its label differs from the right one")
        return say("its {metric} against the reference is below {limit}", metric=self.metric, limit=f"{self.limit:g}")


def parse_wrong(text: str) -> Wrong:
    """Read a definition; whether the task knows the metric is `check_wrong`'s.

    Raises:
        UsageError: E2502 when it cannot be read.
    """
    if re.fullmatch(r"\s*label\s+differs\s*", text):
        return Wrong("accuracy", 1.0)
    found = _FORM.fullmatch(text)
    if not found:
        raise UsageError("E2502", "what a wrong answer is cannot be read", where="--wrong", found=repr(text),
                         allowed=EXAMPLES, do="write a metric, <, and a number, in quotes")
    return Wrong(found[1], float(found[2]))


def check_wrong(text: str, task: str, metrics: Mapping[str, float], default: str) -> Wrong:
    """The definition for a task: what the user wrote, or the task's default.

    Args:
        metrics: name -> best value of the metrics that judge a single answer of the task. default: "" when the task
            has none that could be right for everybody.

    Raises:
        UsageError: E2502 as in `parse_wrong`; E2503 no such metric here; E2504 nothing given and no default; E2505 a
            limit that makes no answer or every answer wrong.
    """
    if not text.strip() and not default:
        raise UsageError("E2504", "say what a wrong answer is: {task} has no definition of its own", task=task,
                         where="--wrong", allowed=_forms(metrics), do="give --wrong, e.g. --wrong \"{example}\"",
                         example=_example(metrics))
    wrong = parse_wrong(text if text.strip() else default)
    if wrong.metric not in metrics:
        raise UsageError("E2503", "{metric!r} does not judge a single answer of {task}", metric=wrong.metric, task=task,
                         where="--wrong", found=wrong.metric, allowed=_forms(metrics),
                         do="give --wrong, e.g. --wrong \"{example}\"", example=_example(metrics))
    best = metrics[wrong.metric]
    if not 0 < wrong.limit <= best:
        raise UsageError("E2505", "with this limit every answer is wrong, or none", where="--wrong", found=str(wrong),
                         allowed=f"0 < {wrong.metric} <= {best:g}", do="choose a limit in between")
    return wrong


def _forms(metrics: Mapping[str, float]) -> str:
    return ", ".join(LABEL_DIFFERS if name == "accuracy" else f"{name} < 0 … {best:g}"
                     for name, best in metrics.items())


def _example(metrics: Mapping[str, float]) -> str:
    name = next(iter(metrics))
    return LABEL_DIFFERS if name == "accuracy" else f"{name}<{metrics[name] * 0.4:g}"


def known_metrics(task_metrics: Sequence[str], best: Mapping[str, float]) -> dict[str, float]:
    """The task's metrics that mean something for one answer alone, with their best value."""
    return {name: best[name] for name in task_metrics if name not in ("macro_f1", "bleu")}
