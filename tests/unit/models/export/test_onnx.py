"""ONNX: the label head's logits for rows of lengths that were never traced."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from treetune.models.load import load_model

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from treetune.models.export import onnx as form


@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert"])
def test_logits_are_the_models_at_any_length(kind: str, family_folder: Callable[..., Path], tmp_path: Path) -> None:
    loaded = load_model(str(family_folder(kind)), head="classes", labels=("a", "b", "c"))
    written = form.write(loaded, 60, "float32", tmp_path / "out")
    opened = form.read(tmp_path / "out", loaded, "float32")
    assert opened.window == 60
    assert dict(opened.model.config.id2label) == {0: "a", 1: "b", 2: "c"}
    for length in (3, 11, 40):
        ids = torch.randint(5, 300, (3, length), generator=torch.Generator().manual_seed(length))
        given: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        given["attention_mask"][1, length - 2 :] = 0
        if "token_type_ids" in written["inputs"]:
            given["token_type_ids"] = torch.zeros_like(ids)
        with torch.no_grad():
            truth = loaded.model(**given).logits
        torch.testing.assert_close(opened.model(**given).logits, truth, atol=1e-4, rtol=1e-4)
