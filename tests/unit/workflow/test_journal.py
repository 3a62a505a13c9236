"""The journal of answers: killed at any instant, damaged anywhere, each block stands in the file once."""

import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from treetune.core.errors import RunError
from treetune.core.language import choose_language
from treetune.workflow import journal as module
from treetune.workflow.journal import Journal

BINDING: dict[str, Any] = {"data": "d1", "weights": "w1", "decoding": {"max_length": 128}}
BLOCKS = [f'{{"row": {2 * number}}}\n{{"row": {2 * number + 1}, "text": "é{number}"}}\n' for number in range(5)]


@pytest.fixture(autouse=True)
def in_english() -> None:
    choose_language("en")


def go_on(output: Path, upto: int = len(BLOCKS), *, finish: bool = True, **changed: Any) -> Journal:
    """What a command does: take up what is there, write the blocks that are missing, finish."""
    with Journal(output, {**BINDING, **changed}) as journal:
        for block in BLOCKS[journal.done.blocks : upto]:
            journal.append(block, 2, {"accept": 1, "review": 1})
        if finish and upto == len(BLOCKS):
            journal.finish({"refused": 0})
    return journal


def test_a_file_is_whole_or_has_a_name_that_says_it_is_not(tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    go_on(output, 3)
    assert not output.exists()
    assert (tmp_path / "answers.jsonl.partial").read_text("utf-8") == "".join(BLOCKS[:3])
    journal = go_on(output)
    assert output.read_text("utf-8") == "".join(BLOCKS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl", "answers.jsonl.manifest.json"]
    record = json.loads((tmp_path / "answers.jsonl.manifest.json").read_text("utf-8"))
    assert record["sha256"] == module.hashlib.sha256(output.read_bytes()).hexdigest()
    assert record["rows"] == journal.done.rows == 10
    assert record["verdicts"] == {"accept": 5, "review": 5}
    assert record["binding"] == BINDING


def test_a_finished_file_is_answered_anew(tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    go_on(output)
    assert go_on(output, 0, finish=False, weights="w2").done.blocks == 0
    assert output.read_text("utf-8") == "".join(BLOCKS), "until the new one is whole the old one stays"


@pytest.mark.parametrize(("part", "said"), [("data", "the rows"), ("weights", "the model's weights"),
                                            ("decoding", "how answers are written")])
def test_what_was_begun_with_something_else_is_not_gone_on_with_and_that_is_named(
    part: str, said: str, tmp_path: Path
) -> None:
    output = tmp_path / "answers.jsonl"
    go_on(output, 2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RunError) as caught:
        go_on(output, **{part: "another"})
    assert caught.value.code == "E5021"
    assert f"made with something else: {said}" in str(caught.value)
    assert "-> another" in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before, "nothing is touched"
    with Journal(output, {**BINDING, part: "another"}, restart=True) as journal:
        assert journal.done.blocks == 0


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    with Journal(output, BINDING), pytest.raises(RunError, match="E5020"):
        Journal(output, BINDING)
    go_on(output)


def test_answers_without_a_journal_are_not_overwritten(tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    go_on(output, 2)
    (tmp_path / "answers.jsonl.journal").write_bytes(b"garbage\n")
    with pytest.raises(RunError, match="E5022"):
        go_on(output)
    assert (tmp_path / "answers.jsonl.partial").stat().st_size


class Killed(BaseException):
    """Nothing after it runs, as nothing runs after a kill -9."""


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> Callable[[], int]:
    """The so-manieth durable step does not happen; how many did."""
    count = 0

    def counted(plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count == step:
                raise Killed
            return plain(*args, **named)

        return call

    for name in ("_sync", "write_json", "sync_folder"):
        monkeypatch.setattr(module, name, counted(getattr(module, name)))
    monkeypatch.setattr(module.os, "replace", counted(os.replace))
    monkeypatch.setattr(Path, "unlink", counted(Path.unlink))
    return lambda: count


@pytest.mark.parametrize("step", range(1, 20))
def test_killed_at_every_step_the_same_command_ends_with_the_same_file(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "answers.jsonl"
    with monkeypatch.context() as patch:
        taken = kill_at(patch, step)
        with contextlib.suppress(Killed):
            go_on(output)
        assert taken() >= step or step > 16, "every step up to the last one was tried"
    journal = go_on(output)
    assert output.read_text("utf-8") == "".join(BLOCKS)
    assert journal.done.rows == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl", "answers.jsonl.manifest.json"]


@given(st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_cut_off_or_changed_anywhere_each_block_stands_there_once(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    output = tmp_path_factory.mktemp("journal") / "answers.jsonl"
    go_on(output, data.draw(st.integers(1, 5)), finish=False)
    for end in data.draw(st.sampled_from([("partial",), ("journal",), ("partial", "journal")])):
        path = output.with_name(f"{output.name}.{end}")
        content = bytearray(path.read_bytes())
        first = content.index(b"\n") + 1 if end == "journal" else 0  # its first line says what began: tested above
        if first >= len(content):
            continue
        place = data.draw(st.integers(first, len(content) - 1))
        if data.draw(st.booleans()):
            content[place] ^= 1 << data.draw(st.integers(0, 7))
        else:
            del content[place:]
        path.write_bytes(content + data.draw(st.binary(max_size=9)))
    journal = go_on(output)
    assert output.read_text("utf-8") == "".join(BLOCKS)
    assert journal.done.rows == 10
    assert journal.done.verdicts == Counter(accept=5, review=5)


def test_a_flipped_byte_is_said(tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    go_on(output, 4)
    path = tmp_path / "answers.jsonl.partial"
    content = bytearray(path.read_bytes())
    content[len(BLOCKS[0].encode()) + 3] ^= 1
    path.write_bytes(content)
    with Journal(output, BINDING) as journal:
        assert journal.done.damage == "block 1 is not what was written"
        assert journal.done.blocks == 1


def test_a_full_disk_is_told_and_keeps_what_was_written(tmp_path: Path) -> None:
    """Row 8: in a process of its own, because the limit stays."""
    program = (
        "import resource, signal, sys; from pathlib import Path; from treetune.workflow.journal import Journal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
        "journal = Journal(Path(sys.argv[1]), {'data': 'd'})\n"
        "[journal.append('x' * 499 + '\\n', 1, {}) for _ in range(20)]"
    )
    output = tmp_path / "answers.jsonl"
    done = subprocess.run([sys.executable, "-c", program, str(output)], capture_output=True, text=True)
    assert "E5001: the disk is full" in done.stderr
    with Journal(output, {"data": "d"}) as journal:
        assert 1 <= journal.done.rows <= 8
        assert not journal.done.damage
