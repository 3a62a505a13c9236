"""The search for the base's size: its runs are those of `treetune pretrain`, are made once, and are shown whole."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from treetune.core.settings import PretrainSettings, read_settings
from treetune.models.gpt3 import train_tokenizer
from treetune.workflow.pretrain import pretrain

TEXT = [f"The {color} {animal} sleeps in house number {number}.\n" for number in range(40)
        for color in ("red", "blue", "old") for animal in ("cat", "dog", "bird")]


@pytest.fixture
def bench(benchmark_module: Any) -> Any:
    return benchmark_module("size_search")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe over one small text, and the folder of a tokenizer beside it."""
    (tmp_path / "text.txt").write_text("".join(TEXT), "utf-8")
    train_tokenizer(TEXT, 320, 32).save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({
        "output_dir": "unused", "n_positions": 32, "attention_band": 16, "total_tokens": 900, "num_train_epochs": 1,
        "per_device_train_batch_size": 8, "optim": "muon", "learning_rate": 0.004, "weight_decay": 0.05,
        "torch_threads": 1, "held_out_tokens": 300, "data": [{"path": "text.txt", "share": 1}]}), "utf-8")
    return tmp_path / "recipe.yaml"


def test_a_run_ends_where_pretraining_ends(bench: Any, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "EVERY", 1)
    folder = recipe.parent
    material = bench.Material(recipe, folder, folder / "tokenizer")
    found = bench.train(bench.Run(bench.Shape(2, 16, 2), 900), material)
    record = pretrain(read_settings(PretrainSettings, recipe, {
        "output_dir": str(folder / "run"), "data_root": str(folder), "tokenizer": str(folder / "tokenizer"),
        "n_layer": 2, "n_embd": 16, "n_head": 2, "bf16": True}), lambda event: None)
    assert found["tokens"] == record["tokens_seen"]
    assert found["parameters"] == record["parameters"]
    assert found["bits_per_byte"] == pytest.approx(record["held_out_bits_per_byte"]["text.txt"], rel=1e-9)


def test_another_vocabulary_is_scored_on_the_same_bytes(bench: Any, recipe: Path) -> None:
    material = bench.Material(recipe, recipe.parent, recipe.parent / "tokenizer")
    from base_model import Spelling

    spelt = [b"".join(Spelling(material.tokenizer(vocabulary)).text(block.completion_ids)
                      for block in material.held_out(vocabulary)) for vocabulary in (bench.VOCABULARY, 300)]
    assert spelt[0] == spelt[1]
    assert len(spelt[0]) == material.num_bytes()


def test_names_of_runs_are_their_own(bench: Any) -> None:
    assert len({run.name for run in bench.RUNS}) == len(bench.RUNS)


def measured(bench: Any, run: Any) -> dict[str, Any]:
    """A made-up outcome of a run."""
    size = 8192 * run.shape.width + 12 * run.shape.layers * run.shape.width**2
    return {"layers": run.shape.layers, "width": run.shape.width, "heads": run.shape.heads, "part": run.part,
            "optim": run.optim, "learning_rate": run.learning_rate, "vocabulary": run.vocabulary, "parameters": size,
            "in_blocks": 12 * run.shape.layers * run.shape.width**2, "tokens": run.tokens, "steps": 10, "seconds": 2.0,
            "processor_seconds": 1.0, "most_passes": 1,
            "bits_per_byte": bench.Law(1.0, 0.5 * 1e6**0.4, 0.4, 0.9 * 1e6**0.35, 0.35).loss(size, run.tokens)}


class NoMaterial:
    """Stands in for the texts where nothing is trained."""

    def __init__(self, *places: Path) -> None:
        pass

    def num_bytes(self) -> int:
        return 1000

    def held_out(self, vocabulary: int) -> list[int]:
        return [vocabulary]


@pytest.fixture
def searched(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A search whose runs are made up; those that were trained are in ``trained``."""
    trained: list[str] = []

    def train(run: Any, material: Any) -> dict[str, Any]:
        trained.append(run.name)
        return measured(bench, run)

    shipped = {"parameters": 3_451_008, "tokens": 25_950_055, "flops": 6 * 3_451_008 * 25_950_055, "most_passes": 3.89,
               "bits_per_byte": 1.6}
    monkeypatch.setattr(bench, "Material", NoMaterial)
    monkeypatch.setattr(bench, "base_in", lambda place, material: shipped)
    monkeypatch.setattr(bench, "forecast", lambda runs, material: [600.0 if run.shape == bench.LARGE else 1.0
                                                                  for run in runs])
    monkeypatch.setattr(bench, "train", train)
    monkeypatch.setattr(bench, "DRAWS", 2)
    return {"trained": trained, "kept": bench.search(bench.RUNS, 5, {}, tmp_path, tmp_path)}


def test_a_run_that_is_done_is_not_run_again_and_one_too_long_is_left_out(
    bench: Any, capsys: pytest.CaptureFixture[str], searched: dict[str, Any], tmp_path: Path
) -> None:
    large = [run.name for run in bench.RUNS if run.shape == bench.LARGE]
    assert searched["trained"] == [run.name for run in bench.RUNS if run.name not in large]
    assert f"left out for want of time: {large[0]}" in capsys.readouterr().out
    kept = json.loads((tmp_path / "size_search.json").read_text("utf-8"))
    searched["trained"].clear()
    bench.search(bench.RUNS, 60, kept, tmp_path)
    assert searched["trained"] == large


def test_the_better_rate_is_taken_where_two_were_tried(bench: Any) -> None:
    runs = {run.name: measured(bench, run) for run in (
        bench.Run(bench.TINY, 600_000), bench.Run(bench.TINY, 600_000, learning_rate=0.008),
        bench.Run(bench.TINY, 600_000, optim="adamw"), bench.Run(bench.SMALL, 600_000))}
    runs["2x64, 0.6M tokens, rate 0.008"]["bits_per_byte"] = 1.0
    runs["2x64, 0.6M tokens, adamw"]["bits_per_byte"] = 0.5
    plain, better = (bench.grid_runs({"runs": runs}, kind) for kind in (False, True))
    assert [run["learning_rate"] for run in plain] == [0.004, 0.004]
    assert [run["bits_per_byte"] for run in better] == [1.0]


def test_runs_of_another_recipe_are_refused(bench: Any, searched: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"of another base\.yaml"):
        bench.search(bench.RUNS, 5, searched["kept"] | {"recipe_sha256": "other"}, tmp_path)


def test_the_page_and_the_plot_show_the_check_and_the_shipped_base(
    bench: Any, searched: dict[str, Any], tmp_path: Path
) -> None:
    kept = searched["kept"]
    assert "The law" not in bench.report(kept)
    kept["fit"] = bench.fitted(kept)
    assert {check["runs"] for check in kept["fit"]["foretold"]} == {11, 7}
    for check in kept["fit"]["foretold"]:
        if check["size"] == "parameters":
            assert check["predicted"] == pytest.approx(check["measured"], rel=1e-3)
    page = bench.report(json.loads(json.dumps(kept)))
    assert "5.37e+14 (shipped base)" in page
    assert "| first stage | 3,451,008 | 25,950,055 | 5.37e+14 | better rate |" in page
    fits = kept["fit"]["fits"]
    assert [fits[key]["runs"] for key in ("recipe_rate", "better_rate", "with_first_stage")] == [13, 9, 10]
    assert "What this cannot tell" in page
    assert "adamw" in page
    bench.draw(kept, tmp_path / "size_search.svg")
    assert (tmp_path / "size_search.svg").read_text("utf-8").startswith("<?xml")
