"""Every task keeps its contract on the packaged sample and on real data where it lies near the repository."""

import gzip
import inspect
import json
import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

from treetune.core.records import Example, OutputKind, Row
from treetune.tasks.contract import Column, Task, TaskOptions, load_task, task_names

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"
SPLITS = ("train", "validation", "test")
MIN_ROWS = 120
REAL_SETS = [("sentiment", "sentiment/sst3", 1100), ("question_answering", "qa/squad_v11_dev", 1072),
             ("question_answering", "qa/cmrc2018", 304), ("translation", "translation/multi30k_en_de", 1014),
             ("summarization", "summarization/scitldr", 617)]

every_task = pytest.mark.parametrize("name", task_names())


def rows_of(lines: Iterable[str], file: str, split: str) -> list[Row]:
    return [Row(json.loads(line), file, number + 1, number, split) for number, line in enumerate(lines)]


def sample_rows(name: str) -> dict[str, list[Row]]:
    folder = resources.files("treetune.data").joinpath("sample", name)
    return {split: rows_of(folder.joinpath(f"{split}.jsonl").read_text(encoding="utf-8").splitlines(),
                           f"{split}.jsonl", split) for split in SPLITS}


def examples_of(task: Task, rows: list[Row], options: TaskOptions) -> list[Example]:
    return [task.example_from_row(row, options) for row in rows]


def check_example(task: Task, row: Row, example: Example, options: TaskOptions) -> None:
    assert (example.row, example.row_id, example.split) == (row.number, row.id, row.split)
    assert all(part.text for part in example.prompt)
    assert any(part.cuttable for part in example.prompt)
    assert example.source in [part.text for part in example.prompt]
    assert example.prompt_text.endswith((":", "："))
    assert example.completion.strip()
    assert example.answers
    read = task.answer_from_text(example.completion, example)
    assert read == " ".join(example.answers[0].split())
    left = {key: value for key, value in row.values.items() if key not in task.ANSWER_COLUMNS}
    bare_row = Row(left, row.file, row.line, row.number, row.split)
    bare = task.example_from_row(bare_row, options, with_answer=False)
    assert bare.prompt == example.prompt
    assert (bare.completion, bare.answers, bare.candidates) == ("", (), example.candidates)
    assert example.instruction == bare.instruction == options.instruction


@every_task
def test_a_task_offers_all_that_the_contract_names(name: str) -> None:
    task = load_task(name)
    assert name == task.NAME
    assert isinstance(task.OUTPUT, OutputKind)
    assert task.MAX_NEW_TOKENS > 0
    assert all(isinstance(column, Column) and column.meaning for column in task.COLUMNS)
    names = [column.name for column in task.COLUMNS]
    assert set(task.ANSWER_COLUMNS) <= set(names)
    for words in (task.ANSWER_COLUMNS, task.METRICS, task.BASELINES):
        assert isinstance(words, tuple)
        assert words
    for column in task.COLUMNS:
        assert not set(column.aliases) & set(names)
    for attribute in (*Task.__annotations__, *(n for n in vars(Task) if inspect.isfunction(vars(Task)[n]))):
        if not attribute.startswith("_"):
            assert hasattr(task, attribute), attribute


@every_task
@pytest.mark.parametrize("function", ["options_from_rows", "example_from_row", "answer_from_text"])
def test_a_task_takes_what_the_contract_says(name: str, function: str) -> None:
    given = inspect.signature(getattr(load_task(name), function))
    asked = list(inspect.signature(getattr(Task, function)).parameters.values())[1:]
    assert [(p.name, p.kind, p.default) for p in given.parameters.values()] == [
        (p.name, p.kind, p.default) for p in asked]


@every_task
def test_every_sample_row_is_accepted_and_read_back(name: str) -> None:
    task = load_task(name)
    samples = sample_rows(name)
    assert sum(map(len, samples.values())) >= MIN_ROWS
    options = task.options_from_rows(samples["train"], "auto")
    for rows in samples.values():
        assert rows
        for row, example in zip(rows, examples_of(task, rows, options), strict=True):
            check_example(task, row, example, options)


@every_task
def test_the_sample_has_both_languages_and_all_required_columns(name: str) -> None:
    task = load_task(name)
    required = {column.name for column in task.COLUMNS if column.required}
    for rows in sample_rows(name).values():
        assert all(required <= set(row.values) for row in rows)
        languages = {example.language for example in examples_of(task, rows, TaskOptions())}
        assert "zh" in languages
        assert len(languages) > 1


@every_task
def test_no_sample_text_stands_in_two_splits(name: str) -> None:
    task = load_task(name)
    texts: dict[str, set[str]] = {}
    for split, rows in sample_rows(name).items():
        examples = examples_of(task, rows, TaskOptions())
        found = [example.source for example in examples]
        if name in ("translation", "summarization"):
            found += [example.answers[0] for example in examples]
        texts[split] = {" ".join(unicodedata.normalize("NFKC", text).casefold().split()) for text in found}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not texts[one] & texts[other]


@pytest.mark.parametrize(("name", "folder", "count"), REAL_SETS)
def test_every_row_of_real_data_is_accepted_and_read_back(name: str, folder: str, count: int) -> None:
    path = REAL / folder / "validation.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"the shared data is not beside the repository: {path}")
    with gzip.open(path, "rt", encoding="utf-8") as handle:
        rows = rows_of(handle, str(path), "validation")
    assert len(rows) == count
    task = load_task(name)
    options = task.options_from_rows(rows, "auto")
    for row, example in zip(rows, examples_of(task, rows, options), strict=True):
        check_example(task, row, example, options)


@every_task
def test_every_task_hands_the_instruction_on_and_leaves_the_rest_as_it_is(name: str) -> None:
    task = load_task(name)
    rows = sample_rows(name)["train"][:20]
    plain = task.options_from_rows(rows, "auto")
    told = replace(plain, instruction="Do as the examples do.")
    for row, example, other in zip(rows, examples_of(task, rows, told), examples_of(task, rows, plain), strict=True):
        check_example(task, row, example, told)
        assert replace(example, instruction="") == other
        assert example.prompt_text == "Do as the examples do.\n" + other.prompt_text
