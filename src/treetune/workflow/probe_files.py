"""Files of pairs of sentences, or of questions with three answers, that somebody else wrote."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from treetune.audit.pairs import QUESTIONS, form_of, measure_pairs, pairs_of
from treetune.audit.questions import chosen_answers, measure_questions, questions_of
from treetune.core.records import FloatArray, Row
from treetune.data.read import read_rows
from treetune.workflow.evaluate import answer
from treetune.workflow.gate import with_decisions
from treetune.workflow.log import OnEvent
from treetune.workflow.probe import PairsFile, Probed, accepted_by
from treetune.workflow.run import Run


def read_pairs(path: str) -> PairsFile:
    """A file of pairs of sentences, or of questions with three answers, under its own name.

    Raises:
        DataError: E2711 when it is neither; those of reading.
    """
    rows = read_rows(path, split="test", aliases={}, columns={}).rows
    return PairsFile(path.replace("\\", "/").rsplit("/", 1)[-1].split(".")[0] or path, form_of(rows, path), rows)


def probe_file(run: Run, file: PairsFile, found: Probed, on_event: OnEvent) -> None:
    """Ask what a file holds."""
    if file.form == QUESTIONS:
        probe_questions(run, file, found, on_event)
        return
    if run.loaded.head != "causal":
        found.note("no_likelihood", file=file.name, head=run.loaded.head)
        return
    pairs, skipped = pairs_of(file.form, file.rows)
    on_event({"event": "predicting", "system": file.form, "rows": 2 * len(pairs)})
    logs, fits = log_likelihoods(run, [text for pair in pairs for text in (pair.more, pair.less)])
    both = [place for place in range(len(pairs)) if fits[2 * place] and fits[2 * place + 1]]
    found.note("pairs", file=file.name, form=file.form, pairs=len(both), skipped=skipped + len(pairs) - len(both))
    if both:
        more, less = logs[0::2][both], logs[1::2][both]
        measured, small = measure_pairs(file.name, [pairs[place] for place in both], more, less)
        found.measured += measured
        found.notes += [{"code": "few_pairs", "kind": kind, "pairs": count} for kind, count in small]


def log_likelihoods(run: Run, texts: Sequence[str]) -> tuple[FloatArray, list[bool]]:
    """Natural-log likelihood of each whole text by the run's language model, and whether it fits into the window.

    A model without a start token reads its end-of-text before the first word.
    """
    from treetune.core.records import TokenizedExample
    from treetune.models.tokens import encode_texts, start_ids
    from treetune.predict.likelihood import completion_log_probs

    tokenizer = run.loaded.tokenizer
    start = start_ids(tokenizer) or [int(tokenizer.eos_token_id)]
    known = encode_texts(tokenizer, texts)
    tokenized = [TokenizedExample(number, 0, np.array(start, dtype=np.int64), np.array(known[text], dtype=np.int64), 0)
                 for number, text in enumerate(texts)]
    fits = [len(each.completion_ids) > 0 and each.num_tokens <= run.loaded.window for each in tokenized]
    values = completion_log_probs(run.loaded, [each for each, fit in zip(tokenized, fits, strict=True) if fit],
                                  run.layout)
    total = np.full(len(texts), np.nan)
    total[np.flatnonzero(fits)] = [sum(each) for each in values]
    return total, fits


def probe_questions(run: Run, file: PairsFile, found: Probed, on_event: OnEvent) -> None:
    """Questions answered as a user's questions are; what the gate holds back is an abstention."""
    if run.task.NAME != "question_answering":
        found.note("no_questions", file=file.name, task=run.task.NAME)
        return
    questions, skipped = questions_of(file.rows)
    on_event({"event": "predicting", "system": "questions", "rows": len(questions)})
    examples = [
        run.task.example_from_row(
            Row({"context": each.context, "question": each.question}, file.name, number + 1, number, "test"),
            run.options, with_answer=False)
        for number, each in enumerate(questions)
    ]
    predictions = with_decisions(run, answer(run, run.loaded, examples), examples)
    accepted = accepted_by(run, predictions)
    said = [each.answer if accepted is None or accepted[place] else "" for place, each in enumerate(predictions)]
    chosen = chosen_answers(questions, said)
    held_back = 0 if accepted is None else int((~accepted).sum())
    found.note("questions", file=file.name, questions=len(questions), skipped=skipped,
               unmatched=sum(each is None for each in chosen), held_back=held_back)
    if questions:
        found.measured += measure_questions(file.name, questions, chosen)
