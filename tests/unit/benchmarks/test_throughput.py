"""throughput.py at its smallest, treetune only, and how its table is made."""

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.usefixtures("benchmark_module")  # the scripts can be imported


@pytest.fixture
def throughput(monkeypatch: pytest.MonkeyPatch, benchmark_module: Any) -> Iterator[Any]:
    """The script, its children run in this process."""
    script = benchmark_module("throughput")
    monkeypatch.setattr(script, "run_child", lambda name, job, timeout=0.0: script.work(job))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield script
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("lora", "words_more"), [(0, []), (4, []), (0, ["--bf16"])])
def test_every_layout_trains_on_the_same_rows_to_the_same_loss(
    throughput: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, lora: int,
    words_more: list[str],
) -> None:
    monkeypatch.setattr(throughput, "has_peer", lambda module: module == "treetune")
    monkeypatch.setattr("ours.matmul_peak", partial(sys.modules["machine"].matmul_peak, sizes=(256,)))
    words = ["--shape", "tiny", "--rows", "sample/question_answering", "--rows-per-step", "4", "--steps", "3",
             "--repeats", "1", "--threads", "1", "--lora", str(lora), "--results", str(tmp_path), *words_more]
    monkeypatch.setattr(sys, "argv", ["throughput.py", *words])
    throughput.main()
    said = capsys.readouterr().out
    assert "trl: left out, trl is not installed" in said
    (section,) = json.loads((tmp_path / "throughput.json").read_text("utf-8")).values()
    systems = section["systems"]
    assert set(systems) == {"treetune-tree", "treetune-packed", "treetune-padded"}
    tree, padded = section["runs"]["treetune-tree"][0], section["runs"]["treetune-padded"][0]
    assert tree["layout"] == "tree"
    assert tree["tokens"] == padded["tokens"]
    assert sum(tree["computed_tokens"]) < sum(tree["tokens"]) < sum(padded["computed_tokens"])
    assert tree["loss"] == pytest.approx(padded["loss"], abs=0.03 if words_more else 1e-4)
    assert tree["loss"][0] != pytest.approx(tree["loss"][-1], abs=1e-6)
    assert 0 < systems["treetune-tree"]["useful_share"] < (9 if words_more else 1)  # a CPU's bfloat16 product is slow
    page = (tmp_path / "throughput.md").read_text("utf-8")
    assert "treetune-packed" in page
    assert "**differs**" not in page


def run(seconds: float, loss: float) -> dict[str, Any]:
    return {"seconds": [9.0, 9.0, seconds], "cpu_seconds": [9.0, 9.0, seconds], "tokens": [100] * 3, "loss": [loss] * 3,
            "peak_memory": 10.0, "memory_at_start": 5.0}


def test_the_first_two_steps_do_not_count_and_the_best_of_each_family_goes_on(throughput: Any) -> None:
    assert throughput.speed(run(2.0, 1.0)) == 50.0
    names = {"treetune-tree": 1.0, "treetune-padded": 2.0, "trainer-padded-8": 5.0, "trainer-sorted-8": 4.0,
             "trainer-flattened-8": 3.0, "trl-padded-8": 6.0}
    runs = {name: [run(seconds, 1.0)] for name, seconds in names.items()}
    runs["trl-packed-1"] = [{"error": "no room"}]
    runs["trainer-flattened-32"] = [run(0.5, 1.2)]  # fastest, but it trains something else
    assert throughput.finalists(runs, 1) == ["treetune-tree", "trainer-flattened-8", "trl-padded-8"]
    assert throughput.finalists(runs, 2) == ["treetune-tree", "trainer-flattened-8", "trainer-sorted-8", "trl-padded-8"]


def test_a_loss_that_differs_is_pointed_out(throughput: Any) -> None:
    reference = throughput.reference_loss({"treetune-tree": {"loss": [1.0]}, "trainer-padded-8": {"loss": [2.0, 3.0]}})
    assert reference == [2.0, 3.0]
    assert "**differs**" in throughput.loss_note("treetune-tree", {"loss": [2.0, 3.01]}, reference)
    assert "**differs**" not in throughput.loss_note("treetune-tree", {"loss": [2.0, 3.0005]}, reference)
    assert throughput.loss_note("trainer-grouped-32", {"loss": [1.0, 1.0]}, reference) == "other steps"
    assert throughput.loss_note("trl-packed-1", {"loss": [1.0, 1.0]}, reference) == "other steps"
