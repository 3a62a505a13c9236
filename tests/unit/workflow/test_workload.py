"""Passes and tokens counted without torch are those that training makes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from treetune.core.errors import ModelError
from treetune.core.records import Example
from treetune.core.settings import TuneSettings
from treetune.data.sample import sample_path
from treetune.models.family import load_head
from treetune.plan.workload import Pass
from treetune.tasks.contract import load_task
from treetune.workflow.gather import Gathered, read_for, to_examples
from treetune.workflow.workload import SPAN_LENGTH, PlainTokenizer, count_workload, layout_of, rows_of

TASK_OF = {"causal": "sentiment", "classes": "sentiment", "spans": "question_answering", "seq2seq": "translation"}
KIND_OF = {"causal": "marian", "classes": "roberta", "spans": "bert", "seq2seq": "t5"}


def examples_of(head: str) -> Sequence[Example]:
    task = load_task(TASK_OF[head])
    result = read_for(task, str(sample_path(task.NAME, "train")), "train", {})
    options = task.options_from_rows(result.rows, "en")
    gathered: Gathered = to_examples(task, result, options, None, 1.0)
    return gathered.examples[:40]


def settings_for(head: str, **changes: Any) -> TuneSettings:
    return TuneSettings.model_validate({"task": TASK_OF[head], "data": "x", "output_dir": "x",
                                        "per_device_train_batch_size": 7, "max_tokens_per_pass": 400, **changes})


@pytest.mark.parametrize("head", list(TASK_OF))
def test_rows_and_passes_are_those_of_the_real_head(
    head: str, family_folder: Callable[..., Path]
) -> None:
    from treetune.models.load import load_tokenizer

    folder = family_folder(KIND_OF[head], 512)
    examples = examples_of(head)
    tokenizer, _ = load_tokenizer(str(folder))
    real = load_head(head).encode(examples, tokenizer, 200)
    plain = rows_of(examples, PlainTokenizer(folder), head, 200)
    assert [row.num_tokens for row in plain] == [row.num_tokens for row in real]
    layouts = {"causal": ("tree", "packed", "padded"), "seq2seq": ("padded",)}.get(head, ("packed", "padded"))
    for layout in layouts:
        settings = settings_for(head)
        made = list(load_head(head).batches_of(real, layout, rows_per_pass=7, max_tokens=400))
        counted: list[Pass] = list(layout_of(head, settings, layout)(plain))
        assert [one.tokens + one.source_tokens for one in counted] == [batch.num_tokens for batch in made]


def test_a_whole_epoch_is_counted_exactly(family_folder: Callable[..., Path]) -> None:
    examples = examples_of("causal")
    rows = rows_of(examples, PlainTokenizer(family_folder("marian", 512)), "causal", 200)
    settings = settings_for("causal", num_train_epochs=2)
    work = count_workload(rows, rows[:10], settings, "causal")
    assert (work.rows, work.shown, work.steps) == (40, 80, 12)
    assert work.row_tokens == 2 * sum(row.num_tokens for row in rows)
    assert work.labels <= 2 * sum(len(row.completion_ids) for row in rows)  # rows that end alike share a label's token
    assert work.tokens < work.row_tokens  # the instruction is shared
    assert work.shared == work.row_tokens - work.tokens
    assert (work.evaluations, work.evaluation_rows) == (2, 10)
    padded = count_workload(rows, rows[:10], settings, "causal", layout="padded")
    assert padded.tokens > work.tokens


def test_a_sample_stands_for_the_whole_file(family_folder: Callable[..., Path]) -> None:
    rows = rows_of(examples_of("causal"), PlainTokenizer(family_folder("marian", 512)), "causal", 200)
    settings = settings_for("causal", num_train_epochs=1)
    whole, part = (count_workload(rows, [], settings, "causal", num_rows=count) for count in (0, 400))
    assert part.rows == 400
    assert part.row_tokens == pytest.approx(10 * whole.row_tokens, rel=0.01)


def test_a_text_that_spells_a_special_token_stays_text(family_folder: Callable[..., Path]) -> None:
    tokenizer = PlainTokenizer(family_folder("t5"))
    plain = tokenizer(["</s>"], add_special_tokens=False, split_special_tokens=True)["input_ids"][0]
    assert tokenizer.eos_token_id not in plain
    assert tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id


def test_a_folder_without_a_fast_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="E3007"):
        PlainTokenizer(tmp_path)


def test_the_length_of_span_rows_is_the_heads_own() -> None:
    from treetune.models import spans

    assert spans.MAX_LENGTH == SPAN_LENGTH


def test_an_instruction_is_counted_once_a_pass(family_folder: Callable[..., Path]) -> None:
    tokenizer, settings = PlainTokenizer(family_folder("marian", 512)), settings_for("causal", num_train_epochs=1)
    plain = examples_of("causal")
    told = [replace(each, instruction="Judge the review in a word. " * 10) for each in plain]
    without, told_rows = (rows_of(each, tokenizer, "causal", 500) for each in (plain, told))
    length = told_rows[0].num_instruction
    before, now = (count_workload(rows, [], settings, "causal") for rows in (without, told_rows))
    assert now.passes == before.passes
    assert now.tokens - before.tokens == length * now.passes
    assert now.row_tokens - before.row_tokens == length * len(plain)
