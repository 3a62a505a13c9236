"""Files reach a hub byte by byte, in one commit or not at all; what the hub says becomes one clear error."""

from pathlib import Path
from typing import Any

import pytest

from treetune.core.errors import TreetuneError
from treetune.models.push import refuse_name, refuse_without_token, same, send

# huggingface_hub hands the bytes to its own HTTP client in a way that is on its way out
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
NAME = "me/model"
WEIGHTS = bytes(range(256)) * 40


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path | bytes]:
    """Weights that go to the large store, and two small files."""
    (tmp_path / "model.safetensors").write_bytes(WEIGHTS)
    (tmp_path / "config.json").write_text('{"a": 1}', "utf-8")
    return {"model.safetensors": tmp_path / "model.safetensors", "config.json": tmp_path / "config.json",
            "README.md": b"---\nlibrary_name: transformers\n---\n\n# A model\n"}


def put(files: dict[str, Path | bytes], name: str = NAME, **options: Any) -> dict[str, Any]:
    return send(name, files, **{"public": False, "replace": False, "message": "sentiment", **options})


def refused(code: str, files: dict[str, Path | bytes], name: str = NAME, **options: Any) -> str:
    with pytest.raises(TreetuneError) as caught:
        put(files, name, **options)
    assert caught.value.code == code, str(caught.value)
    return str(caught.value)


def held(hub: Any, name: str = NAME) -> dict[str, bytes]:
    return {way: content for way, content in hub.repositories[name].files.items() if way != ".gitattributes"}


def test_files_arrive_byte_by_byte_in_one_commit_of_a_private_repository(stand_in_hub: Any, files: Any) -> None:
    result = put(files)
    there = stand_in_hub.repositories[NAME]
    assert held(stand_in_hub) == {"model.safetensors": WEIGHTS, "config.json": b'{"a": 1}', "README.md":
                                  files["README.md"]}
    assert (there.private, len(there.commits), there.messages) == (True, 2, ["sentiment"])
    assert there.in_lfs == {"model.safetensors"}
    assert (result["commit"], result["private"], result["deleted"]) == (there.sha, True, [])
    assert sorted(result["sent"]) == sorted(files)
    assert stand_in_hub.came.count("commit") == stand_in_hub.came.count("create") == 1


def test_the_same_again_sends_nothing(stand_in_hub: Any, files: Any) -> None:
    first = put(files)
    stand_in_hub.came.clear()
    again = put(files)
    assert (again["sent"], again["deleted"], again["commit"]) == ([], [], first["commit"])
    assert set(stand_in_hub.came) == {"look"}


def test_other_content_is_kept_unless_it_may_be_replaced(stand_in_hub: Any, files: Any) -> None:
    put({**files, "old.json": b"{}"})
    other = {**files, "config.json": b'{"a": 2}'}
    said = refused("E2816", other)
    assert "old.json" in said
    assert "config.json" in said
    assert "model.safetensors" not in said
    assert held(stand_in_hub)["old.json"] == b"{}"
    result = put(other, replace=True)
    assert (result["sent"], result["deleted"]) == (["config.json"], ["old.json"])
    assert held(stand_in_hub) == {"model.safetensors": WEIGHTS, "config.json": b'{"a": 2}', "README.md":
                                  files["README.md"]}
    assert len(stand_in_hub.repositories[NAME].commits) == 3


def test_nothing_becomes_public_that_was_not_said_to(stand_in_hub: Any, files: Any) -> None:
    assert put(files, public=True)["private"] is False
    refused("E2817", {**files, "config.json": b"{}"})
    assert len(stand_in_hub.repositories[NAME].commits) == 2
    stand_in_hub.repositories[NAME].private = True
    assert put(files, public=True)["private"] is True


def test_a_token_the_hub_does_not_know(stand_in_hub: Any, files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert "hf_other" not in refused("E2812", files)
    assert not stand_in_hub.repositories


def test_a_place_the_token_may_not_write_to(stand_in_hub: Any, files: Any) -> None:
    assert "rights" in refused("E2813", files, "them/model")
    assert not stand_in_hub.repositories


@pytest.mark.parametrize(("route", "fault", "code"), [
    *((route, "cut", "E2815") for route in ("look", "create", "preupload", "batch", "upload", "commit")),
    *((route, 403, "E2813") for route in ("preupload", "commit")), ("commit", 401, "E2812"), ("commit", 500, "E2814"),
    ("upload", 503, "E2814"), ("create", 409, "E2814"),
])
def test_a_fault_anywhere_leaves_nothing_to_see_and_the_next_call_goes_on(
    route: str, fault: Any, code: str, stand_in_hub: Any, files: Any
) -> None:
    stand_in_hub.faults[route] = fault
    refused(code, files)
    assert all(held(stand_in_hub, name) == {} for name in stand_in_hub.repositories)
    stand_in_hub.faults.clear()
    put(files)
    assert set(held(stand_in_hub)) == set(files)


def test_a_commit_of_somebody_else_in_between_is_not_overwritten(
    stand_in_hub: Any, files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    commit = HfApi.create_commit

    def late(self: Any, *words: Any, **options: Any) -> Any:
        repository = stand_in_hub.repositories[NAME]
        repository.commits.append({**repository.files, "theirs.json": b"{}"})
        return commit(self, *words, **options)

    monkeypatch.setattr(HfApi, "create_commit", late)
    assert "since" in refused("E2814", files)
    assert held(stand_in_hub) == {"theirs.json": b"{}"}


@pytest.mark.parametrize("name", ["model", "a/b/c", "", "a/", "/a", "a/..", "a b/c", "../a", "a/-b", "a/b--c"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(TreetuneError) as caught:
        refuse_name(name)
    assert caught.value.code == "E2810"


def test_no_token_is_known_without_the_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(TreetuneError) as caught:
        refuse_without_token()
    assert caught.value.code == "E2811"
    (tmp_path / "token").write_text("hf_written_by_login", "utf-8")
    refuse_without_token()


def test_content_is_told_by_either_of_the_hubs_ids(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"hello\n")
    for content in (path, b"hello\n"):
        assert same(content, "ce013625030ba8dba906f756967f9e9ca394464a")  # git hash-object
        assert same(content, "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03")  # sha256sum
        assert not same(content, "")
        assert not same(content, "0" * 40)
