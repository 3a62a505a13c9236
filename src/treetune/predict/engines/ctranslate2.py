"""CTranslate2 on a processor: a decoder that `treetune export --to ctranslate2` wrote, float32 or 8-bit weights.

It reads rows one by one, sorted by length; prefixes are not shared.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from treetune.core.errors import ModelError, UsageError
from treetune.core.files import file_digest, read_json, value_digest
from treetune.core.records import Example, OutputKind, Prediction
from treetune.models.tokens import tokenize, tokenize_candidates
from treetune.predict.engines.contract import Decoding, refuse_settings
from treetune.predict.engines.written import label_prediction, text_prediction
from treetune.tasks.contract import Task, is_extractive

RECORD = "export.json"
ROWS_PER_PASS = 32


class CTranslate2Engine:
    """Answers by CTranslate2's own batches.

    Args:
        folder: the export. model: digest of the run's model folder, which the export must be of. tokenizer: the run's.

    Raises:
        UsageError: E2801 the package is missing, E3101 the run writes under conditions. ModelError: E3102 no such
            export, E3103 of another run, E3104 a file was changed.
    """

    def __init__(self, folder: Path, model: str, tokenizer: Any, task: Task, decoding: Decoding) -> None:
        record = checked_export(folder, model)
        refuse_settings("ctranslate2", decoding, is_extractive(task))
        try:
            import ctranslate2
        except ImportError as error:
            raise UsageError("E2801", "this form needs packages that are not installed", where="--engine ctranslate2",
                             found="no ctranslate2", do="pip install 'treetune[export]'") from error
        self.identity = f"ctranslate2 {record['precision']} {value_digest(record['files'])[:16]}"
        self.tokenizer, self.task, self.decoding = tokenizer, task, decoding
        self.window = min(decoding.max_length, int(record["max_length"]))
        self.generator: Any = ctranslate2.Generator(str(folder), device="cpu", compute_type=record["precision"],
                                                    intra_threads=torch.get_num_threads())

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """One prediction an example, in the order given; rows longer than the export's window are cut and counted."""
        if not examples:
            return []
        return self._labels(examples) if self.task.OUTPUT is OutputKind.LABEL else self._texts(examples)

    def _labels(self, examples: Sequence[Example]) -> list[Prediction]:
        began = time.perf_counter()
        rows = tokenize_candidates(examples, self.tokenizer, self.window)
        words = [self._words([*row.prompt_ids, *row.completion_ids]) for row in rows]
        found = self.generator.score_batch(words, max_batch_size=ROWS_PER_PASS, max_input_length=0)
        logs = [list(each.log_probs)[-len(row.completion_ids) :] for row, each in zip(rows, found, strict=True)]
        seconds = (time.perf_counter() - began) / len(examples)
        predictions, place = [], 0
        for example in examples:
            own = slice(place, place := place + len(example.candidates))
            predictions.append(label_prediction(example, logs[own], num_cut=rows[own.start].num_cut, seconds=seconds))
        return predictions

    def _texts(self, examples: Sequence[Example]) -> list[Prediction]:
        longest = self.decoding.max_new_tokens
        rows = tokenize(examples, self.tokenizer, self.window - longest, with_completion=False)
        order = sorted(range(len(rows)), key=lambda place: rows[place].num_tokens)
        result: dict[int, Prediction] = {}
        for start in range(0, len(order), ROWS_PER_PASS):
            places = order[start : start + ROWS_PER_PASS]
            began = time.perf_counter()
            answers = self._generate([self._words(rows[place].prompt_ids) for place in places], longest)
            seconds = (time.perf_counter() - began) / len(places)
            for place, (ids, logs) in zip(places, answers, strict=True):
                finished = bool(ids) and ids[-1] == self.tokenizer.eos_token_id
                text = self.tokenizer.decode(ids[:-1] if finished else ids, skip_special_tokens=False)
                result[place] = text_prediction(self.task, examples[place], text, logs, finished=finished,
                                                num_cut=rows[place].num_cut, seconds=seconds)
        return [result[place] for place in range(len(examples))]

    def _generate(self, prompts: Sequence[Sequence[str]], longest: int) -> list[tuple[list[int], list[float]]]:
        """Ids of each answer, end-of-text included where it came, and their natural-log probabilities."""
        answers: list[tuple[list[int], list[float]]] = [([], []) for _ in prompts]

        def take(step: Any) -> bool:
            ids, logs = answers[step.batch_id]
            ids.append(int(step.token_id))
            logs.append(float(step.log_prob))
            return False

        self.generator.generate_batch(
            prompts, max_length=longest, include_prompt_in_result=False, return_end_token=True, return_scores=True,
            end_token=[int(self.tokenizer.eos_token_id)], callback=take,
        )
        return answers

    def _words(self, ids: Iterable[int]) -> list[str]:
        return list(self.tokenizer.convert_ids_to_tokens([int(each) for each in ids]))


def checked_export(folder: Path, model: str) -> dict[str, Any]:
    """The record of an export that is of this model and as it was written.

    Raises:
        ModelError: E3102, E3103, E3104.
    """
    record = dict(read_json(folder / RECORD)) if (folder / RECORD).is_file() else {}
    if record.get("form") != "ctranslate2":
        raise ModelError("E3102", "there is no CTranslate2 export in this folder", where=str(folder),
                         found=str(record.get("form", f"no {RECORD}")), allowed="a folder that treetune export wrote",
                         do="make one: treetune export RUN --to ctranslate2 --precision int8 --output FOLDER")
    if record["run_model"] != model:
        raise ModelError("E3103", "this export was made from another run's model", where=str(folder),
                         found=record["run_model"][:16], allowed=model[:16],
                         do="export this run, or name the run it was made from")
    for name, facts in record["files"].items():
        path = folder / name
        if not path.is_file() or file_digest(path) != facts["sha256"]:
            raise ModelError("E3104", "a file of the export is not what was written and proved", where=str(path),
                             found="changed" if path.is_file() else "missing", do="export the run again")
    return record
