"""The gate from the command line: set, explained, obeyed by predict, void after any change, refused on seen rows."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import treetune
from treetune.core.files import RunFolder, read_json, write_json
from treetune.data.sample import sample_path


@pytest.fixture(scope="module")
def gated(runs: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sentiment run with a gate that accepts: nine in ten answers may be wrong."""
    folder = tmp_path_factory.mktemp("gated") / "sentiment"
    shutil.copytree(runs("sentiment"), folder)
    record = treetune.gate(str(folder), str(sample_path("sentiment", "test")), max_error=0.9, confidence=0.8)
    assert record["threshold"] is not None
    return folder


@pytest.fixture
def copied(gated: Path, tmp_path: Path) -> Path:
    return shutil.copytree(gated, tmp_path / "run")


def decisions(cli: Callable[..., Any], run: Path, rows: Path) -> list[dict[str, Any]]:
    result = cli("predict", run, "--data", rows)
    assert result.code == 0
    return [json.loads(line)["decision"] for line in result.out.splitlines()]


def test_a_gate_is_written_reported_and_obeyed(
    gated: Path, cli: Callable[..., Any], rows_file: Callable[[str, int], Path]
) -> None:
    record = read_json(RunFolder(gated).gate)
    assert record["wrong"] == "label differs"
    assert set(record["scope"]) == {"weights", "tokenizer", "settings", "prompt", "engine"}
    assert record["rows"]["tune"] + record["rows"]["calibration"] == record["left_out"][0]["used"]
    page = RunFolder(gated).report.read_text("utf-8")
    assert 'id="gate"' in page
    assert "at most 90 % are wrong" in page
    assert "not about any one of them" in page
    found = decisions(cli, gated, rows_file("sentiment", 12))
    assert len(found) == 12
    for decision in found:
        assert decision["valid"]
        assert (decision["verdict"] == "accept") == (decision["score"] >= record["threshold"])
        assert "at most 90 % are wrong" in decision["guarantee"]
    assert "accept" in {decision["verdict"] for decision in found}


def test_what_nothing_proves_is_exit_code_4_and_explained(copied: Path, cli: Callable[..., Any],
                                                          rows_file: Callable[[str, int], Path]) -> None:
    result = cli("gate", copied, "--data", sample_path("sentiment", "test"), "--max-error", "0.01")
    assert result.code == 4
    assert "Nothing can be accepted" in result.out
    assert "299 accepted calibration rows" in result.out
    found = decisions(cli, copied, rows_file("sentiment", 3))
    assert [(each["verdict"], each["reasons"][0]["code"]) for each in found] == [("review", "nothing_accepted")] * 3
    again = cli("gate", copied, "--data", sample_path("sentiment", "test"), "--max-error", "0.01", "--json")
    assert (again.code, again.json["threshold"]) == (4, None)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_rows_of_the_training_are_refused(copied: Path, cli: Callable[..., Any], split: str, tmp_path: Path) -> None:
    result = cli("gate", copied, "--data", sample_path("sentiment", split))
    assert result.code == 3
    assert "E1501" in result.err
    shouted = tmp_path / "shouted.jsonl"  # the same rows, dressed up
    lines = [json.loads(line) for line in sample_path("sentiment", split).read_text("utf-8").splitlines()]
    shouted.write_text("".join(json.dumps({**line, "text": f"  {line['text'].upper()} "}) + "\n" for line in lines))
    assert "E1501" in cli("gate", copied, "--data", shouted).err


def test_a_run_of_before_digests_were_kept_reads_its_rows_again(copied: Path, cli: Callable[..., Any]) -> None:
    record = read_json(RunFolder(copied).data)
    del record["content_digests"]
    write_json(RunFolder(copied).data, record)
    assert "E1501" in cli("gate", copied, "--data", sample_path("sentiment", "train")).err
    record["fingerprint"]["data"] = "another file"
    write_json(RunFolder(copied).data, record)
    result = cli("gate", copied, "--data", sample_path("sentiment", "test"))
    assert result.code == 1
    assert "E5501" in result.err


def test_rows_may_not_tune_and_calibrate(copied: Path, cli: Callable[..., Any]) -> None:
    rows = sample_path("sentiment", "test")
    result = cli("gate", copied, "--data", rows, "--tune-data", rows)
    assert result.code == 3
    assert "E1502" in result.err


def change_settings(run: Path) -> None:
    path = RunFolder(run).model / "treetune.json"
    write_json(path, {**read_json(path), "max_length": 100})


def change_tokenizer(run: Path) -> None:
    path = RunFolder(run).model / "tokenizer_config.json"
    write_json(path, {**read_json(path), "a_note": "x"})


def change_weights(run: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = RunFolder(run).model / "model.safetensors"
    weights = load_file(path)
    name = sorted(weights)[0]
    weights[name] = weights[name].half().to(weights[name].dtype)  # what a rounded copy does
    save_file(weights, path, metadata={"format": "pt"})


def change_gate(run: Path) -> None:
    path = RunFolder(run).gate
    write_json(path, {**read_json(path), "threshold": 0.0})


@pytest.mark.parametrize(("change", "what"), [
    (change_settings, "the settings"), (change_tokenizer, "the tokenizer"), (change_weights, "the model's weights"),
    (change_gate, "gate.json"),
])
def test_any_change_voids_the_gate_and_is_named(
    copied: Path, cli: Callable[..., Any], rows_file: Callable[[str, int], Path], change: Callable[[Path], None],
    what: str,
) -> None:
    change(copied)
    for decision in decisions(cli, copied, rows_file("sentiment", 4)):
        assert decision["verdict"] == "review"
        assert not decision["valid"]
        assert decision["reasons"][0]["code"] == "void"
        assert what in decision["reasons"][0]["text"]


@pytest.mark.parametrize(("words", "code"), [
    (["--max-error", "5"], "E2501"), (["--confidence", "0"], "E2501"), (["--wrong", "accuracy is low"], "E2502"),
    (["--wrong", "f1<0.5"], "E2503"),
])
def test_what_cannot_be_promised_is_a_usage_error(
    gated: Path, cli: Callable[..., Any], words: list[str], code: str
) -> None:
    result = cli("gate", gated, "--data", sample_path("sentiment", "test"), *words)
    assert result.code == 2
    assert code in result.err


@pytest.mark.parametrize(("task", "wrong", "shown"), [
    ("question_answering", "", "f1 < 0.5"), ("translation", "chrf<30", "chrf < 30"),
    ("summarization", "rougeL < 0.2", "rougeL < 0.2"),
])
def test_tasks_that_write_text_have_gates_too(
    runs: Callable[[str], Path], cli: Callable[..., Any], rows_file: Callable[[str, int], Path], tmp_path: Path,
    task: str, wrong: str, shown: str,
) -> None:
    run = shutil.copytree(runs(task), tmp_path / task)
    rows = rows_file(task, 12)
    result = cli("gate", run, "--data", rows, *(["--wrong", wrong] if wrong else []), "--json")
    assert result.code == 4
    assert result.json["wrong"] == shown
    assert result.json["sets"] is None
    assert {each["verdict"] for each in decisions(cli, run, rows)} == {"review"}
    if wrong:
        assert "E2504" in cli("gate", run, "--data", rows).err
