"""Files, folders, hub data sets; counts, names, digests; refusals kept; the real data sets."""

import gzip
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from treetune.core.errors import DataError, UsageError
from treetune.data import ReadResult, inspect, read_rows, sample_path, stop_if_too_many, write_quarantine
from treetune.data import read as read_module
from treetune.data.refusals import Refusal, excerpt

ReadText = Callable[..., ReadResult]
PLAIN: dict[str, Any] = {"aliases": {}, "columns": {}}


def write(folder: Path, **files: str) -> None:
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content, encoding="utf-8")


def texts(result: ReadResult) -> list[str]:
    return [row.values["text"] for row in result.rows]


def test_rows_carry_where_they_come_from(read_text: ReadText, tmp_path: Path) -> None:
    result = read_text('{"review": "a"}\n[]\n{"review": "b", "id": "own"}\n', split="test",
                       aliases={"text": ("review",)}, required=["text"])
    path = str(tmp_path / "rows.jsonl")
    assert [(row.values, row.file, row.line, row.number, row.split, row.id) for row in result.rows] == [
        ({"text": "a"}, path, 1, 0, "test", "test:0"),
        ({"text": "b", "id": "own"}, path, 3, 1, "test", "own"),
    ]
    assert (result.renamed, result.num_read, result.files) == ({"review": "text"}, 3, (path,))


def test_a_required_column_must_be_in_the_file(read_text: ReadText) -> None:
    with pytest.raises(DataError, match="E1112"):
        read_text("txet,label\na,b\n", "rows.csv", required=["text"])


def test_shapes_are_brought_to_columns_before_names_are_looked_up(read_text: ReadText) -> None:
    result = read_text('{"instruction": "Add.", "input": "1 1", "output": "2"}', columns={"source": "prompt"},
                       aliases={"target": ("completion",)}, required=["source", "target"])
    assert (result.rows[0].values["source"], result.rows[0].values["target"]) == ("Add.\n1 1", "2")


def test_the_digest_is_that_of_the_stored_bytes(read_text: ReadText) -> None:
    stored = gzip.compress(b"text\na\n", mtime=0)
    assert read_text(stored, "rows.csv.gz").digest == hashlib.sha256(stored).hexdigest()


def test_a_missing_file_is_answered_with_a_near_one(tmp_path: Path) -> None:
    write(tmp_path, train__jsonl='{"text": "a"}')
    with pytest.raises(DataError) as caught:
        read_rows(tmp_path / "trian.jsonl", split="train", **PLAIN)
    assert caught.value.code == "E1101"
    assert caught.value.as_dict()["do"] == f"did you mean {tmp_path / 'train.jsonl'}?"


@pytest.mark.parametrize("name", ["nothing/here.csv", "a\x00b.csv", "x" * 5000])
def test_a_path_that_leads_nowhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError) as caught:
        read_rows(tmp_path / name, split="train", **PLAIN)
    assert caught.value.code in ("E1101", "E1118")


