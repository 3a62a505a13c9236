"""The command line as a function, and one tuned run a task."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from treetune.cli.app import run
from treetune.data.sample import sample_path

TASKS = ("translation", "summarization", "sentiment", "question_answering")
WINDOW = 512


@dataclass(frozen=True)
class Result:
    """What one command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def always(one_thread_in_english: None) -> None:
    """For every test in this folder."""


@pytest.fixture(scope="session")
def tiny(tiny_gpt3: Callable[..., Path]) -> Path:
    """A random model in a folder, whose tokenizer knows the rows of every task."""
    return tiny_gpt3(*TASKS)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """(words of the command) -> exit code and what it printed."""

    def call(*words: object) -> Result:
        capsys.readouterr()
        arguments = [str(word) for word in words]
        code = run(arguments, "--json" in arguments, False)
        said = capsys.readouterr()
        return Result(code, said.out, said.err)

    return call


@pytest.fixture(scope="session")
def tune_words(tiny: Path) -> Callable[..., list[str]]:
    """(task, run folder, flags) -> the words of a short tuning on the packaged rows; a flag's None takes it out."""

    def words(task: str, output: Path, **flags: Any) -> list[str]:
        given: dict[str, Any] = {
            "task": task, "model": tiny, "data": sample_path(task, "train"),
            "validation_data": sample_path(task, "validation"), "output_dir": output, "max_steps": 3,
            "per_device_train_batch_size": 4, "learning_rate": 1e-3, "logging_steps": 1, "max_new_tokens": 6,
            "torch_threads": 1, **flags,
        }
        pairs = [(f"--{name.replace('_', '-')}", str(value)) for name, value in given.items() if value is not None]
        return ["tune", *(word for pair in pairs for word in pair)]

    return words


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    """(task, number) -> a file with so many packaged test rows of the task."""

    def make(task: str, count: int) -> Path:
        path = tmp_path_factory.mktemp("rows") / f"{task}.jsonl"
        lines = sample_path(task, "test").read_text("utf-8").splitlines(keepends=True)
        path.write_text("".join(lines[:count]), "utf-8")
        return path

    return make


@pytest.fixture(scope="session")
def runs(
    tune_words: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """(task) -> its tuned run, made once."""
    made: dict[str, Path] = {}

    def get(task: str) -> Path:
        if task not in made:
            made[task] = tmp_path_factory.mktemp("runs") / task
            assert run(tune_words(task, made[task]), False, False) == 0
        return made[task]

    return get
