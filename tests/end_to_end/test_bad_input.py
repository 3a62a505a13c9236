"""Bad input of every kind ends in a code, a place and an advice; never in a traceback or a half-written run."""

import builtins
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from treetune.core import files
from treetune.core.files import RunFolder
from treetune.core.settings import TuneSettings
from treetune.data.sample import sample_path
from treetune.models.load import load_model
from treetune.models.tokens import tokenize
from treetune.tasks.contract import load_task
from treetune.train import loop
from treetune.train.checkpoint import problem_of, steps_on_disk
from treetune.workflow.gather import gather_training
from treetune.workflow.log import read_events

Cli = Callable[..., Any]
Words = Callable[..., list[str]]
Refused = Callable[..., str]
MESSAGES: dict[str, str] = {}

GOOD = [f"film {n} was fine,{('positive', 'negative', 'neutral')[n % 3]}" for n in range(9)]


def csv_of(*lines: str) -> bytes:
    return "\n".join(["text,label", *lines, ""]).encode()


def with_line(line: bytes) -> bytes:
    """Nine good rows and, in line 6, a bad one."""
    rows = [row.encode() for row in GOOD]
    return b"\n".join([b"text,label", *rows[:4], line, *rows[4:], b""])


@pytest.fixture
def refused(cli: Cli, tmp_path: Path) -> Refused:
    """(name of the case, exit code, words the message must hold, words of the command) -> the message."""

    def check(name: str, code: int, needed: list[str], command: list[str]) -> str:
        said = cli(*command)
        message = "\n".join(line for line in said.err.replace("\r", "\n").splitlines() if "it/s]" not in line)
        assert said.code == code, message
        assert "Traceback" not in message
        assert "E9000" not in message
        for word in needed:
            assert word in message, f"{word!r} is not in:\n{message}"
        MESSAGES[name] = message
        return message

    return check


