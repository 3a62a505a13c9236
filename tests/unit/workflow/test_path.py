"""A folder with another run in it is not resumed, whatever is left of that run."""

import json
from pathlib import Path
from typing import Any

import pytest

from treetune.core.errors import RunError, UsageError
from treetune.core.files import RunFolder, write_json
from treetune.tasks.contract import load_task
from treetune.workflow.path import answers_from, fingerprint_before, refuse_changed

ONE: dict[str, Any] = {"seed": 0, "columns": {"text": "review"}, "data": "abc"}
OTHER = {**ONE, "seed": 1}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def put_checkpoint(folder: RunFolder, step: int, fingerprint: dict[str, Any]) -> Path:
    path = folder.checkpoints / f"step-{step}"
    path.mkdir(parents=True)
    write_json(path / "manifest.json", {"step": step, "files": {}, "fingerprint": fingerprint})
    return path / "manifest.json"


def test_an_empty_folder_takes_any_run(folder: RunFolder) -> None:
    assert fingerprint_before(folder) is None
    refuse_changed(folder, ONE)


def test_the_record_of_the_data_decides(folder: RunFolder) -> None:
    write_json(folder.data, {"fingerprint": ONE})
    refuse_changed(folder, ONE)
    with pytest.raises(RunError) as caught:
        refuse_changed(folder, OTHER)
    assert caught.value.code == "E5011"
    assert "seed=1" in caught.value.found


def test_a_checkpoint_left_alone_decides_where_the_record_is_gone(folder: RunFolder) -> None:
    put_checkpoint(folder, 3, ONE)
    refuse_changed(folder, ONE)
    with pytest.raises(RunError, match="E5011"):
        refuse_changed(folder, OTHER)


@pytest.mark.parametrize("content", ["", "{}", "[]", json.dumps({"fingerprint": 3})])
def test_a_broken_checkpoint_says_nothing(folder: RunFolder, content: str) -> None:
    put_checkpoint(folder, 3, ONE).write_text(content)
    assert fingerprint_before(folder) is None


@pytest.mark.parametrize(
    ("asked", "task", "head", "used"),
    [("auto", "qa", "causal", "source"), ("source", "qa", "causal", "source"), ("anything", "qa", "causal", "anything"),
     ("auto", "qa", "spans", "anything"), ("auto", "qa", "seq2seq", "anything"),
     ("auto", "summarization", "causal", "anything"), ("anything", "sentiment", "causal", "anything")],
)
def test_answers_are_kept_to_the_source_where_that_can_be_done(asked: str, task: str, head: str, used: str) -> None:
    assert answers_from(asked, load_task(task), head) == used


@pytest.mark.parametrize(("task", "head"), [("qa", "spans"), ("summarization", "causal")])
def test_it_is_refused_where_it_cannot(task: str, head: str) -> None:
    with pytest.raises(UsageError, match="E2070"):
        answers_from("source", load_task(task), head)
