"""Which rows a run was trained on, by what they ask: a row the model has seen cannot vouch for it."""

from __future__ import annotations

from collections.abc import Sequence

from treetune.core.errors import RunError, TreetuneError
from treetune.core.files import RunFolder, read_json, value_digest
from treetune.core.records import Example
from treetune.core.settings import TuneSettings, read_settings
from treetune.data.split import same_text
from treetune.tasks.contract import Task
from treetune.workflow.gather import gather_training

DIGITS = 16  # 64 bits: two of a million different rows meet with chance 3e-8


def content_digest(example: Example) -> str:
    """Of what is asked, not of the answer; case, white space and width of characters do not matter."""
    return value_digest([same_text(example.source), same_text(example.question)])[:DIGITS]


def content_digests(examples: Sequence[Example]) -> list[str]:
    """Those that occur, sorted."""
    return sorted({content_digest(each) for each in examples})


def seen_by(folder: RunFolder, task: Task) -> frozenset[str]:
    """Digests of the run's training rows, and of its validation rows, which chose its checkpoint.

    Runs of before these were kept read their files again, if those are unchanged.

    Raises:
        RunError: E5501 when neither works.
    """
    record = read_json(folder.data)
    if "content_digests" in record:
        return frozenset(record["content_digests"])
    return frozenset(_read_again(folder, task, record["fingerprint"]["data"]))


def _read_again(folder: RunFolder, task: Task, digest: str) -> list[str]:
    try:
        training, validation, _ = gather_training(read_settings(TuneSettings, folder.config, {}), task, None)
    except TreetuneError as error:
        raise _unknown(folder, error.code) from error
    if training.digest != digest:
        raise _unknown(folder, "the training file is another one now")
    return content_digests([*training.examples, *validation.examples])


def _unknown(folder: RunFolder, found: str) -> RunError:
    return RunError("E5501", "it is not known which rows this run was trained on", where=str(folder.data), found=found,
                    do="put its training file back where config.yaml says, or tune again")
