"""English and Chinese: ``say`` looks a message up in the catalog of the chosen language and fills it.

The message id is the English template itself, so English needs no catalog; the files of ``zh/``, one a folder of
the source, map it to Chinese. A contract test holds the catalog complete.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import resources

LANGUAGES = ("en", "zh")
_chosen = ""
_asked: ContextVar[str] = ContextVar("language", default="")


def choose_language(name: str) -> None:
    """Set the language of all messages: ``"en"``, ``"zh"`` or ``""`` (follow ``LANG``)."""
    global _chosen
    if name not in ("", *LANGUAGES):
        raise ValueError(f"language {name!r} is not one of {', '.join(LANGUAGES)}")
    _chosen = name


def language() -> str:
    """The language in force."""
    if asked := _asked.get():
        return asked
    if _chosen:
        return _chosen
    for key in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if value := os.environ.get(key, ""):
            return "zh" if value.lower().startswith("zh") else "en"
    return "en"


@contextmanager
def speaking(name: str) -> Iterator[None]:
    """Another language for what is said inside, in this thread or task alone; ``""`` changes nothing."""
    token = _asked.set(name if name in LANGUAGES else _asked.get())
    try:
        yield
    finally:
        _asked.reset(token)


@cache
def catalog(name: str) -> dict[str, str]:
    """Message id -> text of language ``name``; empty for English."""
    if name == "en":
        return {}
    loaded: dict[str, str] = {}
    for file in resources.files("treetune.core").joinpath(name).iterdir():
        if file.name.endswith(".json"):
            loaded |= json.loads(file.read_text(encoding="utf-8"))
    return loaded


def say(message: str, **values: object) -> str:
    """The message in the language in force, with ``{name}`` filled from ``values``."""
    template = catalog(language()).get(message, message)
    return template.format(**values) if values else template
