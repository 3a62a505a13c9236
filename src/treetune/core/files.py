"""Files that are whole or absent: atomic writes, digests, and the layout of a run folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treetune.core.errors import RunError

CHUNK_BYTES = 1 << 20


def write_bytes(path: Path, data: bytes) -> None:
    """Write so that after a crash the file holds either all of ``data`` or what it held before.

    Raises:
        RunError: E5001 no space, E5002 no permission, E5003 other failure of the disk.
    """
    write_chunks(path, [data])


def write_chunks(path: Path, chunks: Iterable[Any]) -> dict[str, Any]:
    """The same piece by piece, for what should not stand in memory twice; gives ``bytes`` and ``sha256``.

    Args:
        chunks: bytes, or whatever else shows its memory as bytes.
    """
    path = Path(os.path.realpath(path)) if os.path.islink(path) else path  # the file changes, and the link stays
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    digest, size = hashlib.sha256(), 0
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # a device or a pipe would be put out of the way
            raise OSError(errno.EINVAL, "there is something else than a file", str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as handle:
            for chunk in chunks:
                handle.write(chunk)
                digest.update(chunk)
                size += memoryview(chunk).nbytes
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise disk_error(error, path) from error
    return {"bytes": size, "sha256": digest.hexdigest()}


def sweep(folder: Path) -> None:
    """Take away what writers that were killed have left half-written in ``folder``."""
    for junk in folder.glob(".*.tmp-*"):
        with contextlib.suppress(OSError):
            junk.unlink()


def write_text(path: Path, text: str) -> None:
    """UTF-8, newlines as given; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Indented, key order as given, no ASCII escapes; see `write_bytes`."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Parse a JSON file of ours.

    Raises:
        RunError: E5004 missing or not valid JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            "E5004", "a file of the run cannot be read", where=str(path), found=str(error),
            do="restore the file or start a new run in another --output-dir",
        ) from error


def sync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_files(folder: Path) -> None:
    """Make every file of a folder durable that other libraries have written, and then the folder itself."""
    for path in folder.iterdir():
        if path.is_file():
            sync_folder(path)  # a descriptor is a descriptor
    sync_folder(folder)


def disk_error(error: OSError, path: Path) -> RunError:
    """The user's error for a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return RunError(
            "E5001", "the disk is full", where=str(path), found=str(error),
            do="free some space and run the same command again; what was saved before is intact",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return RunError(
            "E5002", "no permission to write", where=str(path), found=str(error),
            do="choose an --output-dir you may write to",
        )
    return RunError("E5003", "the file cannot be written", where=str(path), found=str(error),
                    do="check the disk and the path, then run the same command again")


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while chunk := handle.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def model_digest(folder: Path) -> str:
    """Tells model folders apart without reading all of them: names and sizes of weights, settings and tokenizer files,
    and of each its first and last megabyte. "" where there is no such folder (a hub name: its revision tells it apart).
    """
    found: dict[str, Any] = {}
    kinds = ("*.safetensors", "*.json", "*.model", "*.txt")
    for path in sorted(path for kind in kinds for path in folder.glob(kind)) if folder.is_dir() else []:
        with open(path, "rb") as handle:
            ends = handle.read(CHUNK_BYTES)
            handle.seek(max(0, path.stat().st_size - CHUNK_BYTES))
            found[path.name] = [path.stat().st_size, hashlib.sha256(ends + handle.read()).hexdigest()]
    return value_digest(found) if found else ""


def value_digest(value: Any) -> str:
    """sha256 of a JSON value in canonical form, hexadecimal."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where everything of one tuning lies."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def data(self) -> Path:
        return self.root / "data.json"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def predictions(self) -> Path:
        return self.root / "predictions.jsonl"

    @property
    def evaluation(self) -> Path:
        return self.root / "evaluation.json"

    @property
    def gate(self) -> Path:
        return self.root / "gate.json"

    @property
    def fairness(self) -> Path:
        return self.root / "audit" / "fairness.json"

    @property
    def trust(self) -> Path:
        """What is kept of answers under a gate: drift watch, audit log, review queue."""
        return self.root / "trust"

    @property
    def quarantine(self) -> Path:
        return self.root / "quarantine.jsonl"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def card(self) -> Path:
        return self.root / "README.md"

    def is_complete(self) -> bool:
        """Whether training finished and its model was saved whole."""
        return (self.model / "treetune.json").is_file()
