"""Names, and taking runs up anew while the server answers."""

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from treetune.core.errors import UsageError
from treetune.serve.runs import Runs, parse_names

ROW = {"text": "The film was wonderful."}


def test_names_come_from_folders_or_are_given(tmp_path: Path) -> None:
    found = parse_names([str(tmp_path / "a"), f"b={tmp_path / 'x'}", str(tmp_path / "c" / "tuned")])
    assert found == {"a": str(tmp_path / "a"), "b": str(tmp_path / "x"), "c": str(tmp_path / "c" / "tuned")}


@pytest.mark.parametrize("word", ["=x", "../a=x", "a/b=x", ".hidden=x", "a b=x", "ü=x", f"{'n' * 65}=x", "a..b=x"])
def test_names_are_plain(word: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_names([word])
    assert caught.value.code == "E2701"


@pytest.fixture
def own(made_runs: dict[str, Path], tmp_path: Path) -> Path:
    shutil.copytree(made_runs["sentiment"], tmp_path / "run")
    return tmp_path / "run"


def swap_weights(folder: Path, scale: float) -> None:
    """Other weights, moved into place whole."""
    from safetensors.torch import load_file, save_file

    path = folder / "model" / "model.safetensors"
    tensors = {name: value * scale for name, value in load_file(path).items()}
    save_file(tensors, folder / "model.new", metadata={"format": "pt"})
    os.replace(folder / "model.new", path)


def test_a_changed_run_is_taken_up_whole_and_only_when_it_stands_still(own: Path) -> None:
    runs = Runs({"mood": str(own)})
    before = runs.find("mood")
    assert before is not None
    assert runs.reload_changed() == {}
    swap_weights(own, 0.5)
    assert runs.reload_changed() == {}  # seen, perhaps still being written
    assert runs.find("mood") is before
    assert runs.reload_changed() == {"mood": "ok"}
    after = runs.find("mood")
    assert after is not None
    assert after.digest != before.digest
    assert runs.reload_changed() == {}


def test_a_broken_run_leaves_the_old_one_in_force(own: Path) -> None:
    runs = Runs({"mood": str(own)})
    before = runs.find("mood")
    path = own / "model" / "model.safetensors"
    whole = path.read_bytes()
    (own / "cut").write_bytes(whole[:-10])
    os.replace(own / "cut", path)
    runs.reload_changed()
    assert runs.reload_changed() == {"mood": "E3005"}
    assert runs.find("mood") is before
    assert runs.stale == {"mood": "E3005"}
    assert runs.reload_changed() == {}  # not tried again until it changes
    (own / "whole").write_bytes(whole)
    os.replace(own / "whole", path)
    runs.reload_changed()
    assert runs.reload_changed() == {"mood": "ok"}
    assert runs.stale == {}


def test_a_server_swaps_without_losing_a_request(live: Any, own: Path, eventually: Callable[..., bool]) -> None:
    server = live({"mood": own})
    first = server.post("/v1/sentiment", ROW).json()["weights_sha256"]
    seen: list[tuple[int, str]] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            answer = server.post("/v1/sentiment", ROW)
            seen.append((answer.status_code, answer.json().get("weights_sha256", "")))

    asking = threading.Thread(target=ask)
    asking.start()
    swap_weights(own, 0.5)
    changed = eventually(lambda: bool(seen) and seen[-1][1] != first, 20)
    done.set()
    asking.join()
    assert changed
    assert {status for status, _ in seen} == {200}
    digests = [digest for _, digest in seen]
    assert digests == sorted(digests, key=lambda digest: digest != first)  # first the old, then the new, never back
    assert len(set(digests)) == 2
    assert 'treetune_reloads_total{result="ok",run="mood"} 1.0' in server.http.get("/metrics").text


def test_a_gate_that_is_set_later_comes_into_force(
    live: Any, own: Path, gated_run: Any, eventually: Callable[..., bool]
) -> None:
    server = live({"mood": own})
    assert server.post("/v1/sentiment", ROW).json()["decision"]["verdict"] == "ungated"
    shutil.copy(gated_run("holds") / "gate.json", own / "gate.json")
    assert eventually(lambda: server.post("/v1/sentiment", ROW).json()["decision"]["verdict"] == "review", 20)
    facts = server.http.get("/v1/runs").json()["runs"][0]["gate"]
    assert facts["set"]
    assert facts["valid"]
    assert facts["outcome"]


def test_an_edited_gate_accepts_nothing(live: Any, own: Path, gated_run: Any) -> None:
    record = json.loads((gated_run("accepts") / "gate.json").read_text())
    (own / "gate.json").write_text(json.dumps({**record, "threshold": -1e9}))
    server = live({"mood": own})
    answer = server.post("/v1/sentiment", ROW).json()
    assert (answer["answer"], answer["decision"]["verdict"]) == (None, "review")
    assert server.http.get("/v1/runs").status_code == 200
