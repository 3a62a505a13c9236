"""The base model that ships in the package, under the name ``gpt3``. It needs no network."""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path
from typing import Any

from treetune.core.errors import ModelError
from treetune.core.language import say

NAME = "gpt3"
_told = False


def folder() -> Path:
    """Where the shipped model lies, in Hugging Face layout."""
    return Path(str(resources.files("treetune.models.embedded"))) / "gpt3"


def resolve(name_or_path: Any) -> Any:
    """The shipped folder for ``'gpt3'``, anything else unchanged; says once what the shipped model is.

    Raises:
        ModelError: E3001 when the package was installed without its model.
    """
    if str(name_or_path) != NAME:
        return name_or_path
    if not (folder() / "config.json").is_file():
        raise ModelError("E3001", "the shipped base model is missing from this installation", where=str(folder()),
                         do="install treetune again, or name another model")
    _tell_once()
    return str(folder())


def _tell_once() -> None:
    global _told
    if not _told:
        _told = True
        message = say(
            "'gpt3' is treetune's own small model of the GPT-3 architecture. "
            "OpenAI never published GPT-3's weights; expect a small model's answers."
        )
        print(message, file=sys.stderr)
