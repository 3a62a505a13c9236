"""The shipped base's card: every source with its licence, the measured numbers, and no card for other weights."""

import hashlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
SOURCE = "pretrain/common_voice_en.txt.xz"


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("recipes_card", ROOT / "recipes" / "card.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """What pretraining leaves, with three bytes for weights, and results.json of the same weights."""
    model = tmp_path / "run" / "model"
    model.mkdir(parents=True)
    for name in ("generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        (model / name).write_text("{}", "utf-8")
    (model / "model.safetensors").write_bytes(b"abc")
    (model / "config.json").write_text(json.dumps({"n_layer": 4, "n_embd": 192, "n_head": 3, "n_positions": 512,
                                                   "attention_band": 128, "vocab_size": 8192}), "utf-8")
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump({
        "torch_threads": 1, "num_train_epochs": 1.0, "optim": "muon", "learning_rate": 0.004, "seed": 0,
        "lr_scheduler_type": "linear", "held_out_tokens": 20000}), "utf-8")
    (tmp_path / "run" / "pretraining.json").write_text(json.dumps({
        "parameters": 3451008, "tokens_seen": 1000, "seconds": 7200, "stages_before": [{"tokens_seen": 500}],
        "training_tokens_by_source": {SOURCE: {"tokens": 1234, "passes": 1.64}},
        "sources_sha256": {SOURCE: "d78857f459b3ffff"}}), "utf-8")
    write_results(tmp_path)
    return tmp_path / "run"


def write_results(folder: Path, **changes: Any) -> None:
    row = {"kind": "temperature 1, prompted", "texts": 140, "characters": {"median": 21.0, "max": 77},
           "words": {"median": 4.0, "max": 15}, "share_over_50_characters": 0.025}
    values = {
        "weights_sha256": hashlib.sha256(b"abc").hexdigest(), "all": {"base": 1.5, "ngram": 2.25}, "ngram_order": 5,
        "sources": [{"source": SOURCE, "bytes": 4000, "bits_per_byte": {"base": 1.777}}], "notes": ["A note."],
        "compute": {"flops_6nd": 2e13, "flops_with_attention": 3e13, "hours": 2.0, "assumed_watts": [20, 60],
                    "kwh": [0.04, 0.12]},
        "memorisation": {"prompt_tokens": 128, "new_tokens": 192, "rows": [row]}, **changes}
    (folder / "results.json").write_text(json.dumps(values), "utf-8")


def write_card(script: Any, run_folder: Path, patch: pytest.MonkeyPatch) -> Path:
    into = run_folder.parent / "into"
    patch.setattr(sys, "argv", ["card.py", str(run_folder), "--into", str(into),
                                "--results", str(run_folder.parent / "results.json")])
    script.main()
    return into


def test_model_files_records_and_a_card_with_the_measured_numbers(
    script: Any, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    into = write_card(script, run_folder, monkeypatch)
    assert {path.name for path in into.iterdir()} == {*script.FILES, "pretraining.json", "README.md"}
    assert (into / "model.safetensors").read_bytes() == b"abc"
    text = (into / "README.md").read_text("utf-8")
    assert f"| `{SOURCE}` | 1,234 | 1.64 | 1.777 | CC0 (Common Voice sentences) | `d78857f459b3` |" in text
    assert "2.00e+13 FLOPs by 6ND, 3.00e+13 with attention; 2.00 hours on one CPU core" in text
    assert "| training tokens | 1,500 (500 + 1,000, a stage each;" in text
    assert "0.040 to 0.120 kWh" in text
    assert "| temperature 1, prompted | 140 | 21 | 77 | 4 | 15 | 2.5% |" in text
    assert text.startswith("---\nlicense: cc-by-sa-4.0\n")


@pytest.mark.parametrize(("changes", "reason"), [({"weights_sha256": "0" * 64}, "other weights"),
                                                 ({"compute": None}, "no compute")])
def test_results_that_do_not_fit_write_nothing(
    script: Any, run_folder: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], reason: str
) -> None:
    write_results(run_folder.parent, **changes)
    with pytest.raises(SystemExit, match=reason):
        write_card(script, run_folder, monkeypatch)
    assert not (run_folder.parent / "into").exists()


def test_a_size_search_is_told_where_it_was_for_this_base_only(script: Any, run_folder: Path) -> None:
    record = json.loads((run_folder / "pretraining.json").read_text("utf-8"))
    fits = {key: {"bases": {"first_stage": {"predicted": predicted}},
                  "budgets": [{"flops": 1e13, "size": 9e6},
                              {"flops": 3.1e10, "size": size, "size_interval": [size / 4, size * 4], "beyond": 11.2}]}
            for key, size, predicted in (("recipe_rate", 0.9e6, 1.71), ("better_rate", 2.5e6, 1.836),
                                         ("with_first_stage", 1.5e6, 1.8))}
    search = {"runs": {name: {"parameters": size} for name, size in (("a", 660_000), ("b", 6_180_000))},
              "shipped": {"parameters": 3451008, "tokens": 1500, "flops": 3.1e10, "bits_per_byte": 1.654},
              "first_stage": {"bits_per_byte": 1.8}, "fit": {"fits": fits}}
    told = " ".join(script.size(search, record).split())
    assert "2 short runs of 0.66 to 6.18 million parameters" in told
    assert "0.9 to 2.5 million parameters" in told
    assert "(90 % intervals: 0.225 to 10)" in told
    assert "None puts it above" in told
    assert "miss its loss by -5.0 % and +2.0 %" in told
    assert "11 times the compute" in told
    assert script.size({**search, "shipped": {**search["shipped"], "tokens": 1400}}, record) == ""
    assert script.size(None, record) == ""


def test_every_source_of_the_recipe_has_a_licence(script: Any) -> None:
    recipe = yaml.safe_load((ROOT / "recipes" / "base.yaml").read_text("utf-8"))
    assert {source["path"] for source in recipe["data"]} == set(script.LICENCES)


def test_both_stages_read_the_same_sources_in_the_same_shares_with_the_same_split() -> None:
    first, second = (yaml.safe_load((ROOT / "recipes" / f"{name}.yaml").read_text("utf-8"))
                     for name in ("base", "base_more"))
    assert second["init_from"] == f"{first['output_dir']}/model"
    for name in ("data", "seed", "held_out_tokens", "n_positions"):
        assert second[name] == first[name], name
