"""Explanations of a run: one answer, whether explanations are true on a set of rows, suspects, contamination."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from treetune.core.errors import DataError, RunError, TreetuneError, UsageError
from treetune.core.files import read_json, write_json, write_text
from treetune.core.records import Example, OutputKind, Prediction, Row
from treetune.core.settings import TuneSettings, read_settings
from treetune.tasks.contract import Task
from treetune.workflow.evaluate import answer
from treetune.workflow.gather import gather_training, read_for, to_examples
from treetune.workflow.log import OnEvent
from treetune.workflow.run import Run, open_run

METHODS = ("integrated_gradients", "gradient_x_input", "occlusion", "shapley")
QUICK_METHODS = METHODS[:3]
DEFAULT_METHOD = METHODS[0]
ROWS_EXPLAINED = 4  # in the report
MOST_TOKENS = 24  # of a written answer that are explained one by one
MOST_ROWS = 500  # training rows whose gradient is compared with an answer's: the nearest ones
BEHIND = 5


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an explanation is to hold.

    Attributes:
        method: see `treetune.explain.attribution.METHODS`. against: a label; "": the runner-up. token: of a written
            answer, one alone. with_instruction: the prompt's own words are explained, too. inside: attention and
            layers. training_rows: rows behind the answer and coverage, from the run's training file.
    """

    method: str = DEFAULT_METHOD
    against: str = ""
    token: int | None = None
    with_instruction: bool = False
    inside: bool = True
    training_rows: bool = False
    seed: int = 0


def explain_text(run_path: str, text: str, fields: Mapping[str, str], wanted: Wanted) -> dict[str, Any]:
    """Answer one text and explain the answer; other columns of the task come from ``fields``."""
    run = open_run(run_path)
    values = {run.task.COLUMNS[0].name: text, **fields}
    row = Row(values, "--text", 1, 0, "test")
    return explain_examples(run, [run.task.example_from_row(row, run.options, with_answer=False)], wanted)[0]


