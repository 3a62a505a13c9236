"""What a person sees while it runs."""

from collections.abc import Iterator
from typing import Any

import pytest

from treetune.cli.show import Watcher, clock, scores_table
from treetune.cli.table import table
from treetune.core.language import choose_language

STEP = {"event": "step", "step": 2, "of": 4, "loss": 1.5, "learning_rate": 1e-3, "row_tokens": 500, "seconds": 0.5}


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    choose_language("en")
    yield
    choose_language("")


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (STEP, ["step 2/4", "loss 1.5000", "1,000 tokens/s", "left"]),
        ({"event": "evaluation", "step": 3, "loss": 2.0, "best_loss": 1.0, "best_step": 1},
         ["step 3", "2.0000", "1.0"]),
        ({"event": "resumed", "step": 2, "path": "step-2"}, ["step-2"]),
        ({"event": "broken_checkpoint", "found": "step-4: changed"}, ["broken checkpoint", "step-4: changed"]),
        ({"event": "tokens", "rows": 9, "validation_rows": 1, "cut": {"examples": 2, "tokens": 7}}, ["2 of 9", "7"]),
        ({"event": "exactness", "layout": "tree", "used": "padded", "difference": "1.0", "tolerance": 1e-4,
          "where": "h.1.attn (local)"},
         ["tree", "padded rows are used"]),
        ({"event": "complete", "path": "runs/a"}, ["runs/a", "complete"]),
        ({"event": "saved", "path": "runs/a/model"}, ["saved runs/a/model"]),
        ({"event": "early_stop", "step": 5}, ["stopped at step 5"]),
        ({"event": "predicting", "system": "base", "rows": 3}, ["3", "base"]),
    ],
)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_event_is_one_line(
    event: dict[str, Any], words: list[str], language: str, capsys: pytest.CaptureFixture[str]
) -> None:
    choose_language(language)
    Watcher(quiet=False)(event)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    if language == "en":
        for word in words:
            assert word in said.err
    Watcher(quiet=True)(event)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "event",
    [{"event": "tokens", "rows": 9, "cut": {"examples": 0, "tokens": 0}}, {"event": "checkpoint", "step": 1},
     {"event": "exactness", "layout": "tree", "used": "tree", "difference": 0.0}],
)
def test_some_events_are_worth_no_line(event: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    Watcher(quiet=False)(event)
    assert capsys.readouterr().err == ""


def test_on_a_terminal_steps_share_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    watch = Watcher(quiet=False)
    watch.terminal = True
    watch(STEP)
    assert not capsys.readouterr().err.endswith("\n")
    watch({**STEP, "step": 4})
    assert capsys.readouterr().err.endswith("\n")


def test_a_resumed_run_counts_time_from_where_it_went_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 30.0, 40.0])
    monkeypatch.setattr("treetune.cli.show.time.monotonic", lambda: next(now))
    watch = Watcher(quiet=True)
    watch({"event": "resumed", "step": 90, "path": "step-90"})
    assert "0:10 left" in watch.line_of({**STEP, "step": 95, "of": 100})


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (187.9, "3:07"), (3727, "1:02:07")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_tables_hold_every_cell(capsys: pytest.CaptureFixture[str]) -> None:
    table("title", ["a", "b"], [["1", "2"], ["[bold]", "[/4]"]])
    said = capsys.readouterr().out
    assert all(word in said for word in ("title", "1", "2", "[bold]", "[/4]"))


def test_scores_show_their_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    score = {"metric": "accuracy", "value": 0.5, "low": 0.25, "high": 0.75}
    scores_table({"scores": {"tuned": [score], "base": [score]}, "counts": {"rows": 8}})
    said = capsys.readouterr().out
    assert "0.500 [0.250, 0.750]" in said
    assert "tuned" in said
    assert "accuracy" in said
