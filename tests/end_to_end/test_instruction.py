"""A run with an instruction: tuned, answered, measured, explained and exported with it, never told it again."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import treetune
from treetune.core.files import RunFolder, read_json, write_json
from treetune.data.sample import sample_path
from treetune.workflow.evaluate import answer
from treetune.workflow.gather import read_for, to_examples
from treetune.workflow.run import open_run

Cli = Callable[..., Any]
Words = Callable[..., list[str]]
Rows = Callable[[str, int], Path]
SAID = "Judge the film in a word."
FLAGS: dict[str, Any] = {"prompt_language": "en", "max_length": 64}  # within the band of the tiny model


@pytest.fixture(scope="module")
def told(tune_words: Words, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentiment run with an instruction; a test that changes it takes a copy."""
    from treetune.cli.app import run

    folder = tmp_path_factory.mktemp("told") / "run"
    assert run(tune_words("sentiment", folder, instruction=SAID, **FLAGS), False, False) == 0
    return folder


def test_check_shows_it_in_front_of_the_row(tune_words: Words, cli: Cli) -> None:
    words = tune_words("sentiment", Path("unused"), instruction=SAID, prompt_language="en")
    found = cli("check", *words[1:], "--json")
    assert found.code == 0, found.err
    assert all(each["prompt"].startswith(f"{SAID}\nReview: ") for each in found.json["rendered"])
    assert f"{SAID}\nReview: " in cli("check", *words[1:]).out


def test_an_opened_run_answers_with_it(told: Path, cli: Cli, rows_file: Rows) -> None:
    rows = rows_file("sentiment", 6)
    said = cli("predict", told, "--data", rows)
    assert said.code == 0, said.err
    found = [json.loads(line)["scores"]["probability"] for line in said.out.splitlines()]
    run = open_run(told)
    assert run.options.instruction == run.facts["instruction"] == SAID
    examples = to_examples(run.task, read_for(run.task, str(rows), "test", {}), run.options, None, 0.0).examples
    with_it, without = ([each.scores["probability"] for each in answer(run, run.loaded, given)]
                        for given in (examples, [replace(each, instruction="") for each in examples]))
    assert found == pytest.approx(with_it, abs=1e-5)
    assert found != pytest.approx(without, abs=1e-5)


def test_it_is_measured_and_explained_with_it_and_the_report_shows_rows(told: Path, cli: Cli, rows_file: Rows) -> None:
    rows = rows_file("sentiment", 6)
    assert cli("evaluate", told, "--data", rows).code == 0
    shown = read_json(told / "examples.json")
    assert shown
    assert all(each["input"].startswith("Review: ") for each in shown)
    found = cli("explain", told, "--text", "A warm film.", "--json")
    assert found.code == 0, found.err
    assert found.json["gap"] < 0.05
    words = {part: [word for word in found.json["words"] if word["part"] == part] for part in ("source", "instruction")}
    assert "Judge" in [word["text"] for word in words["instruction"]]
    assert all(word["value"] is None for word in words["instruction"])
    assert any(word["value"] for word in words["source"])
    assert f"{SAID}\nReview:" in cli("explain", told, "--text", "A warm film.", "--method", "occlusion").out


@pytest.mark.parametrize("other", ["Judge the film.", None])
def test_a_run_is_not_resumed_with_another_one(told: Path, tune_words: Words, cli: Cli, other: str | None) -> None:
    said = cli(*tune_words("sentiment", told, instruction=other, **FLAGS))
    assert said.code == 1
    assert said.err.startswith("E5011: the run in this folder was started differently: instruction\n")
    same = cli(*tune_words("sentiment", told, instruction=SAID, **FLAGS))
    assert (same.code, "is complete" in same.err) == (0, True)


def test_it_is_computed_once_a_pass(tune_words: Words, cli: Cli, tmp_path: Path) -> None:
    found = {}
    for name, text in (("without", None), ("with", SAID * 20)):
        said = cli(*tune_words("sentiment", tmp_path / name, instruction=text, max_length=None), "--json")
        assert said.code == 0, said.err
        found[name] = said.json
    more = {kind: found["with"][kind] - found["without"][kind] for kind in ("row_tokens", "computed_tokens")}
    assert found["with"]["layout"] == "tree"
    assert more["row_tokens"] == 4 * more["computed_tokens"] > 4 * 3 * 100  # three steps, each of four rows in a pass


