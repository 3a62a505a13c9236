"""Safetensors in Hugging Face layout: adapters merged into their base, GPT-3 written as GPT-2 where that is exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from treetune.models.export.plain import is_gpt3, plain_model, save_plain, why_not_gpt2
from treetune.models.load import LoadedModel, load_model

PACKAGES: tuple[str, ...] = ()
PRECISIONS = ("float32",)


def write(loaded: LoadedModel, window: int, precision: str, folder: Path) -> dict[str, Any]:
    """The plain model; what it is called there, and whether transformers needs treetune to open it."""
    model = plain_model(loaded.model, window)
    save_plain(model, loaded.tokenizer, window, folder)
    own = is_gpt3(model)
    return {"architecture": model.config.model_type, "needs_treetune": own,
            "reason": why_not_gpt2(model.config, window) if own else ""}


def read(folder: Path, loaded: LoadedModel, precision: str) -> LoadedModel:
    """The exported form through transformers."""
    labels = [name for _, name in sorted(loaded.model.config.id2label.items())] if loaded.head == "classes" else ()
    return load_model(str(folder), head=loaded.head, labels=labels)
