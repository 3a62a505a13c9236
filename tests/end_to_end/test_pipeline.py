"""A run as transformers' pipelines know models: treetune's own answers, with their decisions."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import Dataset
from transformers import Pipeline, TextClassificationPipeline
from transformers.pipelines.pt_utils import KeyDataset

import treetune
from treetune.core.errors import DataError, UsageError
from treetune.data.sample import sample_path
from treetune.verbs import predict

Cli = Callable[..., Any]
RowsFile = Callable[[str, int], Path]
NAMES = {"sentiment": ("text-classification", "label"), "question_answering": ("question-answering", "answer"),
         "translation": ("translation", "translation_text"), "summarization": ("summarization", "summary_text")}
TEXTS = ["A warm and funny film.", "Dull from start to end.", "It runs for two hours."]


class Listed(Dataset[Any]):
    """A data set of torch, as pipelines stream them."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> Any:
        return self.rows[place]


@pytest.mark.parametrize("task", NAMES)
def test_answers_and_decisions_are_those_of_predict(
    runs: Callable[[str], Path], rows_file: RowsFile, task: str
) -> None:
    path = rows_file(task, 6)
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    own = predict(str(runs(task)), str(path))
    pipe = treetune.load(str(runs(task))).pipeline(batch_size=4)
    name, key = NAMES[task]
    assert isinstance(pipe, Pipeline)
    assert pipe.task == name
    made = pipe(rows)
    assert [each[key] for each in made] == [each.answer for each in own]
    assert [each["score"] for each in made] == pytest.approx([each.scores["probability"] for each in own], abs=1e-6)
    assert [each["decision"]["verdict"] for each in made] == [each.decision.verdict for each in own if each.decision]
    assert [[reason["code"] for reason in each["decision"]["reasons"]] for each in made] == [
        [reason.code for reason in each.decision.reasons] for each in own if each.decision]
    alone = pipe(rows[0])
    assert isinstance(alone, list) == (task in ("translation", "summarization"))  # as the pipelines of old did
    first = alone[0] if isinstance(alone, list) else alone
    assert (first[key], first["score"]) == (made[0][key], pytest.approx(made[0]["score"], abs=1e-6))
    assert [each[key] for each in pipe(Listed(rows))] == [each[key] for each in made]
    assert [each[key] for each in pipe(row for row in rows)] == [each[key] for each in made]
    assert pipe([]) == []


@pytest.mark.parametrize(("kind", "task"), [
    ("bert", "sentiment"), ("bert", "question_answering"), ("t5", "sentiment"), ("t5", "question_answering")])
def test_other_families_answer_as_predict_does(
    tune_words: Callable[..., list[str]], family_folder: Callable[..., Path], rows_file: RowsFile, cli: Cli,
    tmp_path: Path, kind: str, task: str,
) -> None:
    assert cli(*tune_words(task, tmp_path / "run", model=family_folder(kind, 256), max_steps=1)).code == 0
    path = rows_file(task, 3)
    own = predict(str(tmp_path / "run"), str(path))
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    made = treetune.load(str(tmp_path / "run")).pipeline()(rows)
    assert [each[NAMES[task][1]] for each in made] == [each.answer for each in own]
    assert [each["score"] for each in made] == pytest.approx([each.scores["probability"] for each in own], abs=1e-6)


def test_labels_fit_the_pipeline_transformers_has_for_them(runs: Callable[[str], Path]) -> None:
    model = treetune.load(str(runs("sentiment")))
    pipe = model.pipeline()
    assert isinstance(pipe, TextClassificationPipeline)
    assert "TextClassification" in repr(pipe) or "LabelPipeline" in repr(pipe)
    [one] = pipe(TEXTS[0])  # a text alone gives a list, as theirs does
    assert set(one) == {"label", "score", "decision"}
    probabilities = dict(zip(model.classes_, model.predict_proba(TEXTS[:1])[0], strict=True))
    every = pipe(TEXTS[0], top_k=None)
    assert {each["label"]: each["score"] for each in every} == pytest.approx(probabilities, abs=1e-6)
    assert [each["score"] for each in every] == sorted((each["score"] for each in every), reverse=True)
    assert [set(each) for each in every] == [{"label", "score", "decision"}, {"label", "score"}, {"label", "score"}]
    assert every[0] == one
    assert model.pipeline(top_k=2)(TEXTS) == [each[:2] for each in pipe(TEXTS, top_k=None)]
    rows = [{"text": text} for text in TEXTS]
    assert list(pipe(KeyDataset(Listed(rows), "text"))) == pipe(TEXTS) == pipe.predict(TEXTS)


def test_the_gate_decides_and_decisions_are_kept_on_request(
    runs: Callable[[str], Path], cli: Cli, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs("sentiment"), run)
    assert cli("gate", run, "--data", sample_path("sentiment", "test"), "--max-error", 0.001, "--confidence",
               0.99).code == 4
    made = treetune.load(str(run)).pipeline()(TEXTS)
    assert {each["decision"]["verdict"] for each in made} == {"review"}
    assert all(each["decision"]["reasons"][0]["text"] and each["decision"]["guarantee"] for each in made)
    assert not (run / "trust" / "queue.jsonl").exists()
    treetune.load(str(run), record=True).pipeline()(TEXTS)
    assert len((run / "trust" / "queue.jsonl").read_text("utf-8").splitlines()) == 3


def test_rows_are_answered_while_they_come(runs: Callable[[str], Path]) -> None:
    pipe = treetune.load(str(runs("sentiment"))).pipeline(batch_size=2)
    taken: list[str] = []

    def coming() -> Iterator[str]:
        for text in TEXTS:
            taken.append(text)
            yield text

    answers = pipe(coming())
    next(iter(answers))
    assert len(taken) == 2
    assert len(pipe(Listed(TEXTS))) == 3


def test_a_tokenizer_without_padding_will_do(runs: Callable[[str], Path]) -> None:
    pipe = treetune.load(str(runs("sentiment"))).pipeline()
    expected = pipe(TEXTS)
    pipe.tokenizer.pad_token = None
    assert pipe(TEXTS) == expected


def test_what_would_change_answers_is_refused_with_a_code(runs: Callable[[str], Path], tmp_path: Path) -> None:
    labels, questions = (treetune.load(str(runs(task))) for task in ("sentiment", "question_answering"))
    for call in (lambda: labels.pipeline(device=0), lambda: labels.pipeline()(TEXTS, truncation=True),
                 lambda: questions.pipeline()({"context": "a", "question": "b"}, top_k=2)):
        with pytest.raises(UsageError, match="E2065"):
            call()
    for call in (lambda: labels.pipeline().save_pretrained(tmp_path / "out"),
                 lambda: labels.pipeline().push_to_hub("someone/something")):
        with pytest.raises(UsageError, match="E2066"):
            call()
    assert not (tmp_path / "out").exists()
    for rows in ("Where is Paris?", [{"role": "user", "content": "Where is Paris?"}]):
        with pytest.raises(DataError, match="E1208"):
            questions.pipeline()(rows)
    with pytest.raises(DataError, match="E1208"):
        labels.pipeline()({"text": "a", "text_pair": "b"})
    with pytest.raises(DataError, match=r"E1202[\s\S]*line 3"):
        labels.pipeline(batch_size=2)(["a", "b", "", "c"])


def test_the_programs_of_the_page_run(runs: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "pipelines.md").read_text("utf-8")
    programs = re.findall(r"^```python\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    assert len(programs) == 2
    for program in programs:
        exec(compile(program.replace("runs/a", str(runs("sentiment"))), "pipelines.md", "exec"), {})
    assert "ungated" in capsys.readouterr().out
