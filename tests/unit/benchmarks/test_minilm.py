"""The encoder benchmark on a tiny encoder: two-way rows lack the neutral ones, figures carry intervals."""

import gzip
import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("benchmark_module")  # the scripts can be imported
LABELS = ("positive", "negative", "neutral")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family_folder: Callable[..., Path]) -> Path:
    import minilm

    folder = tmp_path / "data" / "sentiment" / "sst3"
    folder.mkdir(parents=True)
    for split, count in (("train", 42), ("validation", 12)):
        with gzip.open(folder / f"{split}.jsonl.gz", "wt", encoding="utf-8") as lines:
            for number in range(count):
                lines.write(json.dumps({"text": f"{split} film {number}", "label": LABELS[number % 3]}) + "\n")
    monkeypatch.setattr(minilm, "DATA", tmp_path / "data")
    monkeypatch.setattr(minilm, "COMMON", {**minilm.COMMON, "model": str(family_folder("bert"))})
    tiny: dict[str, Any] = {"task": "sentiment", "num_train_epochs": 1, "max_steps": 2,
                            "per_device_train_batch_size": 4, "max_length": 32}
    monkeypatch.setattr(minilm, "SETTINGS", {"sentiment_two_way": tiny, "sentiment_three_way": tiny})
    return tmp_path


@pytest.mark.parametrize(("name", "rows", "labels"), [("sentiment_two_way", 8, 2), ("sentiment_three_way", 12, 3)])
def test_a_measurement_says_what_was_measured(data: Path, name: str, rows: int, labels: int) -> None:
    import minilm

    found = minilm.measure(name, data / "runs", Namespace(threads=1, rows=0, minutes=1.0))
    assert (found["rows"], found["set"]) == (rows, "sentiment/sst3")
    assert [stage["steps"] for stage in found["stages"]] == [2]
    assert {"tuned", "base", "majority"} == set(found["systems"])
    score = found["systems"]["tuned"][0]
    assert score["metric"] == "accuracy"
    assert score["low"] <= score["value"] <= score["high"]
    facts = json.loads((data / "runs" / name / "model" / "treetune.json").read_text("utf-8"))
    assert len(facts["labels"]) == labels
    assert "| tuned | accuracy |" in minilm.page({name: found})
    json.dumps(found)
