"""Files of any size: killed and started again, in several processes, to standard output; every row exactly once."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import treetune
from treetune.data.sample import sample_path

Cli = Callable[..., Any]
BLOCK = 8
SOURCE = Path(__file__).parents[2] / "src"


def lines_of(text: str) -> list[dict[str, Any]]:
    """Answers without the time they took."""
    return [{name: value for name, value in json.loads(line).items() if name != "seconds"}
            for line in text.splitlines()]


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some hundred different rows, two of which cannot be used."""
    path = tmp_path_factory.mktemp("many") / "rows.jsonl"
    lines = sample_path("sentiment", "test").read_text("utf-8").splitlines()[:12]
    texts = [json.loads(line)["text"] for line in lines]
    rows = [json.dumps({"text": f"{number} {texts[number % 12]}", "id": f"r{number}"}) for number in range(200)]
    path.write_text("\n".join([*rows[:50], "{broken", *rows[50:120], '{"text": ""}', *rows[120:]]) + "\n", "utf-8")
    return path


@pytest.fixture(scope="session")
def whole(many: Path, runs: Callable[[str], Path]) -> list[dict[str, Any]]:
    """The answers of a command that nobody stopped, as Python gives them."""
    from treetune.verbs import predict
    from treetune.workflow.answer_lines import to_lines

    found = predict(str(runs("sentiment")), str(many), max_refused_share=0.02, block_rows=BLOCK)
    return lines_of(to_lines(found))


def command(run: Path, rows: Path, output: Path, *more: object) -> list[str]:
    return [str(word) for word in ("predict", run, "--data", rows, "--output", output, "--max-refused-share", 0.02,
                                   "--block-rows", BLOCK, *more)]


def start_and_kill(words: list[str], output: Path, after: int) -> int:
    """A process of its own, killed once so many blocks are written; rows it had written."""
    journal = output.with_name(f"{output.name}.journal")
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}
    process = subprocess.Popen([sys.executable, "-m", "treetune", *words], env=environment, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE)
    while process.poll() is None:
        if journal.exists() and journal.read_bytes().count(b"\n") > after:
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, said.decode()
    return output.with_name(f"{output.name}.partial").read_bytes().count(b"\n")


