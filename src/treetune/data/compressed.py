"""Opening files that may be compressed."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path
from typing import IO, cast

COMPRESSIONS = (".gz", ".xz", ".zst")


def open_binary(path: Path) -> IO[bytes]:
    """The file's bytes, decompressed on the fly by its suffix (.gz, .xz, .zst)."""
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if path.suffix == ".xz":
        return cast(IO[bytes], lzma.open(path, "rb"))
    if path.suffix == ".zst":
        import io

        import zstandard

        reader = zstandard.ZstdDecompressor().stream_reader(open(path, "rb"), closefd=True)
        return cast(IO[bytes], io.BufferedReader(reader))
    return open(path, "rb")