FILES: dict[str, tuple[str, bytes, list[str]]] = {
    "empty file": ("rows.csv", b"", ["E1102", "rows.csv"]),
    "header only": ("rows.csv", csv_of(), ["E1103", "rows.csv"]),
    "wrong column": ("rows.csv", csv_of(*GOOD).replace(b"text,", b"txet,"), ["E1112", "rows.csv", "'text'", "txet"]),
    "binary file": ("rows.csv", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\xff\xfe" * 20, ["E1105", "rows.csv"]),
    "unknown kind": ("rows.docx", b"text", ["E1104", "rows.docx"]),
    "broken UTF-8": ("rows.csv", with_line(b"caf\xe9 was fine,positive"),
                     ["E1120", "1 of 10", "rows.csv, line 6", "E1106", "byte"]),
    "ragged CSV": ("rows.csv", with_line(b"too,many,cells"), ["E1120", "rows.csv, line 6", "E1107", "3 fields"]),
    "NUL": ("rows.csv", with_line(b"fi\x00lm,positive"), ["E1120", "rows.csv, line 6", "E1108"]),
    "lone surrogate": (
        "rows.jsonl",
        "".join(json.dumps({"text": f"film {n}" + ("\ud83d" if n == 3 else ""), "label": ("pos", "neg")[n % 2]}) + "\n"
                for n in range(10)).encode(),
        ["E1120", "rows.jsonl, line 4", "column 'text'", "E1109"],
    ),
    "broken JSON line": ("rows.jsonl", b'{"text": "a", "label": "pos"}\n{"text": "b", "label": \n' * 3,
                         ["E1120", "3 of 6", "rows.jsonl, line 2", "E1110"]),
    "one label only": ("rows.csv", csv_of("good,positive", "fine,positive"), ["E1201", "rows.csv", "positive"]),
    "label not in the set": ("rows.csv", with_line(b"film,great"), ["E1120", "rows.csv, line 6", "E1203", "great"]),
    "labels of another set": ("rows.csv", csv_of("good,1", "bad,0"),
                              ["E1120", "2 of 2", "rows.csv, line 2", "E1203", "'1'", "quarantine.jsonl"]),
    "empty text": ("rows.csv", with_line(b",positive"), ["E1120", "rows.csv, line 6", "E1202"]),
    "broken gzip": ("rows.csv.gz", b"\x1f\x8b\x08\x00not really", ["E1117", "rows.csv.gz"]),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_used(name: str, refused: Refused, tune_words: Words, tmp_path: Path) -> None:
    file, content, needed = FILES[name]
    (tmp_path / file).write_bytes(content)
    refused(name, 3, needed, tune_words("sentiment", tmp_path / "run", data=tmp_path / file))
    assert not (tmp_path / "run" / "model").exists()
    if "E1120" in needed:
        lines = (tmp_path / "run" / "quarantine.jsonl").read_text("utf-8").splitlines()
        assert lines
        assert {json.loads(line)["code"] for line in lines} < set(needed)


def test_a_file_that_is_not_there(refused: Refused, tune_words: Words, tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_bytes(csv_of(*GOOD))
    refused("missing file", 3, ["E1101", "reviws.csv", "reviews.csv"],
            tune_words("sentiment", tmp_path / "run", data=tmp_path / "reviws.csv"))


def test_rows_that_may_be_refused_are_listed(
    cli: Cli, tune_words: Words, tmp_path: Path
) -> None:
    (tmp_path / "train.csv").write_bytes(with_line(b"film,great"))
    (tmp_path / "validation.csv").write_bytes(with_line(b",positive"))
    run = tmp_path / "run"
    said = cli(*tune_words("sentiment", run, data=tmp_path / "train.csv", validation_data=tmp_path / "validation.csv",
                           max_refused_share=0.2, max_steps=1))
    assert said.code == 0, said.err
    said = cli("evaluate", run, "--data", tmp_path / "train.csv", "--no-base", "--max-refused-share", "0.2", "--json")
    assert said.code == 0, said.err
    assert said.json["refused"] == 1
    for name, code in (("", "E1203"), ("validation.", "E1202"), ("evaluation.", "E1203")):
        [line] = (run / f"{name}quarantine.jsonl").read_text("utf-8").splitlines()
        assert (json.loads(line)["code"], json.loads(line)["line"]) == (code, 6)


def test_predict_names_the_row_too(
    refused: Refused, runs: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "new.csv").write_bytes(b"text\ngood film\nb\xffd film\n")
    refused("predict: broken UTF-8", 3, ["E1120", "new.csv, line 3", "E1106"],
            ["predict", str(runs("sentiment")), "--data", str(tmp_path / "new.csv")])


def test_an_answer_that_is_not_in_its_context(refused: Refused, tune_words: Words, tmp_path: Path) -> None:
    rows = [{"context": f"Room {n} is blue.", "question": "Which colour?", "answers": ["green" if n == 2 else "blue"]}
            for n in range(5)]
    (tmp_path / "qa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused("answer not in its context", 3, ["E1120", "qa.jsonl, line 3", "E1204", "green"],
            tune_words("question_answering", tmp_path / "run", data=tmp_path / "qa.jsonl"))


def test_rows_longer_than_the_window_are_cut_at_the_source_and_counted(
    cli: Cli, tune_words: Words, tmp_path: Path, tiny: Path
) -> None:
    rows = [{"document": "A long report. " * (300 if n < 2 else 3), "summary": f"Report {n}."} for n in range(6)]
    path = tmp_path / "papers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = cli(*tune_words("summarization", tmp_path / "run", data=path, max_steps=1))
    assert said.code == 0, said.err
    assert "2 of 6 rows are longer than the window" in said.err
    MESSAGES["longer than the window"] = next(line for line in said.err.splitlines() if "than the window" in line)
    [event] = [each for each in read_events(tmp_path / "run" / "metrics.jsonl") if each["event"] == "tokens"]
    assert event["cut"]["examples"] == 2
    assert event["cut"]["tokens"] > 100

    settings = TuneSettings(task="summarization", model=str(tiny), data=str(path), validation_data=str(path),
                            output_dir="unused")
    training, _, _ = gather_training(settings, load_task("summarization"), None)
    loaded = load_model(str(tiny))
    for number, each in enumerate(tokenize(training.examples, loaded.tokenizer, loaded.window)):
        assert len(each.prompt_ids) + len(each.completion_ids) <= loaded.window
        assert (each.num_cut > 0) == (number < 2)
        assert loaded.tokenizer.decode(each.completion_ids[:-1]).strip() == f"Report {number}."
        assert each.completion_ids[-1] == loaded.tokenizer.eos_token_id


def test_check_counts_duplicates_and_refusals(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    rows = [{"id": str(n // 2), "text": f"film {n // 3}", "label": ("positive", "negative")[n % 2]} for n in range(12)]
    rows.append({"id": "x", "text": "film", "label": "great"})
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["check", "--task", "sentiment", "--model", tiny, "--data", path, "--validation-data", path]
    said = cli(*words, "--json")
    assert said.code == 3, said.err
    split = said.json["report"]["splits"]["train"]
    assert split["duplicate_ids"] == 6
    assert split["duplicate_rows"]["count"] == 8
    assert split["refused"] == {"E1203": 1}
    assert {refusal["line"] for refusal in said.json["refused"]} == {13}
    plain = cli(*words)
    assert plain.code == 3
    assert "E1203" in plain.out


def test_check_prints_rows_as_they_are(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    rows = [{"id": f"[/x{n}]", "[b]t": f"[bold]film[/b] {n % 4}", "label": ("pos", "neg")[n % 2]} for n in range(12)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = cli("check", "--task", "sentiment", "--model", tiny, "--data", path, "--validation-data", path,
               "--columns", "text=[b]t")
    assert said.code == 0, said.err
    assert "[bold]film[/b]" in said.out
    assert "[b]t" in said.out


def test_usage_errors(refused: Refused, tune_words: Words, tmp_path: Path, cli: Cli) -> None:
    run = tmp_path / "run"
    refused("unknown task", 2, ["E2004", "task", "sentimental", "summarization"],
            [*tune_words("sentiment", run), "--task", "sentimental"])
    refused("typo in a flag", 2, ["--learning-rat"], [*tune_words("sentiment", run), "--learning-rat", "1"])
    refused("a flag that is no number", 2, ["--seed"], tune_words("sentiment", run, seed="many"))
    refused("a flag out of range", 2, ["E2004", "learning_rate", "-1"], tune_words("sentiment", run, learning_rate=-1))
    refused("a flag missing", 2, ["E2005", "output_dir"], ["tune", "--task", "sentiment", "--data", "x.csv"])
    refused("columns without =", 2, ["E2006", "text review"],
            [*tune_words("sentiment", run), "--columns", "text review"])
    (tmp_path / "run.yaml").write_text("task: sentiment\nlearning_rat: 1\n")
    refused("typo in a YAML key", 2, ["E2003", "learning_rat", "allowed: learning_rate", "run.yaml"],
            ["tune", str(tmp_path / "run.yaml")])
    (tmp_path / "bad.yaml").write_text("task: [sentiment\n")
    refused("not YAML", 2, ["E2002", "bad.yaml"], ["tune", str(tmp_path / "bad.yaml")])
    refused("no YAML there", 2, ["E2001", "none.yaml"], ["tune", str(tmp_path / "none.yaml")])
    refused("unknown run", 2, ["E2030", "nowhere"], ["evaluate", str(tmp_path / "nowhere"), "--data", "x.csv"])
    refused("predict without rows", 2, ["E2021"], ["predict"])
    assert not run.exists()
    assert cli("evaluate").code == 2


def test_errors_as_json(cli: Cli, tune_words: Words, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"")
    said = cli(*tune_words("sentiment", tmp_path / "run", data=tmp_path / "rows.csv"), "--json")
    assert said.code == 3
    error = json.loads(said.err)["error"]
    assert error["code"] == "E1102"
    assert set(error) == {"code", "what", "where", "found", "allowed", "do"}


def copy_of(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def test_a_model_that_cannot_be_used(
    refused: Refused, tune_words: Words, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    refused("missing model folder", 2, ["E3002", "no/such/model"],
            tune_words("sentiment", run, model=tmp_path / "no/such/model"))

    model = copy_of(tiny, tmp_path)
    weights = model / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    refused("cut safetensors", 2, ["E3005", "model.safetensors", "bytes"], tune_words("sentiment", run, model=model))
    weights.write_bytes(b"\xff" * 8 + whole[8:])
    refused("corrupt safetensors", 2, ["E3005", "model.safetensors"], tune_words("sentiment", run, model=model))

    weights.unlink()
    torch.save({"a": torch.zeros(1)}, model / "pytorch_model.bin")
    refused("pickle weights", 2, ["E3003", "pytorch_model.bin", "safetensors"],
            tune_words("sentiment", run, model=model))

    (model / "pytorch_model.bin").unlink()
    weights.write_bytes(whole)
    config = json.loads((model / "config.json").read_text("utf-8"))
    (model / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Model"}}), "utf-8")

    def never(*args: object, **options: object) -> None:
        raise AssertionError("a loader was called")

    monkeypatch.setattr("treetune.models.load.AutoConfig.from_pretrained", never)
    refused("auto_map", 2, ["E3004", "config.json: auto_map", "evil.Model"], tune_words("sentiment", run, model=model))


@pytest.mark.parametrize("bad_step", [1, 3])
def test_a_loss_that_is_no_number(
    bad_step: int, refused: Refused, tune_words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    plain = loop.train_step

    def spoilt(
        model: Any, optimizers: Any, examples: Any, make_batches: Any, settings: Any, state: Any, loss_of: Any
    ) -> Any:
        if state.step + 1 == bad_step:
            with torch.no_grad():
                next(model.parameters()).fill_(float("nan"))
        return plain(model, optimizers, examples, make_batches, settings, state, loss_of)

    words = tune_words("sentiment", tmp_path / "run", max_steps=4, save_steps=1, eval_steps=9)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", spoilt)
        message = refused("NaN loss", 1, ["E4001", f"in step {bad_step}", "train.jsonl, lines ", "--learning-rate"],
                          words)
    rows = message.split("train.jsonl, lines ")[1].splitlines()[0].split(", ")
    assert len(rows) == 4
    assert all(row.isdigit() for row in rows)
    steps = steps_on_disk(RunFolder(tmp_path / "run").checkpoints)
    assert [step for step, _ in steps] == list(range(bad_step - 1, 0, -1))[:2]
    assert all(problem_of(path) == "" for _, path in steps)
    assert not (tmp_path / "run" / "model").exists()
    assert cli(*words).code == 0  # and once the cause is gone the run goes on


def test_a_learning_rate_that_is_far_too_large(refused: Refused, tune_words: Words, tmp_path: Path) -> None:
    message = refused("learning rate too large", 1, ["not a finite number", "--learning-rate"],
                      tune_words("sentiment", tmp_path / "run", learning_rate=1e30, optim="sgd", max_grad_norm=0,
                                 warmup_ratio=0, max_steps=4))
    assert message.startswith("E400") or "\nE400" in message


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(errno.ENOSPC, "E5001", "the disk is full"), (errno.EACCES, "E5002", "no permission to write"),
     (errno.EIO, "E5003", "cannot be written")],
)
@pytest.mark.parametrize("how", ["open", "replace", "rename"])
def test_a_disk_that_refuses_a_checkpoint(
    how: str, number: int, code: str, word: str, refused: Refused, tune_words: Words, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, cli: Cli,
) -> None:
    plain = {"open": builtins.open, "replace": os.replace, "rename": os.rename}[how]

    def refuse(path: Any, *args: Any, **options: Any) -> Any:
        if "step-4" in str(path) and (how == "rename" or "optimizer.safetensors" in str(path)):
            raise OSError(number, os.strerror(number), str(path))
        return plain(path, *args, **options)

    words = tune_words("sentiment", tmp_path / "run", max_steps=6, save_steps=2, eval_steps=9)
    with monkeypatch.context() as patch:
        if how == "open":
            patch.setattr(files, "open", refuse, raising=False)
        else:
            patch.setattr(os, how, refuse)
        refused(f"{word} ({how})", 1, [code, word, "step-4"], words)
    folder = RunFolder(tmp_path / "run").checkpoints
    assert [step for step, _ in steps_on_disk(folder)] == [2]
    assert all((path / "manifest.json").is_file() and problem_of(path) == "" for _, path in steps_on_disk(folder))
    assert not list(folder.glob(".tmp-step-*"))
    assert cli(*words).code == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_disk_that_refuses_the_log_or_the_model(
    number: int, refused: Refused, tune_words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    from treetune.workflow import log

    code = {errno.ENOSPC: "E5001", errno.EACCES: "E5002"}[number]

    def refuse(path: Any, *args: Any, **options: Any) -> Any:
        raise OSError(number, os.strerror(number), str(path))

    def refuse_in_rust(*args: Any, **options: Any) -> Any:
        raise SafetensorError(f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})")

    words = tune_words("sentiment", tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(log, "open", refuse, raising=False)
        refused("log refused", 1, [code, "metrics.jsonl"], words)
    with monkeypatch.context() as patch:
        patch.setattr("treetune.models.gpt3.GPT3LMHeadModel.save_pretrained", refuse)
        refused("model refused", 1, [code, "model"], words)
    with monkeypatch.context() as patch:
        patch.setattr("treetune.models.gpt3.GPT3LMHeadModel.save_pretrained", refuse_in_rust)
        refused("weights refused", 1, [code, "model"], words)
    assert not RunFolder(tmp_path / "run").is_complete()
    assert cli(*words).code == 0
    assert RunFolder(tmp_path / "run").is_complete()


def test_an_output_folder_that_is_a_file(refused: Refused, tune_words: Words, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("I am a file")
    refused("output folder is a file", 1, ["E5003", str(tmp_path / "run")], tune_words("sentiment", tmp_path / "run"))


def test_a_run_that_is_not_finished(refused: Refused, runs: Callable[[str], Path], tmp_path: Path) -> None:
    run = Path(shutil.copytree(runs("sentiment"), tmp_path / "run"))
    (run / "model" / "treetune.json").unlink()
    refused("unfinished run", 2, ["E2031", "not finished"],
            ["predict", str(run), "--data", str(sample_path("sentiment", "test"))])


def test_every_message_says_what_and_where() -> None:
    for name, message in MESSAGES.items():
        assert message.strip(), name
        assert "{" not in message.splitlines()[0], f"{name}: a placeholder was left unfilled"
