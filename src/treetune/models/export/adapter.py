"""The adapter alone, in peft's format, with the name and the digest of the base it belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from treetune.models.adapters import base_of, save_adapter
from treetune.models.export.plain import save_tokenizer
from treetune.models.load import LoadedModel

PACKAGES: tuple[str, ...] = ()
PRECISIONS = ("float32",)


def write(loaded: LoadedModel, window: int, precision: str, folder: Path) -> dict[str, Any]:
    """Adapter and tokenizer; the base is named as it was, a folder by the way to it from here."""
    folder.mkdir(parents=True)
    save_adapter(loaded.model, base_of(Path(loaded.name)), loaded.place, folder)
    save_tokenizer(loaded.tokenizer, window, folder)
    return {"base": loaded.model.peft_config["default"].base_model_name_or_path}
