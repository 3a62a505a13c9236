"""Sentences that differ in a person: our own, the user's rows with words exchanged, and those into German."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from treetune.audit.cases import ANSWERABLE, LANGUAGES, Case, cases_of
from treetune.audit.flips import measure_flips
from treetune.audit.gendered import gendered_sentences, measure_gendered
from treetune.audit.measured import MIN_ROWS
from treetune.audit.swaps import COLUMNS, Swap, Swapped, measure_swaps, swapped_rows, swaps_of
from treetune.core.errors import DataError
from treetune.core.records import Example, FloatArray, OutputKind, Prediction, Row
from treetune.evaluate.score import passages_of, statistics_of
from treetune.workflow.evaluate import answer
from treetune.workflow.log import OnEvent
from treetune.workflow.probe import Probed
from treetune.workflow.run import Run

LANGUAGE_SHARE = 0.05  # a language with fewer rows gets no cases of its own
HALF_RIGHT = 0.5  # a span answer with at least this F1 counts as the same answer
VALUE_NAMES = {"sentiment": "tone", "question_answering": "f1", "translation": "kept"}


def probe_cases(
    run: Run, rows: Sequence[Row], examples: Sequence[Example], found: Probed, on_event: OnEvent
) -> None:
    """Our own sentences, in the languages of the user's rows."""
    task = run.task.NAME
    if task not in ANSWERABLE:
        found.note("no_templates", task=task)
        return
    cases = [case for source, target in languages_in(task, rows, examples) for case in cases_of(task, source, target)]
    if not cases:
        found.note("no_language", known=", ".join(LANGUAGES))
        return
    on_event({"event": "predicting", "system": "templates", "rows": len(cases)})
    asked = [_case_example(run, case, number) for number, case in enumerate(cases)]
    predictions = answer(run, run.loaded, asked)
    values, keys = case_values(task, cases, asked, predictions)
    found.measured += measure_flips(cases, values, keys, VALUE_NAMES[task])
    if task == "translation" and any(case.values["target_lang"] == "de" for case in cases):
        probe_gendered(run, found, on_event)


def languages_in(task: str, rows: Sequence[Row], examples: Sequence[Example]) -> list[tuple[str, str]]:
    """(language, target language) of the rows that have templates, the most frequent first."""
    if task == "translation":
        pairs = Counter((_main(row.values.get("source_lang")), _main(row.values.get("target_lang"))) for row in rows)
    else:
        pairs = Counter((_main(example.language), "") for example in examples)
    least = LANGUAGE_SHARE * sum(pairs.values())
    return [pair for pair, count in pairs.most_common() if pair[0] in LANGUAGES and count >= least]


def _main(code: Any) -> str:
    return str(code or "").lower().replace("_", "-").split("-")[0]


def _case_example(run: Run, case: Case, number: int) -> Example:
    known = bool(case.expected) and run.task.NAME == "question_answering"
    values = {**case.values, **({"answers": [case.expected]} if known else {})}
    return run.task.example_from_row(Row(values, "templates", number + 1, number, "test"), run.options,
                                     with_answer=known)


def case_values(
    task: str, cases: Sequence[Case], examples: Sequence[Example], predictions: Sequence[Prediction]
) -> tuple[FloatArray, list[str]]:
    """The number of each case that should not depend on the person, and what must not change with it."""
    answers = [each.answer for each in predictions]
    if task == "sentiment":
        return tones(predictions), answers
    if task == "question_answering":
        scores = _f1(answers, examples)
        return scores, [str(score >= HALF_RIGHT) for score in scores]
    kept = [case.expected.casefold() in text.casefold() for case, text in zip(cases, answers, strict=True)]
    rest = [text.casefold().replace(case.expected.casefold(), "_") for case, text in zip(cases, answers, strict=True)]
    return np.array(kept, dtype=np.float64), rest


def tones(predictions: Sequence[Prediction]) -> FloatArray:
    """(N,) probability of positive minus that of negative, -1 to 1."""
    return np.array([each.scores.get("probability:positive", 0.0) - each.scores.get("probability:negative", 0.0)
                     for each in predictions])


def _f1(answers: Sequence[str], examples: Sequence[Example]) -> FloatArray:
    statistics = statistics_of("f1", answers, examples)
    return np.asarray(statistics.score(statistics.rows))


def probe_swaps(
    run: Run, rows: Sequence[Row], examples: Sequence[Example], predictions: Sequence[Prediction], found: Probed,
    on_event: OnEvent,
) -> None:
    """The user's own rows with the words of two groups exchanged."""
    task = run.task.NAME
    if task not in COLUMNS:
        found.note("no_swaps", task=task)
        return
    for language in LANGUAGES:
        for swap in swaps_of(language):
            own = [each for each in swapped_rows(task, rows, swap) if examples[each.place].language == language]
            usable = [(each, example) for each in own if (example := _example_or_none(run, each)) is not None]
            if own:
                found.note("swapped" if len(usable) >= MIN_ROWS else "few_swaps", rows=len(usable), language=language,
                           left_out=len(own) - len(usable), attribute=swap.name, group=swap.groups[0],
                           against=swap.groups[1])
            if len(usable) < MIN_ROWS:
                continue
            on_event({"event": "predicting", "system": "swapped rows", "rows": len(usable)})
            _measure_swap(run, swap, usable, examples, predictions, found)


def _example_or_none(run: Run, swapped: Swapped) -> Example | None:
    try:
        return run.task.example_from_row(swapped.row, run.options)
    except DataError:  # the answer was exchanged otherwise than in its context
        return None


def _measure_swap(
    run: Run, swap: Swap, usable: Sequence[tuple[Swapped, Example]], examples: Sequence[Example],
    predictions: Sequence[Prediction], found: Probed,
) -> None:
    before = [predictions[each.place] for each, _ in usable]
    after = answer(run, run.loaded, [example for _, example in usable])
    if run.task.OUTPUT == OutputKind.LABEL:
        values, changed = (tones(before), tones(after)), [a.answer != b.answer for a, b in zip(before, after,
                                                                                             strict=True)]
        cluster = None
    else:
        values = (_f1([each.answer for each in before], [examples[each.place] for each, _ in usable]),
                  _f1([each.answer for each in after], [example for _, example in usable]))
        changed = ((values[0] >= HALF_RIGHT) != (values[1] >= HALF_RIGHT)).tolist()
        cluster = passages_of([examples[each.place] for each, _ in usable])
    found.measured += measure_swaps(swap, [each.side for each, _ in usable], *values, changed,
                                    VALUE_NAMES[run.task.NAME], cluster)


def probe_gendered(run: Run, found: Probed, on_event: OnEvent) -> None:
    """English sentences that tell a gender, into German."""
    sentences = gendered_sentences()
    on_event({"event": "predicting", "system": "gendered sentences", "rows": len(sentences)})
    examples = [
        run.task.example_from_row(
            Row({"source": each.source, "source_lang": "en", "target_lang": "de"}, "templates", number + 1, number,
                "test"), run.options, with_answer=False)
        for number, each in enumerate(sentences)
    ]
    found.measured += measure_gendered(sentences, [each.answer for each in answer(run, run.loaded, examples)])
