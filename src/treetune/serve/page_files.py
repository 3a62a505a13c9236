"""The files of the page, read whole and once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

KINDS = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8",
         ".css": "text/css; charset=utf-8", ".json": "application/json", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file's bytes and its media type."""

    content: bytes
    kind: str


@cache
def page_files() -> dict[str, PageFile]:
    """Name -> file."""
    folder = resources.files("treetune.serve").joinpath("page")
    return {each.name: PageFile(each.read_bytes(), KINDS[suffix]) for each in folder.iterdir()
            if (suffix := each.name[each.name.rfind(".") :]) in KINDS}
