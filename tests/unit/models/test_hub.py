"""Hub models: found in a cache laid out like the hub's, by revision, without a network; faults named, nothing half."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from treetune.core.errors import ModelError
from treetune.models import hub
from treetune.models.family import head_for
from treetune.models.load import load_model, load_tokenizer
from treetune.tasks.contract import load_task

NAME = "someone/tiny-bert"
OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def cache(tmp_path: Path, family_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two revisions of a model as the hub's client lays them out; no network."""
    place = tmp_path / "hub" / "models--someone--tiny-bert"
    for commit, kind in ((OLD, "roberta"), (NEW, "bert")):
        shutil.copytree(family_folder(kind), place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(NEW)
    (place / "refs" / "v1").write_text(OLD)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return place


def test_a_cached_model_loads_without_a_network(cache: Path) -> None:
    assert head_for(NAME, load_task("sentiment")) == "classes"
    loaded = load_model(NAME, head="classes", labels=("a", "b"))
    assert loaded.model.config.model_type == "bert"
    assert loaded.name == NAME
    assert load_tokenizer(NAME)[1] == 64


@pytest.mark.parametrize(("revision", "kind"), [(None, "bert"), ("main", "bert"), ("v1", "roberta"), (OLD, "roberta")])
def test_a_revision_is_pinned(cache: Path, revision: str | None, kind: str) -> None:
    assert load_model(NAME, revision=revision, head="masked").model.config.model_type == kind


@pytest.mark.parametrize("name", ["someone/other", "nothing", "not a name", "a/b/c"])
def test_a_model_that_is_nowhere_is_named(cache: Path, name: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(name, head="masked")
    assert caught.value.code == "E3002"
    assert name in str(caught.value)


def test_a_revision_that_is_not_cached_is_not_replaced_by_another(cache: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(NAME, revision="v2", head="masked")
    assert caught.value.code in ("E3002", "E3014")


@pytest.mark.parametrize("lost", ["config.json", "model.safetensors"])
def test_a_cache_with_a_file_missing_gives_no_model(cache: Path, lost: str) -> None:
    (cache / "snapshots" / NEW / lost).unlink()
    with pytest.raises(ModelError) as caught:
        load_model(NAME, head="masked")
    assert caught.value.code in ("E3005", "E3015")


def test_a_missing_part_of_the_weights_is_named(cache: Path) -> None:
    folder = cache / "snapshots" / NEW
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / hub.INDEX).write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors", '
                                    '"b": "model-00002-of-00002.safetensors"}}')
    with pytest.raises(ModelError) as caught:
        load_model(NAME, head="masked")
    assert caught.value.code == "E3015"
    assert caught.value.found == "no model-00002-of-00002.safetensors"


def test_a_cached_model_is_looked_at_before_any_loader_is(cache: Path) -> None:
    path = cache / "snapshots" / NEW / "config.json"
    path.write_text(path.read_text().replace("{", '{"auto_map": {"AutoModel": "x.Y"},', 1))
    with pytest.raises(ModelError) as caught:
        load_model(NAME, head="masked")
    assert caught.value.code == "E3004"


def test_only_pickled_weights_are_refused(cache: Path) -> None:
    folder = cache / "snapshots" / NEW
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError) as caught:
        load_model(NAME, head="masked")
    assert caught.value.code == "E3003"


def response_error(kind: Any) -> Exception:
    made: Exception = kind("said so", response=SimpleNamespace(headers={}, request=None, status_code=403))
    return made


@pytest.mark.parametrize(("error", "code"), [
    (errors.GatedRepoError, "E3013"), (errors.RevisionNotFoundError, "E3014"),
    (errors.RepositoryNotFoundError, "E3002"),
    (ConnectionResetError("cut off"), "E3015"), (TimeoutError("too slow"), "E3015"),
])
def test_what_the_hub_says_becomes_one_clear_error(monkeypatch: pytest.MonkeyPatch, error: Any, code: str) -> None:
    def fail(*words: Any, **options: Any) -> str:
        raise error if isinstance(error, Exception) else response_error(error)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelError) as caught:
        hub.fetch("someone/model", "v1")
    assert caught.value.code == code
    assert caught.value.found


def test_only_safetensors_of_the_top_folder_are_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}
    (tmp_path / "config.json").write_text("{}")

    def note(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", note)
    assert hub.fetch("someone/model", "v1") == tmp_path
    assert (asked["name"], asked["revision"], asked["ignore_patterns"]) == ("someone/model", "v1", ["*/*"])
    assert "*.safetensors" in asked["allow_patterns"]
    assert not {"*.bin", "*.pt", "*.py"} & set(asked["allow_patterns"])
    hub.fetch("someone/model", weights=False)
    assert "*.safetensors" not in asked["allow_patterns"]