def test_a_file_that_may_not_be_read(read_text: ReadText, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_to_open(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("treetune.data.stream.open_data", refuse_to_open)
    with pytest.raises(DataError) as caught:
        read_text("text\na\n", "rows.csv")
    assert (caught.value.code, caught.value.found) == ("E1118", "Permission denied")


# Folders


def test_a_folder_gives_the_files_of_the_split(tmp_path: Path) -> None:
    write(tmp_path, **{
        "train-00__jsonl": '{"text": "a"}', "train-01__csv": "review\nb\n", "dev__jsonl": '{"text": "c"}',
        "validation__tsv": "text\nd\n", "test__json": '[{"text": "e"}]',
        "README__md": "read", "other__csv": "text\nf\n",
        ".train-02__jsonl": '{"text": "hidden"}', "train__txt": "no",
    })
    (tmp_path / "train.csv").mkdir()
    aliases = {"text": ("review",)}

    def of(split: str) -> ReadResult:
        return read_rows(tmp_path, split=split, aliases=aliases, columns={})

    assert texts(of("train")) == ["a", "b"]
    assert texts(of("validation")) == ["c", "d"]
    assert texts(of("test")) == ["e"]
    assert texts(of("calibration")) == ["f"]  # no file is named after it: those named after no split
    train = of("train")
    assert [row.number for row in train.rows] == [0, 1]
    assert [row.line for row in train.rows] == [1, 2]
    assert [Path(file).name for file in train.files] == ["train-00.jsonl", "train-01.csv"]
    assert train.renamed == {"review": "text"}
    assert len(train.digest) == 64


def test_a_folder_never_gives_rows_of_another_split(tmp_path: Path) -> None:
    write(tmp_path, test__jsonl='{"text": "a"}')
    with pytest.raises(DataError) as caught:
        read_rows(tmp_path, split="train", **PLAIN)
    assert (caught.value.code, caught.value.found) == ("E1119", "test.jsonl")


def test_a_folder_without_data(tmp_path: Path) -> None:
    write(tmp_path, notes__txt="a")
    with pytest.raises(DataError) as caught:
        read_rows(tmp_path, split="train", **PLAIN)
    assert (caught.value.code, caught.value.found) == ("E1104", "notes.txt")


@pytest.mark.parametrize(("name", "split"), [
    ("train.csv", "train"), ("TRAIN-00.csv", "train"), ("training.csv", "train"), ("trainset.csv", "train"),
    ("valid.csv", "validation"), ("val.csv", "validation"), ("validation_1.csv", "validation"),
    ("dev.csv", "validation"), ("test2.csv", "test"), ("calibration.csv", "calibration"),
    ("testimonials.csv", ""), ("devices.csv", ""), ("trains.csv", ""), ("my-train.csv", ""),
    ("values.csv", ""),
])
def test_a_file_name_tells_its_split(name: str, split: str) -> None:
    assert read_module.split_of_name(name) == split


# Hub


class FakeDataset:
    features: ClassVar[dict[str, object]] = {"label": SimpleNamespace(names=["neg", "pos"]), "text": object()}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        yield from ({"text": "a", "label": 1}, {"text": "b\x00", "label": 0}, {"text": "c", "label": 0})


def test_hub_data_sets_are_read_through_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(*args: Any, **options: Any) -> FakeDataset:
        asked.append((args, options))
        return FakeDataset()

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    result = read_rows("hub:nyu-mll/glue:sst2", split="train", **PLAIN)
    assert asked == [(("nyu-mll/glue", "sst2"), {"split": "train"})]
    assert [(row.values["label"], row.line, row.file) for row in result.rows] == [
        ("pos", 1, "hub:nyu-mll/glue:sst2"), ("neg", 3, "hub:nyu-mll/glue:sst2")]
    assert [fault.code for fault in result.refused] == ["E1108"]
    assert result.digest == read_rows("hub:nyu-mll/glue:sst2", split="train", **PLAIN).digest


def test_the_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError) as caught:
        read_rows("hub:imdb", split="train", **PLAIN)
    assert (caught.value.code, caught.value.do) == ("E1121", "pip install 'treetune[hub]'")


@pytest.mark.parametrize("failure", [ValueError("Unknown split"), FileNotFoundError("no such data set")])
def test_what_the_hub_answers_is_passed_on(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    def load_dataset(*args: Any, **options: Any) -> None:
        raise failure

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(DataError) as caught:
        read_rows("hub:imdb", split="train", **PLAIN)
    assert (caught.value.code, caught.value.found) == ("E1122", str(failure))


# Refusals


def ragged(read_text: ReadText, good: int, bad: int) -> ReadResult:
    return read_text("text,label\n" + "a,b\n" * good + "a\n" * bad, "rows.csv")


def test_few_refusals_pass_and_many_stop(read_text: ReadText) -> None:
    stop_if_too_many(ragged(read_text, 95, 5), 0.05)
    with pytest.raises(DataError) as caught:
        stop_if_too_many(ragged(read_text, 88, 12), 0.05, Path("q.jsonl"))
    error = caught.value
    assert error.code == "E1120"
    assert "12 of 100 rows" in str(error)
    assert error.found.count("E1107") == 10
    assert "line 90: E1107" in error.found
    assert error.found.endswith("… +2")
    assert "q.jsonl" in str(error)
    assert error.allowed == "5.0%"


def test_no_row_left_always_stops(read_text: ReadText) -> None:
    with pytest.raises(DataError, match="E1120"):
        stop_if_too_many(ragged(read_text, 0, 3), 1.0)


def test_the_quarantine_lists_every_refusal(read_text: ReadText, tmp_path: Path) -> None:
    result = read_text(b'{"text": "ok"}\n{"text": "\\ud800"}\n{"text": "\xff"}\n{"text": "\x00"}\n')
    path = tmp_path / "run" / "quarantine.jsonl"
    write_quarantine(path, result.refused)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(line["line"], line["code"]) for line in lines] == [(2, "E1109"), (3, "E1106"), (4, "E1108")]
    assert lines[0] == {
        "file": str(tmp_path / "rows.jsonl"), "line": 2, "field": "text", "code": "E1109",
        "why": "the text holds half of a surrogate pair", "record": '{"text": "\\ud800"}',
    }
    write_quarantine(path, [])
    assert not path.exists()


def test_excerpts_are_short_and_printable() -> None:
    assert excerpt("a\x1b[31m\x00好\n") == "a\\x1b[31m\\x00好"
    assert excerpt("x" * 500) == "x" * 200 + "…"
    assert str(Refusal("f", 3, "text", "E1109", "why", "")) == "f, line 3, column 'text': E1109 why"


# What is packaged, and the real data sets


@pytest.mark.parametrize("task", ["sentiment", "question_answering"])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_packaged_rows_are_clean(task: str, split: str) -> None:
    result = read_rows(sample_path(task, split), split=split, **PLAIN)
    assert len(result.rows) == result.num_read > 0


def test_packaged_rows_that_do_not_exist() -> None:
    with pytest.raises(UsageError) as caught:
        sample_path("sentiment", "../train")
    assert caught.value.code == "E1123"
    assert "sentiment/train" in caught.value.allowed


def shared_data() -> Path:
    folder = Path(__file__).parents[3].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real data sets are not at {folder}")
    return folder


@pytest.mark.parametrize(("name", "columns"), [
    ("sentiment/sst3", ["text", "label"]), ("sentiment/waimai_10k", ["text", "label"]),
    ("qa/cmrc2018", ["context", "question", "answers", "answer_start"]),
    ("qa/squad_v11_dev", ["context", "question", "answers", "answer_start"]),
    ("translation/tatoeba_en_zh", ["source", "target"]), ("summarization/csl_title", ["document", "summary"]),
])
def test_real_data_sets_are_read_whole(name: str, columns: list[str]) -> None:
    folder = shared_data() / name
    result = read_rows(folder, split="validation", required=columns, **PLAIN)
    with gzip.open(folder / "validation.jsonl.gz") as handle:
        assert result.num_read == len(result.rows) == sum(1 for _ in handle)
    assert result.files == (str(folder / "validation.jsonl.gz"),)
    report = inspect({"validation": result.rows}, text_columns=columns[:2])
    assert report.splits["validation"].num_rows == result.num_read


def test_real_rows_with_other_names_get_ours() -> None:
    path = shared_data() / "fairness" / "bbq_age.jsonl.gz"
    result = read_rows(path, split="test", required=["context", "question"], **PLAIN)
    assert result.renamed == {"example_id": "id"}
