"""treetune export --push: the proved export with its card, in one commit, and nothing else; to a hub of our own."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from treetune.data.sample import sample_path

Cli = Callable[..., Any]
# huggingface_hub hands the bytes to its own HTTP client in a way that is on its way out
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
NAME = "me/film"


@pytest.fixture(scope="module")
def tuned(tune_words: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentiment run of its own, for exports stand in its folder."""
    from treetune.cli.app import run

    folder = tmp_path_factory.mktemp("private") / "film"
    assert run(tune_words("sentiment", folder), False, False) == 0
    return folder


@pytest.fixture
def words(tuned: Path, tmp_path: Path) -> list[object]:
    """The command without its flags."""
    return ["export", tuned, "--output", tmp_path / "out", "--push", NAME]


def held(hub: Any) -> dict[str, bytes]:
    return {way: content for way, content in hub.repositories[NAME].files.items() if way != ".gitattributes"}


def test_what_was_proved_arrives_with_its_card_and_no_folder_or_row_of_this_machine(
    stand_in_hub: Any, words: list[object], tuned: Path, tmp_path: Path, cli: Cli
) -> None:
    said = cli(*words, "--yes", "--json")
    assert said.code == 0, said.err
    there = held(stand_in_hub)
    local = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert set(there) == {*local, "README.md"}
    assert {way: content for way, content in there.items() if way not in ("README.md", "export.json")} == {
        way: content for way, content in local.items() if way != "export.json"}
    assert "model.safetensors" in there
    assert "tokenizer.json" in there
    repository = stand_in_hub.repositories[NAME]
    assert (repository.private, len(repository.commits)) == (True, 2)
    assert repository.in_lfs >= {"model.safetensors", "tokenizer.json"}

    card = there["README.md"].decode()
    header = yaml.safe_load(card.split("---\n")[1])
    assert (header["library_name"], header["pipeline_tag"]) == ("transformers", "text-generation")
    assert "base_model" not in header
    parity = json.loads(local["export.json"])["parity"]
    assert f"on {parity['rows']} rows {parity['equal_answers']:.1%}" in card.replace("\\", "")
    rows = [json.loads(line)["text"] for task in ("train", "validation")
            for line in sample_path("sentiment", task).read_text("utf-8").splitlines()]
    for way, content in there.items():
        if not way.endswith(".safetensors"):
            text = content.decode()
            assert str(tmp_path.parent.parent) not in text, way
            assert str(tuned.parent) not in text, way
            assert not [row for row in rows if row in text], way
    assert said.json["push"]["sizes"] == {way: len(content) for way, content in there.items()}
    assert said.json["push"]["commit"] == repository.sha
    for way, content in there.items():
        assert f"{len(content):,}  {way}" in said.err


@pytest.mark.parametrize(("form", "library", "weights"), [
    ("gguf", "gguf", "model.gguf"), ("ctranslate2", "ctranslate2", "model.bin")])
def test_every_form_goes_whole(
    form: str, library: str, weights: str, stand_in_hub: Any, tuned: Path, tmp_path: Path, cli: Cli
) -> None:
    pytest.importorskip(library)
    said = cli("export", tuned, "--to", form, "--max-length", 64, "--output", tmp_path / "out", "--push", NAME, "--yes")
    assert said.code == 0, said.err
    there = held(stand_in_hub)
    assert set(there) == {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")
                          if path.is_file()} | {"README.md"}
    assert there[weights] == (tmp_path / "out" / weights).read_bytes()
    card = there["README.md"].decode()
    assert f"library_name: {library}" in card
    assert "not verified: " in card.replace("\\", "")


