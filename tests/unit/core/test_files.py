"""Files are whole or absent."""

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from treetune.core import files
from treetune.core.errors import RunError
from treetune.core.files import (
    RunFolder,
    file_digest,
    model_digest,
    read_json,
    value_digest,
    write_bytes,
    write_json,
    write_text,
)


def failing(number: int) -> Any:
    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, "E5001"), (errno.EDQUOT, "E5001"), (errno.EACCES, "E5002"), (errno.EROFS, "E5002"),
     (errno.EIO, "E5003")],
)
def test_a_failed_write_keeps_the_old_content_and_leaves_no_junk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    path = tmp_path / "a.json"
    write_text(path, "old")
    monkeypatch.setattr(files.os, "replace", failing(number))
    with pytest.raises(RunError) as caught:
        write_text(path, "new")
    assert caught.value.code == code
    assert str(path) in str(caught.value)
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


def test_a_disk_that_fills_while_writing_keeps_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_text(path, "old")
    monkeypatch.setattr(files.os, "fsync", failing(errno.ENOSPC))
    with pytest.raises(RunError, match="E5001"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("name", ["file/inside.json", "x" * 300])
def test_a_path_that_cannot_exist_is_a_run_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(RunError, match="E5003"):
        write_bytes(tmp_path / name, b"data")


def test_missing_folders_are_made_and_bytes_come_back(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.bin"
    write_bytes(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"


def test_json_comes_back_with_its_order_and_its_chinese(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"z": "中文", "a": [1, None, 0.5]})
    assert read_json(path) == {"z": "中文", "a": [1, None, 0.5]}
    assert list(read_json(path)) == ["z", "a"]
    assert "中文" in path.read_text(encoding="utf-8")


def test_nan_is_not_written_as_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", float("nan"))
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize("content", [None, b"{", b"\xff\xfe\x00"])
def test_an_unreadable_json_file_is_a_run_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError, match="E5004"):
        read_json(path)


def test_the_file_digest_is_the_sha256_of_its_bytes(tmp_path: Path) -> None:
    data = os.urandom(files.CHUNK_BYTES + 17)
    (tmp_path / "a").write_bytes(data)
    assert file_digest(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_the_value_digest_ignores_key_order_and_sees_values() -> None:
    assert value_digest({"a": 1, "b": [1, 2]}) == value_digest({"b": [1, 2], "a": 1})
    assert value_digest({"a": 1}) != value_digest({"a": 2})
    assert value_digest({"a": [1, 2]}) != value_digest({"a": [2, 1]})


def test_a_run_folder_is_complete_when_its_model_was_saved_whole(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert not folder.is_complete()
    write_text(folder.model / "treetune.json", json.dumps({}))
    assert folder.is_complete()
    assert folder.config == tmp_path / "config.yaml"
    assert folder.metrics.name == "metrics.jsonl"


def test_a_model_folder_is_told_by_its_weights_and_settings_alone(tmp_path: Path) -> None:
    assert model_digest(tmp_path / "nothing") == ""
    (tmp_path / "README.md").write_text("a card")
    assert model_digest(tmp_path) == ""
    (tmp_path / "config.json").write_text("{}")
    weights = bytearray(3_000_000)
    (tmp_path / "model.safetensors").write_bytes(weights)
    first = model_digest(tmp_path)
    (tmp_path / "README.md").write_text("another card")
    assert model_digest(tmp_path) == first
    for place in (0, -1):
        changed = bytearray(weights)
        changed[place] = 1
        (tmp_path / "model.safetensors").write_bytes(changed)
        assert model_digest(tmp_path) != first
    (tmp_path / "model.safetensors").write_bytes(bytearray(3_000_001))
    assert model_digest(tmp_path) != first


def test_a_link_leads_to_the_file_that_changes_and_a_pipe_is_left_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "far" / "file")
    write_text(link, "text")
    assert link.is_symlink()
    assert (tmp_path / "far" / "file").read_text("utf-8") == "text"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "stdout").symlink_to(pipe)
    for place in (pipe, tmp_path / "stdout"):
        with pytest.raises(RunError, match="E5003"):
            write_text(place, "text")
    assert pipe.is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["far", "link", "pipe", "stdout"]
