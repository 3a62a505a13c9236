"""prediction.py at its smallest, treetune only, and how answers are compared."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.usefixtures("benchmark_module")  # the scripts can be imported


@pytest.fixture
def prediction(monkeypatch: pytest.MonkeyPatch, benchmark_module: Any) -> Iterator[Any]:
    """The script, its children run in this process."""
    script = benchmark_module("prediction")
    monkeypatch.setattr(script, "run_child", lambda name, job, timeout=0.0: script.work(job))
    monkeypatch.setattr(script, "has_peer", lambda module: False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield script
    torch.set_num_threads(threads)


def measured(script: Any, patch: pytest.MonkeyPatch, folder: Path, *words: str) -> dict[str, Any]:
    common = ["--shape", "tiny", "--count", "3", "--repeats", "1", "--threads", "1", "--results", str(folder)]
    patch.setattr(sys, "argv", ["prediction.py", *common, *words])
    script.main()
    (section,) = json.loads((folder / "prediction.json").read_text("utf-8")).values()
    assert "treetune" in (folder / "prediction.md").read_text("utf-8")
    return dict(section)


def test_labels_are_scored_and_a_missing_peer_is_named(
    prediction: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    section = measured(prediction, monkeypatch, tmp_path, "--rows", "sample/sentiment",
                       "--systems", "treetune", "harness-8")
    assert "lm_eval: left out, it is not installed" in capsys.readouterr().out
    assert list(section["systems"]) == ["treetune"]
    assert section["systems"]["treetune"]["seconds"] > 0


def test_generated_answers_agree_with_plain_generate_or_the_difference_is_explained(
    prediction: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    section = measured(prediction, monkeypatch, tmp_path, "--rows", "sample/question_answering",
                       "--systems", "treetune", "generate-2")
    found = section["compared"]["generate-2"]
    assert found["equal"] == pytest.approx(1 - len(found["differences"]) / 3)
    assert all(each["gap"] < 1e-3 for each in found["differences"])


def test_an_explanation_finds_the_first_other_token(prediction: Any, tmp_path: Path) -> None:
    job = {"shape": "tiny", "rows": "sample/question_answering", "model": str(tmp_path / "model"), "count": 1}
    prediction.work({**job, "do": "prepare"})
    theirs = prediction.work({**job, "do": "predict", "system": "generate-1"})
    ids = theirs["ids"][0]
    from transformers import AutoTokenizer

    ours = AutoTokenizer.from_pretrained(tmp_path / "model").decode(ids[:3]) + "something else"
    (found,) = prediction.work({**job, "do": "explain", "ours": {"0": ours}, "theirs": {"0": ids}})["differences"]
    assert (found["row"], found["token"]) == (0, 4)
    assert found["gap"] > 0


def test_a_label_that_differs_is_counted(prediction: Any) -> None:
    ours = {"answers": ["a", "b"], "probability": [[0.6, 0.4], [0.4, 0.6]]}
    theirs = {"answers": ["a", "a"], "probability": [[0.6, 0.4], [0.55, 0.45]]}
    found = prediction.compare(ours, theirs, {})
    assert found["equal"] == 0.5
    assert found["largest_difference"] == pytest.approx(0.15)
    assert [each["row"] for each in found["differences"]] == [1]


def test_the_fastest_setting_of_each_peer_goes_on_and_the_default_of_the_pipeline(prediction: Any) -> None:
    seconds = {"treetune": 1.0, "pipeline-1": 9.0, "pipeline-8": 4.0, "harness-8": 5.0, "harness-own-8": 3.0,
               "harness-1": 7.0}
    runs = {name: [{"seconds": value}] for name, value in seconds.items()}
    assert prediction.finalists(runs) == ["treetune", "pipeline-1", "pipeline-8", "harness-8", "harness-own-8"]
