"""The audit from the command line: groups, our own sentences, files of pairs, changed training rows, two runs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from treetune.audit import cases
from treetune.core.files import RunFolder, read_json
from treetune.data.sample import sample_path
from treetune.verbs import audit


@pytest.fixture
def run(runs: Callable[[str], Path], tmp_path: Path) -> Path:
    return shutil.copytree(runs("sentiment"), tmp_path / "run")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Packaged rows with a column of groups, two of them large enough; those of the training make them enough."""
    lines = [json.loads(line) for part in ("test", "train")
             for line in sample_path("sentiment", part).read_text("utf-8").splitlines()]
    groups = ["north", "south", "south"] * len(lines)
    groups[:3] = ["tiny"] * 3
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({**line, "Region": group}, ensure_ascii=False) + "\n"
                            for line, group in zip(lines, groups, strict=False)), "utf-8")
    return path


@pytest.fixture
def few_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    """One attribute instead of all: the tiny model is slow enough."""
    whole = cases.cases_of
    monkeypatch.setattr("treetune.workflow.probe_sentences.cases_of", lambda *asked: [
        case for case in whole(*asked) if case.attribute in ("pronoun", "names: gender") and case.template < 3])


def test_groups_and_sentences_are_measured_reported_and_written(
    run: Path, rows: Path, cli: Callable[..., Any], few_sentences: None
) -> None:
    result = cli("audit", run, "--data", rows, "--by", "Region", "--json")
    assert result.code == 0
    record = result.json
    assert record == read_json(RunFolder(run).fairness)
    assert {each["kind"] for each in record["findings"]} >= {"gap", "flip"}
    assert all(each["low"] <= each["value"] <= each["high"] for each in record["findings"])
    assert record["tests"] == sum("p_adjusted" in each for each in record["findings"])
    assert {"group": "tiny", "measure": "quality", "rows": 3} in record["groups"][0]["too_small"]
    page = RunFolder(run).report.read_text("utf-8")
    assert 'id="fairness"' in page
    assert "tiny (quality: 3)" in page
    text = rows.read_text("utf-8")
    first = json.loads(text.splitlines()[0])["text"]
    assert first not in json.dumps(record, ensure_ascii=False)  # no row leaves the file


def test_the_terminal_says_what_was_found_and_no_verdict(run: Path, rows: Path, cli: Callable[..., Any]) -> None:
    result = cli("audit", run, "--data", rows, "--by", "Region", "--no-templates", "--no-swaps")
    assert result.code == 0
    assert "tests found a difference" in result.out
    assert "detectable" in result.out
    assert "132 of these rows were in the run's training" in result.out
    assert "fair " not in result.out.lower()


def test_a_wrong_column_is_named_before_anything_is_asked(run: Path, rows: Path, cli: Callable[..., Any]) -> None:
    result = cli("audit", run, "--data", rows, "--by", "regoin")
    assert result.code == 2
    assert "E2710" in result.err
    assert "--by Region" in result.err
    assert "predicting" not in result.err


def test_pairs_are_scored_and_a_file_that_holds_none_is_refused(
    run: Path, rows: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    pairs = tmp_path / "mine.jsonl"
    pairs.write_text("".join(json.dumps({"sent_more": f"The old man {verb}.", "sent_less": f"The young man {verb}.",
                                         "bias_type": "age"}) + "\n" for verb in map("waits {}".format, range(35))))
    result = cli("audit", run, "--data", rows, "--pairs", pairs, "--no-templates", "--no-swaps", "--json")
    assert result.code == 0
    kinds = [each["group"] for each in result.json["findings"] if each["kind"] == "pairs"]
    assert kinds == ["", "age"]
    assert cli("audit", run, "--data", rows, "--pairs", rows, "--no-templates").code == 3


def test_changed_training_rows_and_the_change_since_another_run(
    run: Path, rows: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    output = tmp_path / "swapped.jsonl"
    training = tmp_path / "train.jsonl"
    training.write_text(json.dumps({"text": "she was great", "label": "positive"}) + "\n"
                        + json.dumps({"text": "a dull film", "label": "negative"}) + "\n")
    result = cli("audit", run, "--data", training, "--mitigate", "swap", "--output", output)
    assert result.code == 0
    written = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    assert [each["text"] for each in written] == ["she was great", "he was great", "a dull film"]
    assert [each["label"] for each in written] == ["positive", "positive", "negative"]
    for words in (["--mitigate", "swap"], ["--mitigate", "pray", "--output", output],
                  ["--mitigate", "balance", "--output", output]):
        assert cli("audit", run, "--data", training, *words).code == 2
    record = audit(str(run), str(rows), by=["Region"], templates=False, swaps=False, against=str(run))
    assert record["changes"]
    assert {each["change"] for each in record["changes"]} == {0.0}


def test_questions_count_abstentions(
    runs: Callable[[str], Path], tmp_path: Path, rows_file: Callable[[str, int], Path], cli: Callable[..., Any]
) -> None:
    run = shutil.copytree(runs("question_answering"), tmp_path / "qa")
    questions = tmp_path / "bbq.jsonl"
    record = {"context": "A boy and a girl waited.", "question": "Who was late?", "ans0": "the boy", "ans1": "the girl",
              "ans2": "unknown", "label": 2, "context_condition": "ambig", "question_polarity": "neg",
              "answer_info": {"ans0": ["boy"], "ans1": ["girl"], "ans2": ["unknown", "unknown"]},
              "additional_metadata": {"stereotyped_groups": ["boy"]}}
    questions.write_text("".join(json.dumps(record) + "\n" for _ in range(31)))
    result = cli("audit", run, "--data", rows_file("question_answering", 6), "--pairs", questions, "--no-templates",
                 "--no-swaps", "--json")
    assert result.code == 0
    found = {each["measure"]: each["value"] for each in result.json["findings"] if each["kind"] == "questions"}
    assert set(found) >= {"right", "abstained"}
    assert found["right"] == found["abstained"]
