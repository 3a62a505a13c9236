"""Files with given content, read in one call."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from treetune.data import ReadResult, read_rows

ReadText = Callable[..., ReadResult]


@pytest.fixture
def read_text(tmp_path: Path) -> ReadText:
    """(content, file name, options of read_rows) -> result."""

    def read(content: str | bytes, name: str = "rows.jsonl", **options: Any) -> ReadResult:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return read_rows(path, **({"split": "train", "aliases": {}, "columns": {}} | options))

    return read
