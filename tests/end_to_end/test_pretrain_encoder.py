"""Going on with an encoder on the user's own text: better at it afterwards, resumable, and a base to tune from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from treetune.core.settings import PretrainSettings
from treetune.models.load import load_model
from treetune.workflow.pretrain import pretrain

Folder = Callable[..., Path]
WORDS = ["the mill stands by the river", "a red boat waits at the quay", "der Fluss ist breit und still",
         "nobody knows when the boat leaves", "the miller counts his sacks at night"]


class Stop(Exception):
    """What the test raises to cut a run off."""


def settings_for(folder: Path, text: Path, output: Path) -> PretrainSettings:
    return PretrainSettings(
        output_dir=str(output), data=[{"path": str(text), "share": 1}], init_from=str(folder), total_tokens=6000,
        held_out_tokens=300, n_positions=64, per_device_train_batch_size=8, max_steps=30, save_steps=15,
        learning_rate=3e-3, torch_threads=1)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(f"{WORDS[n % 5]} and {WORDS[(n * 7 + n // 5) % 5]}" for n in range(400)), "utf-8")
    return path


def test_an_encoder_is_better_at_held_out_hidden_words_afterwards_and_a_cut_run_ends_the_same(
    family_folder: Folder, text: Path, tmp_path: Path
) -> None:
    folder = family_folder("bert")
    record = pretrain(settings_for(folder, text, tmp_path / "whole"), lambda event: None)
    [path] = record["held_out_masked"]
    before, after = record["held_out_masked_before"][path], record["held_out_masked"][path]
    assert before["tokens"] == after["tokens"] > 20
    assert after["loss"] < 0.7 * before["loss"]
    assert record["layout"] == "packed"
    assert json.loads((tmp_path / "whole" / "pretraining.json").read_text("utf-8"))["held_out_masked"][path] == after

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "checkpoint" and event["step"] == 15:
            raise Stop

    with pytest.raises(Stop):
        pretrain(settings_for(folder, text, tmp_path / "cut"), stop)
    pretrain(settings_for(folder, text, tmp_path / "cut"), lambda event: None)
    whole, cut = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "cut"))
    assert whole == cut
    assert load_model(str(tmp_path / "whole" / "model"), head="classes", labels=("a", "b")).model.num_labels == 2


def test_the_command_takes_an_encoder_and_refuses_one_without_a_head_for_words(
    family_folder: Folder, text: Path, cli: Callable[..., Any], tmp_path: Path
) -> None:
    loaded = load_model(str(family_folder("bert")), head="classes", labels=("a", "b"))
    loaded.model.save_pretrained(tmp_path / "labels")
    loaded.tokenizer.save_pretrained(tmp_path / "labels")
    for place, code in ((family_folder("roberta"), 0), (tmp_path / "labels", 2)):
        values = settings_for(place, text, tmp_path / place.name / "run").model_dump() | {"max_steps": 2}
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(values), "utf-8")
        asked = cli("pretrain", tmp_path / "run.yaml", "--json")
        assert asked.code == code, asked.err
        assert ("E3009" in asked.err) == (code == 2)