def test_a_dry_run_lists_and_asks_nobody(
    stand_in_hub: Any, words: list[object], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    said = cli(*words, "--dry-run")
    assert said.code == 0, said.err
    assert "README.md" in said.err
    assert f"to {NAME} at {stand_in_hub.url}, private" in said.err
    assert "nothing was sent" in said.out
    assert stand_in_hub.came == []


def test_an_export_that_fails_its_proof_never_asks_the_hub(
    stand_in_hub: Any, words: list[object], tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from treetune.workflow import export

    monkeypatch.setattr(export, "MOST_DIFFERENCE", {"float32": -1.0})
    said = cli(*words, "--yes")
    assert "E2804" in said.err
    assert stand_in_hub.came == []
    assert list(tmp_path.iterdir()) == []


def test_a_cut_connection_leaves_nothing_there_and_the_export_here(
    stand_in_hub: Any, words: list[object], tmp_path: Path, cli: Cli
) -> None:
    stand_in_hub.faults["upload"] = "cut"
    said = cli(*words, "--yes")
    assert (said.code, "E2815" in said.err) == (1, True)
    assert held(stand_in_hub) == {}
    record = tmp_path / "out" / "export.json"
    before = record.stat().st_mtime_ns
    stand_in_hub.faults.clear()
    said = cli(*words, "--yes")
    assert said.code == 0, said.err
    assert record.stat().st_mtime_ns == before
    assert "model.safetensors" in held(stand_in_hub)
    stand_in_hub.came.clear()
    assert "it is all there already" in cli(*words, "--yes").out
    assert set(stand_in_hub.came) == {"look"}
    assert "E2805" in cli(*words, "--yes", "--to", "ctranslate2").err  # another form is not that export


@pytest.mark.parametrize(("way", "text", "found"), [
    ("config.json", '{"vocab_size": 1}', "changed"), ("train.jsonl", "{}", "not a file"),
    ("model.safetensors", None, "missing"),
])
def test_files_that_were_not_proved_are_not_sent(
    way: str, text: str | None, found: str, stand_in_hub: Any, words: list[object], tmp_path: Path, cli: Cli
) -> None:
    assert cli(*words, "--dry-run").code == 0
    if text is None:
        (tmp_path / "out" / way).unlink()
    else:
        (tmp_path / "out" / way).write_text(text, "utf-8")
    said = cli(*words, "--yes")
    assert "E2819" in said.err
    assert found in said.err
    assert stand_in_hub.came == []


def test_a_token_inside_a_file_stays_here(
    stand_in_hub: Any, words: list[object], tmp_path: Path, cli: Cli
) -> None:
    from treetune.core.files import file_digest

    assert cli(*words, "--dry-run").code == 0
    path, record = tmp_path / "out" / "config.json", tmp_path / "out" / "export.json"
    path.write_text(json.dumps({"note": "hf_" + "Ab1" * 12}), "utf-8")
    facts = json.loads(record.read_text("utf-8"))
    facts["files"]["config.json"]["sha256"] = file_digest(path)
    record.write_text(json.dumps(facts), "utf-8")
    said = cli(*words, "--yes")
    assert "E2819" in said.err
    assert "Ab1Ab1" not in said.err
    assert stand_in_hub.came == []


def test_what_can_be_known_before_is_said_before_the_export(
    stand_in_hub: Any, words: list[object], tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert "E2820" in cli(*words).err
    assert "E2810" in cli(*words[:-1], "film", "--yes").err
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    said = cli(*words, "--yes")
    assert (said.code, "E2811" in said.err) == (2, True)
    assert stand_in_hub.came == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("answer", "goes"), [("y\n", True), ("n\n", False), ("\n", False), ("", False)])
def test_a_person_is_asked(
    answer: str, goes: bool, stand_in_hub: Any, words: list[object], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    said = cli(*words)
    assert said.code == 0, said.err
    assert "Send them?" in said.err
    assert bool(stand_in_hub.came) is goes
    assert ("nothing was sent" in said.out) is not goes


def test_an_adapter_on_a_folder_of_this_machine_is_not_sent(
    stand_in_hub: Any, tune_words: Callable[..., list[str]], tmp_path: Path, cli: Cli
) -> None:
    assert cli(*tune_words("sentiment", tmp_path / "lora", lora_r=2)).code == 0
    said = cli("export", tmp_path / "lora", "--to", "adapter", "--push", NAME, "--yes")
    assert "E2818" in said.err
    assert stand_in_hub.came == []
    said = cli("export", tmp_path / "lora", "--push", NAME, "--yes")
    assert said.code == 0, said.err
    assert (tmp_path / "lora" / "export" / "safetensors" / "export.json").is_file()
    assert "adapter_config.json" not in held(stand_in_hub)


@pytest.mark.slow
def test_a_process_finds_endpoint_and_token_in_its_environment(
    stand_in_hub: Any, words: list[object], tmp_path: Path
) -> None:
    own = {"HF_ENDPOINT": stand_in_hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run([sys.executable, "-m", "treetune", *map(str, words), "--yes"], capture_output=True, text=True,
                          env={**os.environ, **own}, check=False)
    assert done.returncode == 0, done.stderr
    assert "model.safetensors" in held(stand_in_hub)
    assert "README.md" in held(stand_in_hub)
