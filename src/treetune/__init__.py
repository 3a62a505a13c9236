"""treetune: fine-tune a language model for your task, and know when its answers can be trusted.

Layers, top to bottom; a file imports only from lower ones, folders of one layer not from each other:

    cli, verbs > serve > workflow > train > predict, explain > models, evaluate, decide, audit, report > tasks
    > data, metrics, plan, trees > core

Importing this package loads no torch; names below are loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from treetune.core.version import __version__

_HOMES = {
    "GPT3Config": "treetune.models.gpt3",
    "GPT3LMHeadModel": "treetune.models.gpt3",
    "GPT3Tokenizer": "treetune.models.gpt3",
    "GPT3TokenizerFast": "treetune.models.gpt3",
    "check": "treetune.verbs",
    "gate": "treetune.verbs",
    "load": "treetune.verbs",
    "open_run": "treetune.workflow.run",
    "pretrain": "treetune.verbs",
    "review": "treetune.verbs",
    "tune": "treetune.verbs",
}

__all__ = [
    "GPT3Config", "GPT3LMHeadModel", "GPT3Tokenizer", "GPT3TokenizerFast", "__version__", "check", "gate",
    "load", "open_run", "pretrain", "review", "tune",
]

if TYPE_CHECKING:
    from treetune.models.gpt3 import GPT3Config, GPT3LMHeadModel, GPT3Tokenizer, GPT3TokenizerFast
    from treetune.verbs import check, gate, load, pretrain, tune
    from treetune.workflow.run import open_run


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'treetune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
