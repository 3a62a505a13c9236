"""batch.py: who goes on, what is compared, and a command that is killed, at its smallest."""

import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("benchmark_module")  # the scripts can be imported

SECONDS = {"treetune": 1.0, "treetune-2-processes": 0.8, "pipeline-score-1": 9.0, "pipeline-score-32": 6.0,
           "ctranslate2-int8-score-32": 0.5, "ctranslate2-int8-score-128": 2.0}
ANSWERS = ["good", "bad"]


def run(seconds: float) -> dict[str, Any]:
    return {"seconds": seconds, "answers": ANSWERS, "peak_memory": 1.0}


@pytest.fixture
def batch(benchmark_module: Any) -> Any:
    return benchmark_module("batch")


def test_treetune_and_each_peer_s_fastest_batch_size_take_turns(batch: Any) -> None:
    asked: list[str] = []

    def measured(name: str) -> dict[str, Any]:
        asked.append(name)
        return run(SECONDS[name])

    done = batch.take_turns(tuple(SECONDS), 3, batch.finalists, measured)
    rest = ["ctranslate2-int8-score-32", "pipeline-score-32", "treetune", "treetune-2-processes"]
    assert asked == [*SECONDS, *reversed(rest), *rest]
    assert {name: len(runs) for name, runs in done.items()} == {name: 3 if name in rest else 1 for name in SECONDS}


def test_the_fastest_of_each_peer_is_what_treetune_is_compared_with(batch: Any) -> None:
    systems = {name: batch.summary([run(seconds)], [run(1.0)], ANSWERS) for name, seconds in SECONDS.items()}
    systems["pipeline-write-8"] = {"error": "no room"}
    assert batch.best_lines(systems) == [
        "- against pipeline-score-32, the fastest of pipeline-score: 6.00 × as fast",
        "- against ctranslate2-int8-score-32, the fastest of ctranslate2-int8-score: 0.50 × as fast"]


COMMAND = """
import sys, time
from pathlib import Path
from treetune.workflow.journal import Journal
with Journal(Path(sys.argv[1]), {"data": "d"}) as journal:
    for number in range(journal.done.blocks, 9):
        time.sleep(0.05)
        journal.append('{"row": %d, "seconds": %f}\\n' % (number, time.time()), 1, {})
    journal.finish({})
"""


def test_rows_of_a_killed_command_are_counted(
    benchmark_module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = benchmark_module("batch_killed")
    monkeypatch.setattr(script, "LONGEST_DELAY", 0.05)
    monkeypatch.setattr(script, "words_for", lambda job, output: [sys.executable, "-c", COMMAND, str(output)])
    found = script.killed({"folder": str(tmp_path), "kills": 2})
    assert found | {"at": []} == {"rows": 9, "kills": 2, "at": [], "missing": 0, "twice": 0, "equal": 9}
    assert 0 < found["at"][0] < found["at"][1] < 9
