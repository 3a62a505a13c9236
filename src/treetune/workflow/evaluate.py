"""Evaluation of a run: predictions of the tuned model, of its untuned base and of honest baselines, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from treetune.core.files import read_json, write_json, write_text
from treetune.core.records import Example, OutputKind, Prediction
from treetune.evaluate.baselines import answers_of
from treetune.evaluate.evaluation import evaluate_systems
from treetune.evaluate.score import Resampling, passages_of, perplexity_score
from treetune.workflow.answer_lines import to_lines
from treetune.workflow.gather import read_for, to_examples
from treetune.workflow.log import OnEvent
from treetune.workflow.report import write_report
from treetune.workflow.run import Run, open_run, ready


def evaluate(
    run_path: str, data: str, on_event: OnEvent, *, columns: Mapping[str, str] | None = None,
    compare_base: bool = True, max_refused_share: float = 0.05, split: str = "test",
) -> dict[str, Any]:
    """Measure a run on labelled rows; writes ``evaluation.json``, ``predictions.jsonl``, the report and the card.

    Args:
        compare_base: also run the base model as it was before tuning, and test the difference in pairs.

    Returns:
        What stands in ``evaluation.json``.
    """
    from treetune.models.load import load_model
    from treetune.predict.likelihood import reference_log_probs

    run = open_run(run_path)
    result = read_for(run.task, data, split, columns or {})
    quarantine = run.folder.quarantine
    gathered = to_examples(run.task, result, run.options, quarantine.with_name(f"evaluation.{quarantine.name}"),
                           max_refused_share)
    examples = gathered.examples
    predictions = answer(run, run.loaded, examples)
    systems: dict[str, Sequence[str]] = {"tuned": [each.answer for each in predictions]}
    if compare_base:
        on_event({"event": "predicting", "system": "base", "rows": len(examples)})
        base = load_model(run.facts["base_model"], revision=run.facts["fingerprint"]["revision"],
                          random_init=run.facts["random_init"], seed=run.facts["seed"],
                          head=run.loaded.head, labels=run.options.labels,
                          load_in=run.facts.get("load_in", ""))
        systems["base"] = [each.answer for each in answer(run, ready(base, run.facts), examples)]
    training = training_answers(run)
    for name in run.task.BASELINES:
        systems[name] = answers_of(name, examples, training)
    cluster = passages_of(examples) if run.task.NAME == "question_answering" else None
    how = Resampling(seed=0, cluster=cluster)
    evaluation = evaluate_systems(
        systems, examples, run.task.METRICS, seed=0, labels=run.options.labels, cluster=cluster,
        reference_system="base" if compare_base else "",
    )
    logs = reference_log_probs(run.loaded, examples, run.max_length, run.layout)
    perplexity = perplexity_score(logs, how)
    record = {
        **evaluation.as_dict(), "data": data, "digest": gathered.digest, "refused": len(gathered.refused),
        "perplexity": asdict(perplexity), "unfinished": sum(not each.finished for each in predictions),
        "cut": sum(each.num_cut > 0 for each in predictions),
        "seconds": round(sum(each.seconds for each in predictions), 3),
    }
    write_json(run.folder.evaluation, record)
    write_text(run.folder.predictions, to_lines(predictions))
    write_report(run.folder, shown_examples(examples, predictions))
    return record


def answer(run: Run, loaded: Any, examples: Sequence[Example]) -> list[Prediction]:
    """Predictions of a model under the run's own settings."""
    from treetune.predict.answers import predict_answers

    return predict_answers(
        loaded, run.task, examples, max_length=run.max_length, max_new_tokens=run.max_new_tokens, layout=run.layout,
        answers_from=run.answers_from, no_repeat_ngram_size=run.no_repeat_ngram_size,
    )


def training_answers(run: Run) -> list[Example]:
    """One stand-in example a label and training row, for the majority baseline; [] for other tasks."""
    if run.task.OUTPUT != OutputKind.LABEL:
        return []
    balance = read_json(run.folder.data)["label_counts"]  # by standard name, however the file spells them
    label = max(balance, key=lambda name: balance[name])
    return [Example(0, "0", "train", (), "", (label,), {}, "", "")]


def shown_examples(
    examples: Sequence[Example], predictions: Sequence[Prediction], count: int = 5
) -> list[dict[str, Any]]:
    """Some right and some wrong answers, the surest ones first, for the report."""
    pairs: list[dict[str, Any]] = [
        {"input": example.row_text[-600:], "reference": example.answers[0] if example.answers else "",
         "answer": prediction.answer, "correct": prediction.answer in example.answers,
         "probability": prediction.scores["probability"]}
        for example, prediction in zip(examples, predictions, strict=True)
    ]
    pairs.sort(key=lambda pair: -pair["probability"])
    right = [pair for pair in pairs if pair["correct"]][:count]
    wrong = [pair for pair in pairs if not pair["correct"]][:count]
    return right + wrong
