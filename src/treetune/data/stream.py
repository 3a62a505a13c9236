"""Bytes and lines of a data file: opened, checked, decoded, a fault noted where a line cannot be used."""

from __future__ import annotations

import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from treetune.core.errors import DataError

COMPRESSIONS = (".gz", ".xz", ".zst")
MAX_LINE_BYTES = 10_000_000
HEAD_BYTES = 8192
MIN_HEAD_BYTES = 256
MAX_CONTROL_SHARE = 0.1
MAGIC = {
    b"PAR1": "parquet", b"PK\x03\x04": "zip", b"\x1f\x8b": "gzip", b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"%PDF": "PDF", b"\x89PNG": "PNG",
    b"SQLite format 3": "SQLite", b"ARROW1": "Arrow", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16",
}
_CONTROL = bytes(code for code in (*range(32), 127) if code not in b"\t\n\r\f\x1b")


@dataclass(frozen=True, slots=True)
class Line:
    """A line with its end. ``fault`` says why it cannot be used; its text is then only good for an excerpt.

    Attributes:
        number: 1-based. text: decoded, without byte order mark.
    """

    number: int
    text: str
    fault: DataError | None = None


class _ZstdReader(io.RawIOBase):
    """Streamed zstd that knows when the file was cut off (the library's own reader ends in silence)."""

    def __init__(self, path: Path) -> None:
        import zstandard

        self._error: type[Exception] = zstandard.ZstdError
        self._new = zstandard.ZstdDecompressor().decompressobj
        self._frame = self._new()
        self._raw = open(path, "rb")  # noqa: SIM115 - closed by close()
        self._ready = b""
        self._inside = False

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._raw.close()
        super().close()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._ready:
            chunk = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame, self._inside = self._new(), False
            chunk = chunk or self._raw.read(1 << 16)
            if not chunk:
                if self._inside:
                    raise EOFError("zstd data ended before the end of the frame")
                return 0
            try:
                self._ready, self._inside = self._frame.decompress(chunk), True
            except self._error as error:
                raise EOFError(str(error)) from error
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count


def open_data(path: Path) -> IO[bytes]:
    """The file's bytes, decompressed on the fly (.gz, .xz, .zst); use inside `reading`."""
    if path.suffix == ".zst":
        return cast(IO[bytes], io.BufferedReader(_ZstdReader(path)))
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if path.suffix == ".xz":
        return cast(IO[bytes], lzma.open(path, "rb"))
    return open(path, "rb")


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn the failures of opening and decompressing the file called ``name`` into the user's error.

    Raises:
        DataError: E1117 broken or cut-off compression, E1118 any other failure of reading.
    """
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise DataError("E1117", "the compressed file is broken or cut off", where=name, found=str(error),
                        do="fetch or compress the file again") from error
    except OSError as error:
        raise DataError("E1118", "the file cannot be read", where=name, found=error.strerror or str(error),
                        do="check the path and its permissions") from error


def check_head(path: Path, name: str) -> None:
    """Look at the first block of a text file.

    Raises:
        DataError: E1102 the file is empty, E1105 it is not text.
    """
    with reading(name), open_data(path) as handle:
        head = handle.read(HEAD_BYTES)
        empty = not head.removeprefix(b"\xef\xbb\xbf").strip() and not handle.read(1)
    if empty:
        raise DataError("E1102", "the file is empty", where=name, do="check how the file was made")
    kind = next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), "")
    num_control = len(head) - len(head.translate(None, _CONTROL))
    binary = len(head) >= MIN_HEAD_BYTES and num_control > MAX_CONTROL_SHARE * len(head)
    if kind or binary or b"\x00" in head.split(b"\n", 1)[0]:
        raise DataError("E1105", "the file is not text", where=name,
                        found=kind or f"{num_control} control bytes in the first {len(head)}",
                        allowed="UTF-8", do="convert the file to UTF-8 text, or correct its extension")


def read_lines(path: Path, name: str) -> Iterator[Line]:
    """All lines of a text file, at most `MAX_LINE_BYTES` of each in memory.

    Faults noted on a line: E1106 not UTF-8, E1108 a NUL character, E1114 too long.
    """
    with reading(name), open_data(path) as handle:
        number = 0
        while raw := handle.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(raw) > MAX_LINE_BYTES:
                yield _long_line(handle, raw, number)
            else:
                yield _line(raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw, number)


def not_utf8(offset: int, byte: int) -> DataError:
    """The fault of a line whose byte at ``offset`` (0-based, in the line) is not UTF-8."""
    return DataError("E1106", "byte {offset} of the line is not UTF-8", offset=offset, found=f"0x{byte:02x}",
                     do="convert the file to UTF-8")


def _line(raw: bytes, number: int) -> Line:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return Line(number, raw.decode("utf-8", "surrogateescape"), not_utf8(error.start, raw[error.start]))
    if "\x00" in text:
        fault = DataError("E1108", "the line holds a NUL character at position {position}",
                          position=text.index("\x00"), do="remove the NUL character")
        return Line(number, text, fault)
    return Line(number, text)


def _long_line(handle: IO[bytes], raw: bytes, number: int) -> Line:
    """Skip the rest of the line. Its text is one quote if it had an odd number, so that CSV stays in step."""
    size, num_quotes = len(raw), raw.count(b'"')
    while not raw.endswith(b"\n") and (raw := handle.readline(MAX_LINE_BYTES)):
        size += len(raw)
        num_quotes += raw.count(b'"')
    fault = DataError("E1114", "the line is longer than {limit} bytes", limit=MAX_LINE_BYTES,
                      found=f"{size} bytes", do="cut the record into smaller ones")
    return Line(number, '"\n' if num_quotes % 2 else "\n", fault)