def check_whole(output: Path, whole: list[dict[str, Any]]) -> None:
    assert lines_of(output.read_text("utf-8")) == whole
    assert [each["id"] for each in whole] == [f"r{number}" for number in range(200)]
    names = sorted(path.name for path in output.parent.iterdir())
    assert names == ["a.jsonl", "a.jsonl.manifest.json", "a.jsonl.quarantine.jsonl"]
    refused = (output.parent / "a.jsonl.quarantine.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["line"] for line in refused] == [51, 122]
    record = json.loads((output.parent / "a.jsonl.manifest.json").read_text("utf-8"))
    assert (record["rows"], record["refused"], record["verdicts"]) == (200, 2, {"ungated": 200})


def test_killed_in_the_middle_twice_the_same_command_gives_every_row_once(
    runs: Callable[[str], Path], many: Path, whole: list[dict[str, Any]], cli: Cli, tmp_path: Path
) -> None:
    output = tmp_path / "a.jsonl"
    words = command(runs("sentiment"), many, output)
    first = start_and_kill(words, output, 3)
    assert 3 * BLOCK <= first < 200
    assert not output.exists()
    second = start_and_kill(words, output, first // BLOCK + 2)
    assert first < second < 200
    said = cli(*words)
    assert said.code == 0, said.err
    assert "going on behind row" in said.err
    assert f"200 answers in {output}" in said.out
    check_whole(output, whole)


def stopped_after(blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have SIGTERM come while this block is answered."""
    from treetune.workflow import predict as module

    plain, count = module.to_lines, 0

    def lines(predictions: Any) -> str:
        nonlocal count
        count += 1
        if count == blocks:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(predictions)

    monkeypatch.setattr(module, "to_lines", lines)


def test_a_signal_ends_a_block_and_says_how_to_go_on(
    runs: Callable[[str], Path], many: Path, whole: list[dict[str, Any]], cli: Cli, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "a.jsonl"
    words = command(runs("sentiment"), many, output)
    with monkeypatch.context() as patch:
        stopped_after(4, patch)
        said = cli(*words)
    assert said.code == 75
    assert f"E5026: stopped by SIGTERM after {4 * BLOCK} of 200 rows" in said.err
    partial = tmp_path / "a.jsonl.partial"
    content = bytearray(partial.read_bytes())
    content[content.index(b"\n", len(content) // 2) - 5] ^= 1
    partial.write_bytes(content)
    said = cli(*words)
    assert said.code == 0, said.err
    assert "block 2 is not what was written: from there all is answered again" in said.err
    check_whole(output, whole)


def test_another_model_rows_or_setting_is_refused_by_name_and_restart_begins_anew(
    runs: Callable[[str], Path], many: Path, whole: list[dict[str, Any]], cli: Cli, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from safetensors.torch import load_file, save_file

    run = shutil.copytree(runs("sentiment"), tmp_path / "run")
    (tmp_path / "out").mkdir()
    output = tmp_path / "out" / "a.jsonl"
    with monkeypatch.context() as patch:
        stopped_after(3, patch)
        assert cli(*command(run, many, output)).code == 75
    other = tmp_path / "other.jsonl"
    other.write_text(many.read_text("utf-8") + '{"text": "one more", "id": "more"}\n', "utf-8")
    said = cli(*command(run, other, output))
    assert said.code == 1
    assert "E5021: the answers begun here were made with something else: the rows" in said.err
    said = cli(*command(run, many, output), "--columns", "id=text")
    assert said.code != 0
    said = cli(*command(run, many, output), "--no-record")
    assert "something else: --record, --log-text" in said.err
    weights = run / "model" / "model.safetensors"
    before = weights.read_bytes()
    changed = load_file(weights)
    next(iter(changed.values())).mul_(1.001)
    save_file(changed, weights, {"format": "pt"})
    said = cli(*command(run, many, output))
    assert "something else: the model's weights" in said.err
    weights.write_bytes(before)
    said = cli(*command(run, many, output), "--restart")
    assert said.code == 0, said.err
    assert "going on" not in said.err
    check_whole(output, whole)


def test_several_processes_give_the_same_answers_in_the_same_order(
    runs: Callable[[str], Path], many: Path, whole: list[dict[str, Any]], cli: Cli, tmp_path: Path
) -> None:
    said = cli(*command(runs("sentiment"), many, tmp_path / "a.jsonl", "--processes", 2))
    assert said.code == 0, said.err
    check_whole(tmp_path / "a.jsonl", whole)


@pytest.mark.slow
def test_a_process_that_dies_is_told_and_the_same_command_goes_on(
    runs: Callable[[str], Path], many: Path, whole: list[dict[str, Any]], cli: Cli, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from treetune.workflow import predict as module

    plain, started, count = module.Processes, [], 0

    def noted(*given: Any) -> Any:
        started.append(plain(*given))
        return started[-1]

    def lines(predictions: Any, to_lines: Any = module.to_lines) -> str:
        nonlocal count
        count += 1
        if count == 3:
            started[-1]._all[0].kill()
        return str(to_lines(predictions))

    words = command(runs("sentiment"), many, tmp_path / "a.jsonl", "--processes", 2)
    with monkeypatch.context() as patch:
        patch.setattr(module, "Processes", noted)
        patch.setattr(module, "to_lines", lines)
        said = cli(*words)
    assert said.code == 1
    assert "E5024: a process that answers rows is gone" in said.err
    assert all(each.poll() is not None for each in started[-1]._all), "none is left behind"
    said = cli(*words)
    assert said.code == 0, said.err
    check_whole(tmp_path / "a.jsonl", whole)


@pytest.mark.slow
def test_killed_with_several_processes_none_is_left_and_the_same_command_goes_on(
    runs: Callable[[str], Path], many: Path, whole: list[dict[str, Any]], cli: Cli, tmp_path: Path
) -> None:
    output = tmp_path / "a.jsonl"
    words = command(runs("sentiment"), many, output, "--processes", 2)
    written = start_and_kill(words, output, 2)
    assert written < 200
    mine = f"{runs('sentiment')}"
    until = time.monotonic() + 20
    while time.monotonic() < until and left_behind(mine):
        time.sleep(0.1)
    assert not left_behind(mine)
    assert cli(*command(runs("sentiment"), many, output)).code == 0, "with another number of processes, too"
    check_whole(output, whole)


def left_behind(run: str) -> list[str]:
    """Processes that still answer for a run."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = each.read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        if "answering_process" in words and run in words:
            found.append(words)
    return found


def test_answers_go_to_standard_output_and_nothing_else_does(
    runs: Callable[[str], Path], many: Path, whole: list[dict[str, Any]], cli: Cli, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    said = cli(*command(runs("sentiment"), many, Path("-")))
    assert said.code == 0, said.err
    assert lines_of(said.out) == whole
    assert "2 rows are refused, 200 are answered" in said.err
    assert "200 of 200 rows" in said.err
    assert list(tmp_path.iterdir()) == [], "no file is called -"


def test_more_refused_rows_than_allowed_stop_before_the_first_answer(
    runs: Callable[[str], Path], many: Path, cli: Cli, tmp_path: Path
) -> None:
    said = cli("predict", runs("sentiment"), "--data", many, "--output", tmp_path / "a.jsonl")
    assert said.code == 3
    assert "E1120: 2 of 202 rows cannot be used" in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl.quarantine.jsonl"]


def test_rows_that_are_added_while_they_are_answered_are_told_and_nothing_of_them_is_kept(
    runs: Callable[[str], Path], many: Path, whole: list[dict[str, Any]], cli: Cli, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from treetune.workflow import predict as module

    rows = tmp_path / "rows" / "rows.jsonl"
    rows.parent.mkdir()
    shutil.copy(many, rows)
    output, plain, count = tmp_path / "out" / "a.jsonl", module.to_lines, 0

    def lines(predictions: Any) -> str:
        nonlocal count
        count += 1
        if count == 3:
            with rows.open("a", encoding="utf-8") as handle:
                handle.write('{"text": "one more", "id": "more"}\n')
        return plain(predictions)

    words = command(runs("sentiment"), rows, output)
    with monkeypatch.context() as patch:
        patch.setattr(module, "to_lines", lines)
        said = cli(*words)
    assert said.code == 3
    assert "E1124: the file was written to while its rows were read" in said.err
    assert lines_of((tmp_path / "out" / "a.jsonl.partial").read_text("utf-8")) == whole[: 3 * BLOCK]
    said = cli(*words)
    assert "something else: the rows" in said.err
    shutil.copy(many, rows)
    said = cli(*words)
    assert said.code == 0, said.err
    assert "going on behind row 24 of 200" in said.err
    check_whole(output, whole)


def test_under_a_gate_every_row_carries_its_decision_and_is_watched_once(
    runs: Callable[[str], Path], many: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(runs("sentiment"), tmp_path / "run")
    treetune.gate(str(run), str(sample_path("sentiment", "test")), max_error=0.9, confidence=0.8)
    output = tmp_path / "a.jsonl"
    with monkeypatch.context() as patch:
        stopped_after(3, patch)
        assert cli(*command(run, many, output)).code == 75
    said = cli(*command(run, many, output), "--json")
    assert said.code == 0, said.err
    found = lines_of(output.read_text("utf-8"))
    assert len(found) == 200
    assert all(each["decision"]["guarantee"] for each in found)
    counts = {verdict: sum(each["decision"]["verdict"] == verdict for each in found)
              for verdict in {each["decision"]["verdict"] for each in found}}
    assert said.json["verdicts"] == counts
    log = (run / "trust" / "audit_log.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["row"] for line in log] == [f"r{number}" for number in range(200)]
    [stream] = (run / "trust").glob("stream-*.jsonl")
    assert len(stream.read_text("utf-8").splitlines()) == 200


def test_rows_on_one_passage_share_it_within_a_block(
    runs: Callable[[str], Path], cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from treetune.predict.engines.transformers import TransformersEngine

    seen: list[list[str]] = []
    plain = TransformersEngine.predict

    def noted(self: TransformersEngine, examples: Any) -> Any:
        seen.append([each.source for each in examples])
        return plain(self, examples)

    monkeypatch.setattr(TransformersEngine, "predict", noted)
    rows = [{"context": f"Text {number // 3} is short.", "question": f"What is {number}?"} for number in range(12)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    assert cli("predict", runs("question_answering"), "--data", path, "--block-rows", 4).code == 0
    assert [len(block) for block in seen] == [6, 6]
