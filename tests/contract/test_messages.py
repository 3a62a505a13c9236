"""The Chinese catalog: a text for every message of the source, with the same placeholders."""

import importlib.util
import json
import string
from pathlib import Path
from types import ModuleType

import pytest

from treetune.core.language import catalog


def load_messages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("messages_of_the_source", Path(__file__).parent / "messages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SOURCE = Path(__file__).parents[2] / "src" / "treetune"
IDS: dict[str, str] = load_messages().message_ids()


def placeholders(text: str) -> set[str]:
    return {name.split(".")[0].split("[")[0] for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_no_message_stands_in_two_files() -> None:
    seen: dict[str, str] = {}
    for path in sorted((SOURCE / "core" / "zh").glob("*.json")):
        for text in json.loads(path.read_text(encoding="utf-8")):
            assert text not in seen, f"{text!r} stands in {seen[text]} and {path.name}"
            seen[text] = path.name


def test_the_source_has_messages() -> None:
    assert len(IDS) > 100


@pytest.mark.parametrize("text", sorted(IDS))
def test_every_message_is_there_in_chinese_with_the_same_placeholders(text: str) -> None:
    assert text in catalog("zh"), f"{IDS[text]}: {text!r} has no entry in core/zh/"
    assert placeholders(catalog("zh")[text]) == placeholders(text)