def explain_row(
    run_path: str, data: str, row_id: str, wanted: Wanted, columns: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Answer one row of a file and explain the answer. ``row_id``: its id, or its 0-based number.

    Raises:
        DataError: E1601 there is no such row.
    """
    run = open_run(run_path)
    found = read_for(run.task, data, "test", columns or {}, with_answer=False)
    row = next((row for row in found.rows if row_id in (row.id, str(row.number))), None)
    if row is None:
        raise DataError("E1601", "there is no row {row!r} in the file", row=row_id, where=data,
                        found=f"{len(found.rows)} rows", allowed="an id, or a number from 0", do="check the row's id")
    return explain_examples(run, [run.task.example_from_row(row, run.options, with_answer=False)], wanted)[0]


def explain_examples(run: Run, examples: Sequence[Example], wanted: Wanted) -> list[dict[str, Any]]:
    """Explanations as plain records, as `treetune.report.explanation` shows them."""
    predictions = answer(run, run.loaded, examples)
    found = [_explained(run, example, prediction, wanted)
             for example, prediction in zip(examples, predictions, strict=True)]
    if wanted.training_rows:
        for record, behind in zip(found, _behind(run, examples, predictions), strict=True):
            record |= behind
    path = explanations_path(run)
    measured = read_json(path).get("faithfulness", {}) if path.exists() else {}
    return [{**record, "faithfulness": measured} for record in found]


def explanations_path(run: Run) -> Path:
    """Where a run keeps what was found out about its explanations."""
    return run.folder.root / "explain.json"


def _explained(run: Run, example: Example, prediction: Prediction, wanted: Wanted) -> dict[str, Any]:
    from treetune.explain.attribution import attribute
    from treetune.explain.choose import subject_of
    from treetune.explain.inside import attention, logit_lens, reliance

    subject = subject_of(run.loaded, run.task, example, prediction, max_length=run.max_length, layout=run.layout,
                         against=wanted.against, token=wanted.token)
    found = attribute(subject, wanted.method, seed=wanted.seed, with_instruction=wanted.with_instruction)
    looked_at = set(found.places.tolist())
    named = subject.answered
    record: dict[str, Any] = {
        "id": example.row_id, "task": run.task.NAME, "answer": named.answer, "rival": named.rival,
        "method": found.method, "score": _rounded(found.score), "without": _rounded(found.without),
        "gap": None if found.gap is None else _rounded(found.gap), "note": found.note, "removal": subject.removal,
        "seconds": round(found.seconds, 3), "evaluations": found.evaluations,
        "words": [{"text": word.text, "part": word.part, "start": word.start, "end": word.end,
                   "value": _rounded(found.values[place]) if place in looked_at else None}
                  for place, word in enumerate(subject.words)],
    }
    source = reliance(subject)
    record["reliance"] = {"with_source": _rounded(source.with_source), "without": _rounded(source.without),
                          "pieces": [_rounded(each) for each in source.pieces]}
    if named.tokens and wanted.token is None:
        record |= _by_token(run, example, prediction, len(named.tokens))
    if wanted.inside:
        lens = logit_lens(run.loaded, subject)
        if lens is not None:
            record["lens"] = {"answer": lens.answer, "rival": lens.rival, "layers": [
                {"answer": _rounded(own), "rival": _rounded(other), "best": best, "best_probability": _rounded(chance)}
                for own, other, best, chance in lens.layers]}
        seen = _attention_or_none(attention, run, subject)
        if seen is not None:
            record["attention"] = {
                "words": [word.text for word in seen.words], "rollout": _list(seen.rollout),
                "layers": [_list(layer) for layer in seen.layers],
                "heads": [[_list(head) for head in layer] for layer in seen.heads]}
    return record


def _attention_or_none(attention: Any, run: Run, subject: Any) -> Any:
    try:
        return attention(run.loaded, subject)
    except UsageError as error:
        if error.code != "E2610":
            raise
        return None  # a model that does not show its weights: the page leaves the section out


def _by_token(run: Run, example: Example, prediction: Prediction, count: int) -> dict[str, Any]:
    """What each of the first tokens of a written answer comes from, by gradient × input."""
    from treetune.explain.attribution import attribute
    from treetune.explain.choose import subject_of

    tokens = []
    names: list[str] = []
    for token in range(min(count, MOST_TOKENS)):
        subject = subject_of(run.loaded, run.task, example, prediction, max_length=run.max_length, layout=run.layout,
                             token=token)
        found = attribute(subject, "gradient_x_input")
        names = [subject.words[place].text for place in found.places]
        tokens.append({"text": subject.answered.answer, "rival": subject.answered.rival,
                       "values": _list(found.values[found.places])})
    return {"tokens": tokens, "varied_words": names, "tokens_left_out": count - len(tokens)}


def _behind(run: Run, examples: Sequence[Example], predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    """Training rows behind each answer, and whether the training rows cover the input."""
    from treetune.explain.coverage import SpanIndex, density_ranks
    from treetune.explain.suspects import nearest, supporting
    from treetune.explain.traces import representations, traces

    training = list(training_of(run)[0])
    answered = [_with_answer(each, run.task, own) for each, own in zip(examples, predictions, strict=True)]
    states, asked = (representations(run.loaded, part, run.max_length) for part in (training, answered))
    places, likeness = nearest(states, asked, BEHIND)
    near = np.unique(nearest(states, asked, min(MOST_ROWS, len(training)))[0]).tolist()
    behind, along = supporting(traces(run.loaded, [training[each] for each in near], run.max_length),
                               traces(run.loaded, answered, run.max_length), BEHIND)
    inputs = SpanIndex([f"{each.question} {each.source}" for each in training])
    outputs = SpanIndex([each.answers[0] if each.answers else "" for each in training])
    density = density_ranks(states, asked)
    found = []
    for number, (example, prediction) in enumerate(zip(examples, predictions, strict=True)):
        shared = inputs.shared(f"{example.question} {example.source}")
        copied = None if run.task.OUTPUT == OutputKind.LABEL else _rounded(outputs.copied_share(prediction.answer))
        found.append({
            "training_rows": {
                "nearest": [_row(training[place], value) for place, value in
                            zip(places[number], likeness[number], strict=True)],
                "gradient": [_row(training[near[place]], value) for place, value in
                             zip(behind[number], along[number], strict=True)]},
            "coverage": {"density": _rounded(density[number]), "copied": copied, **asdict(shared)},
        })
    return found


def _with_answer(example: Example, task: Task, prediction: Prediction) -> Example:
    """The example as if its answer were the reference: for the gradient of what the model said."""
    if task.OUTPUT == OutputKind.LABEL:
        return replace(example, completion=example.candidates[prediction.answer], answers=(prediction.answer,))
    start, end = (int(prediction.scores.get(name, -1)) for name in ("start", "end"))
    spans = ((start, end),) if start >= 0 else ()
    return replace(example, completion=prediction.text or " ", answers=(prediction.answer,), spans=spans)


def _row(example: Example, likeness: float) -> dict[str, Any]:
    return {"id": example.row_id, "likeness": _rounded(likeness), "answer": example.answers[0],
            "text": example.source[:300]}


def training_of(run: Run) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """The training and the validation examples, read again from the files of ``config.yaml``.

    Raises:
        RunError: E5501 they are gone or changed.
    """
    found = "the training file is another one now"
    try:
        training, validation, _ = gather_training(read_settings(TuneSettings, run.folder.config, {}), run.task, None)
        if training.digest == read_json(run.folder.data)["fingerprint"]["data"]:
            return training.examples, validation.examples
    except TreetuneError as error:
        found = error.code
    raise RunError("E5501", "it is not known which rows this run was trained on", where=str(run.folder.data),
                   found=found, do="put its training file back where config.yaml says, or tune again")


def measure_explanations(
    run_path: str, data: str, on_event: OnEvent, *, rows: int = 50, methods: Sequence[str] = QUICK_METHODS,
    columns: Mapping[str, str] | None = None, seed: int = 0,
) -> dict[str, Any]:
    """Whether explanations are true on rows of a file; writes ``explain.json`` and the report.

    Returns:
        What stands in ``explain.json``: ``faithfulness`` and some explained ``rows``.
    """
    from treetune.explain.choose import subject_of
    from treetune.explain.faithfulness import map_correlation, measure_faithfulness, word_counts
    from treetune.workflow.report import write_report

    run = open_run(run_path)
    found = read_for(run.task, data, "validation", columns or {}, with_answer=False)
    step = max(1, len(found.rows) // rows)
    gathered = to_examples(run.task, replace(found, rows=found.rows[::step][:rows]), run.options, None, 1.0,
                           with_answer=False)
    examples = list(gathered.examples)
    predictions = answer(run, run.loaded, examples)
    subjects = [subject_of(run.loaded, run.task, example, prediction, max_length=run.max_length, layout=run.layout)
                for example, prediction in zip(examples, predictions, strict=True)]
    measured = measure_faithfulness(
        subjects, methods, word_counts(each.source for each in examples), seed=seed,
        cluster=[each.source for each in examples],
        on_row=lambda number: on_event({"event": "explained", "row": number + 1, "of": len(subjects)}))
    record = measured.as_dict()
    for name in methods:
        record["methods"][name]["map_correlation"] = _rounded(map_correlation(subjects[:8], name, seed))
    best = min(methods, key=lambda name: record["methods"][name]["deletion"]["value"])
    shown = explain_examples(run, examples[:ROWS_EXPLAINED], Wanted(method=best, inside=False))
    kept = {"data": data, "seed": seed, "best": best, "faithfulness": record,
            "rows": [{key: value for key, value in one.items() if key != "faithfulness"} for one in shown]}
    write_json(explanations_path(run), kept)
    write_report(run.folder)
    return kept


def find_suspects(run_path: str, on_event: OnEvent, *, method: str = "", count: int = 50) -> list[dict[str, Any]]:
    """Training rows that may carry a wrong label, the worst first; written to ``suspects.jsonl``.

    Raises:
        UsageError: E2611 unknown ranking, or one that needs labels. RunError: E5501.
    """
    from treetune.explain.suspects import (
        BEST,
        BEST_OF_TEXTS,
        NEED_LABELS,
        NEED_STATES,
        NEED_TRACES,
        RANKINGS,
        Rows,
        suspects,
    )
    from treetune.explain.traces import representations, traces

    run = open_run(run_path)
    labelled = run.task.OUTPUT == OutputKind.LABEL
    method = method or (BEST if labelled else BEST_OF_TEXTS)
    allowed = [name for name in RANKINGS if labelled or name not in NEED_LABELS]
    if method not in allowed:
        raise UsageError("E2611", "suspects cannot be ranked in this way", found=method, allowed=", ".join(allowed),
                         do="choose one of them")
    training = training_of(run)[0]
    on_event({"event": "predicting", "system": "tuned", "rows": len(training)})
    left = traces(run.loaded, training, run.max_length) if method in NEED_TRACES else None
    states = (representations(run.loaded, training, run.max_length) if method in NEED_STATES
              else np.zeros((len(training), 1), np.float32))
    rows = Rows([each.answers[0] for each in training], states, left, texts=[each.source for each in training])
    found = [{"rank": rank + 1, "id": training[place].row_id, "row": training[place].row, "score": _rounded(score),
              "label": training[place].answers[0], "text": training[place].source, "method": method}
             for rank, (place, score) in enumerate(suspects(rows, method, count))]
    write_text(run.folder.root / "suspects.jsonl",
               "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in found))
    return found


def find_contamination(
    run_path: str, data: str, *, columns: Mapping[str, str] | None = None, least: float = 0.5
) -> dict[str, Any]:
    """Rows of a file that share long spans with training rows.

    Args:
        least: share of a row's words in shared spans from which on it counts.
    """
    from treetune.explain.coverage import SPAN, SpanIndex

    run = open_run(run_path)
    found = to_examples(run.task, read_for(run.task, data, "test", columns or {}, with_answer=False), run.options, None,
                        1.0, with_answer=False).examples
    index = SpanIndex([f"{each.question} {each.source}" for each in training_of(run)[0]])
    shares = [(each, index.copied_share(f"{each.question} {each.source}")) for each in found]
    hit = sorted(((each, share) for each, share in shares if share >= least), key=lambda pair: -pair[1])
    return {"data": data, "rows": len(found), "span": SPAN, "least": least, "contaminated": len(hit),
            "found": [{"id": each.row_id, "share": _rounded(share),
                       "longest": index.shared(f"{each.question} {each.source}").longest} for each, share in hit]}


def _rounded(value: Any) -> float | None:
    number = float(value)
    return round(number, 6) if np.isfinite(number) else None


def _list(values: Any) -> list[float | None]:
    return [_rounded(each) for each in values]
