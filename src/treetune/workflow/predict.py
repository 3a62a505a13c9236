"""Answers for new rows: one JSON object a row, in the order of the rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from treetune.core.files import write_text
from treetune.core.records import Decision, Prediction
from treetune.workflow.gather import read_for, to_examples
from treetune.workflow.run import open_run


def predict(
    run_path: str, data: str, output: str | None, *, columns: Mapping[str, str] | None = None,
    max_refused_share: float = 0.0, record: bool = True, log_text: bool = False,
) -> list[Prediction]:
    """Answer every row of ``data``, with a decision each; written to ``output`` (JSON lines) if given.

    Under a gate the rows are watched for drift, every decision goes into the run's audit log, and what a person should
    see into its review queue; ``record=False`` leaves all three as they are. ``log_text``: texts in the audit log, too.

    A row that cannot be read stops the call unless ``max_refused_share`` allows it; then it is listed in
    ``output``.quarantine.jsonl.
    """
    from treetune.predict.answers import predict_answers
    from treetune.workflow.decider import Decider, Recording

    run = open_run(run_path)
    result = read_for(run.task, data, "test", columns or {}, with_answer=False)
    quarantine = Path(f"{output}.quarantine.jsonl") if output else None
    gathered = to_examples(run.task, result, run.options, quarantine, max_refused_share, with_answer=False)
    predictions = predict_answers(
        run.loaded, run.task, gathered.examples, max_length=run.max_length, max_new_tokens=run.max_new_tokens,
        layout=run.layout, answers_from=run.answers_from, no_repeat_ngram_size=run.no_repeat_ngram_size,
    )
    predictions = Decider(run, Recording(record, log_text)).decide(predictions, gathered.examples, gathered.rows)
    if output:
        write_text(Path(output), to_lines(predictions))
    return predictions


def to_lines(predictions: Sequence[Prediction]) -> str:
    """JSON lines of predictions."""
    return "".join(json.dumps(as_dict(each), ensure_ascii=False) + "\n" for each in predictions)


def as_dict(prediction: Prediction) -> dict[str, Any]:
    """One prediction for machines, numbers rounded to 6 places; ``decision`` where one was made."""
    decided = {} if prediction.decision is None else {"decision": decision_as_dict(prediction.decision)}
    return {
        "row": prediction.row, "id": prediction.row_id, "answer": prediction.answer, "text": prediction.text,
        "scores": {name: round(value, 6) for name, value in prediction.scores.items()},
        "token_log_probs": [round(value, 6) for value in prediction.token_log_probs],
        "finished": prediction.finished, "num_cut": prediction.num_cut, "seconds": round(prediction.seconds, 6),
        **decided,
    }


def decision_as_dict(decision: Decision) -> dict[str, Any]:
    """One decision for machines. Score and limit keep all their digits, so that they can be compared."""
    confidence = decision.confidence
    return {**asdict(decision), "confidence": None if confidence is None else round(confidence, 6)}
