"""The model card: front matter the hub can read, no row and no private path, text that stays text."""

from typing import Any

import pytest
import yaml

from treetune.report.card import model_card

ATTACK = "<script>alert(1)</script>"


def parts_of(card: str) -> tuple[dict[str, Any], str]:
    _, header, body = card.split("---\n", 2)
    return yaml.safe_load(header), body


def test_the_front_matter_names_base_model_task_languages_and_metrics(record: dict[str, Any]) -> None:
    header, _ = parts_of(model_card(record))
    assert header["base_model"] == "gpt3"
    assert header["library_name"] == "transformers"
    assert header["tags"] == ["treetune", "sentiment"]
    assert header["language"] == ["en", "zh"]
    assert header["metrics"] == ["accuracy", "macro_f1"]
    result = header["model-index"][0]["results"][0]
    assert result["task"] == {"type": "text-classification"}
    assert result["metrics"][0] == {"type": "accuracy", "value": 0.84, "name": "accuracy"}


def test_the_text_has_quality_limits_and_the_command(record: dict[str, Any]) -> None:
    _, body = parts_of(model_card(record))
    for expected in ["# sentiment with gpt3", "## Quality", "## Limits", "## How to reproduce",
                     "    treetune tune runs/a/config.yaml", "0.840", "60.0 %"]:
        assert expected in body, expected


def test_no_row_and_no_folder_of_this_machine_is_told(record: dict[str, Any]) -> None:
    card = model_card(record | {"model": "/home/someone/models/mine"})
    assert "Review 1" not in card
    assert "/home/someone" not in card
    assert "base_model" not in parts_of(card)[0]
    assert "mine" in card


@pytest.mark.parametrize("attack", [ATTACK, "x\n---\nlicense: mit", "a: b\n# title", "| a | b |", "[x](y)"])
def test_names_stay_text_in_the_header_and_in_the_body(record: dict[str, Any], attack: str) -> None:
    record["evaluation"]["data"] = attack
    record["evaluation"]["scores"][attack] = record["evaluation"]["scores"]["tuned"]
    record |= {"model": attack, "created": attack}
    header, body = parts_of(model_card(record))
    assert "license" not in header
    assert "<script>" not in body
    assert "\n# title" not in body
    assert "[x](y)" not in body
    tables = [line for line in body.splitlines() if line.startswith("| ")]
    assert {line.replace("\\|", "").count("|") for line in tables} == {4}


def test_a_record_without_measurements_works() -> None:
    header, body = parts_of(model_card({"task": "translation", "model": "owner/name"}))
    assert header["base_model"] == "owner/name"
    assert "metrics" not in header
    assert "not there yet" in body
    assert model_card({})


def test_a_value_that_is_no_number_is_not_told_to_the_hub(record: dict[str, Any]) -> None:
    record["evaluation"]["scores"]["tuned"][0]["value"] = float("nan")
    header, _ = parts_of(model_card(record))
    assert [one["type"] for one in header["model-index"][0]["results"][0]["metrics"]] == ["macro_f1"]
