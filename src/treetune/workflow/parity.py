"""Whether another form of a run's model answers as the run does: the same rows through both, by the same code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from treetune.core.records import Example, Prediction
from treetune.evaluate.evaluation import evaluate_systems
from treetune.workflow.run import Run

RESAMPLES = 100  # of intervals that nobody reads here


@dataclass(frozen=True, slots=True)
class Said:
    """What one form says of some rows.

    Attributes:
        predictions: one a row. log_probs: natural-log probability of each token of each row's reference.
    """

    predictions: Sequence[Prediction]
    log_probs: Sequence[Sequence[float]]

    @property
    def answers(self) -> list[str]:
        return [each.answer for each in self.predictions]


def said_by(
    run: Run, loaded: Any, examples: Sequence[Example], *, max_length: int, window: int, layout: str
) -> Said:
    """Answers and reference log-probabilities of a model under the run's settings.

    Args:
        max_length: tokens a row may have when it is answered. window: when its reference is scored, which is that of
            the narrower form, so that both forms score the same tokens. layout: of the passes.
    """
    from treetune.predict.answers import predict_answers
    from treetune.predict.likelihood import reference_log_probs

    predictions = predict_answers(
        loaded, run.task, examples, max_length=max_length, max_new_tokens=run.max_new_tokens, layout=layout,
        answers_from=run.answers_from, no_repeat_ngram_size=run.no_repeat_ngram_size,
    )
    return Said(predictions, reference_log_probs(loaded, examples, window, layout))


def parity_of(run: Run, examples: Sequence[Example], original: Said, exported: Said) -> dict[str, Any]:
    """Share of equal answers, largest differences, and what becomes of each metric.

    Returns:
        ``rows``; ``equal_answers``: share; ``log_prob_difference``: the largest of a reference token, in nats;
        ``probability_difference``: the largest of a label, where there are labels; ``cut``: rows that lost text in
        either form; ``metrics``: name -> ``original``, ``exported``, ``change``.
    """
    pairs = list(zip(original.predictions, exported.predictions, strict=True))
    tokens = [(one, two) for own, other in zip(original.log_probs, exported.log_probs, strict=True)
              for one, two in zip(own, other, strict=True)]
    record: dict[str, Any] = {
        "rows": len(pairs), "equal_answers": sum(one.answer == two.answer for one, two in pairs) / len(pairs),
        "log_prob_difference": max((abs(one - two) for one, two in tokens), default=0.0),
        "cut": {"original": sum(one.num_cut > 0 for one, _ in pairs),
                "exported": sum(two.num_cut > 0 for _, two in pairs)},
    }
    labels = [name for name in original.predictions[0].scores if name.startswith("probability:")]
    if labels:
        record["probability_difference"] = max(
            abs(one.scores[name] - two.scores[name]) for one, two in pairs for name in labels)
    return {**record, "metrics": metrics_of(run, examples, original, exported)}


def metrics_of(run: Run, examples: Sequence[Example], original: Said, exported: Said) -> dict[str, dict[str, float]]:
    """Each of the task's metrics on these rows, of both forms."""
    evaluation = evaluate_systems({"original": original.answers, "exported": exported.answers}, examples,
                                  run.task.METRICS, seed=0, labels=run.options.labels, num_resamples=RESAMPLES)
    values = {system: {score.metric: score.interval.value for score in scores}
              for system, scores in evaluation.scores.items()}
    return {name: {"original": value, "exported": values["exported"][name], "change": values["exported"][name] - value}
            for name, value in values["original"].items()}