def test_the_gate_is_void_with_another_one(told: Path, cli: Cli, rows_file: Rows, tmp_path: Path) -> None:
    run = shutil.copytree(told, tmp_path / "run")
    treetune.gate(str(run), str(sample_path("sentiment", "test")), max_error=0.9, confidence=0.8)
    rows = rows_file("sentiment", 3)
    facts = RunFolder(run).model / "treetune.json"
    for text, valid in ((SAID, True), ("Judge it.", False)):
        write_json(facts, {**read_json(facts), "instruction": text})
        decisions = [json.loads(line)["decision"] for line in cli("predict", run, "--data", rows).out.splitlines()]
        assert [each["valid"] for each in decisions] == [valid] * 3
    assert all(what in decisions[0]["reasons"][0]["text"] for what in ("the prompt", "the settings"))


def test_an_export_says_it_in_its_prompt(told: Path, cli: Cli, rows_file: Rows, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    said = cli("export", told, "--to", "gguf", "--output", tmp_path / "out", "--data", rows_file("sentiment", 6),
               "--json")
    assert said.code == 0, said.err
    assert said.json["parity"]["equal_answers"] == 1.0
    assert said.json["prompt"] == [f"{SAID}\n", "Review: ", None, "\nSentiment:"]
    assert said.json["instruction"] == SAID
    template = f'TEMPLATE """{SAID}\nReview: {{{{ .Prompt }}}}\nSentiment:"""'
    assert template in (tmp_path / "out" / "Modelfile").read_text("utf-8")


def test_a_run_of_before_there_were_instructions_opens_and_is_complete(
    runs: Callable[[str], Path], tune_words: Words, cli: Cli, rows_file: Rows, tmp_path: Path
) -> None:
    run, rows = shutil.copytree(runs("sentiment"), tmp_path / "run"), rows_file("sentiment", 3)
    assert "instruction" not in read_json(run / "model" / "treetune.json")
    before = [json.loads(line) for line in cli("predict", run, "--data", rows).out.splitlines()]
    record = read_json(run / "data.json")
    assert record["fingerprint"].pop("instruction") == ""
    write_json(run / "data.json", record)
    config = yaml.safe_load((run / "config.yaml").read_text("utf-8"))
    del config["instruction"]
    (run / "config.yaml").write_text(yaml.safe_dump(config), "utf-8")
    after = [json.loads(line) for line in cli("predict", run, "--data", rows).out.splitlines()]
    assert [each["scores"] for each in after] == [each["scores"] for each in before]
    assert "is complete" in cli(*tune_words("sentiment", run)).err


@pytest.mark.parametrize(("kind", "task"), [("bert", "sentiment"), ("bert", "question_answering"),
                                            ("marian", "translation")])
def test_a_model_that_would_not_read_it_is_refused_before_anything_is_trained(
    kind: str, task: str, tune_words: Words, family_folder: Callable[..., Path], cli: Cli, tmp_path: Path
) -> None:
    words = tune_words(task, tmp_path / "run", model=family_folder(kind, 128), instruction=SAID)
    for verb in ("tune", "check", "plan"):
        said = cli(verb, *words[1:])
        assert (said.code, "E2078" in said.err) == (2, True), said.err
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_teacher_reads_its_own(told: Path, rows_file: Rows) -> None:
    from treetune.workflow.distill import label_logs

    run = open_run(told)
    rows = read_for(run.task, str(rows_file("sentiment", 4)), "test", {})
    own, bare = (to_examples(run.task, rows, replace(run.options, instruction=text), None, 0.0).examples
                 for text in (SAID, ""))
    expected = [[each.scores[f"probability:{label}"] for label in bare[0].candidates]
                for each in answer(run, run.loaded, own)]
    found = label_logs(str(told), run.task, bare, lambda event: None)
    assert np.exp(np.stack(found)) == pytest.approx(np.array(expected), abs=1e-6)
