"""The smaller verbs: init writes what tune takes, predict --next asks any model, check prints what would be seen."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]


@pytest.mark.parametrize("task", ["sentiment", "qa", "translation", "summarization"])
def test_init_writes_a_folder_that_tune_takes(task: str, cli: Cli, tmp_path: Path, tiny: Path) -> None:
    folder = tmp_path / "start"
    said = cli("init", folder, "--task", task)
    assert said.code == 0, said.err
    assert f"treetune tune {folder}/run.yaml" in said.out
    said = cli("check", folder / "run.yaml", "--model", tiny)
    assert said.code == 0, said.err
    assert "<end>" in said.out
    if task == "sentiment":
        said = cli("tune", folder / "run.yaml", "--model", tiny, "--max-steps", 1, "--torch-threads", 1)
        assert said.code == 0, said.err
        assert (folder / "run" / "report.html").is_file()
    again = cli("init", folder, "--task", task)
    assert again.code == 2
    assert "E2040" in again.err


def test_init_names_the_tasks(cli: Cli, tmp_path: Path) -> None:
    said = cli("init", tmp_path / "start", "--task", "sentimant")
    assert said.code == 2
    assert "sentiment" in said.err
    assert not (tmp_path / "start").exists()


def test_next_tokens_of_a_run_and_of_a_folder(
    cli: Cli, runs: Callable[[str], Path], tiny: Path
) -> None:
    for model in (runs("sentiment"), tiny):
        said = cli("predict", model, "--next", "The weather", "--top-k", 3, "--continue-tokens", 4, "--json")
        assert said.code == 0, said.err
        result = said.json
        shares = [each["probability"] for each in result["next"]]
        assert len(shares) == 3
        assert shares == sorted(shares, reverse=True)
        assert result["text"]["log_prob"] < 0
        assert isinstance(result["continuation"], str)
    plain = cli("predict", tiny, "--next", "The weather")
    assert plain.code == 0
    assert "bits a byte" in plain.out
