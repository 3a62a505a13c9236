"""Whatever cuts a run off and wherever, the same call ends in the same bytes; every row is shown once an epoch."""

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from treetune.core.errors import Interrupted
from treetune.models.gpt3 import GPT3LMHeadModel
from treetune.train import checkpoint, loop
from treetune.train.checkpoint import newest_valid, steps_on_disk

Make = Callable[..., GPT3LMHeadModel]
Fit = Callable[..., Any]
Digest = Callable[..., str]
Event = dict[str, Any]
OPTIONS: dict[str, Any] = {"save_steps": 2, "eval_steps": 5, "per_device_train_batch_size": 2,
                           "gradient_accumulation_steps": 2, "num_train_epochs": 3}  # 11 rows: 4 + 4 + 3 an epoch


class Cut(Exception):
    """What a test raises to cut a run off."""


def cut_at(kind: str, step: int) -> Callable[[Event], None]:
    def watch(event: Event) -> None:
        if event["event"] == kind and event["step"] == step:
            raise Cut

    return watch


@pytest.fixture
def dropped(make_model: Make) -> Make:
    """The small model with dropout in three places."""
    return lambda **changes: make_model(resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.0, **changes)


@pytest.fixture
def whole(dropped: Make, run_fit: Fit, digest: Digest) -> str:
    model = dropped()
    run_fit(model, "whole", **OPTIONS)
    return digest(model)


@pytest.mark.parametrize(
    "cuts",
    [[1], [3], [4], [3, 3], [4, 5, 6], [8, 9]],
    ids=lambda cuts: " then ".join(map(str, cuts)),
)
@pytest.mark.parametrize("how", ["killed", "signalled"])
def test_cut_off_once_and_again_within_an_epoch_and_at_and_over_its_edge(
    cuts: list[int], how: str, dropped: Make, run_fit: Fit, digest: Digest, whole: str
) -> None:
    for step in cuts:
        def ask(event: Event, step: int = step) -> None:
            if event["event"] == "step" and event["step"] == step:
                os.kill(os.getpid(), signal.SIGTERM)

        with pytest.raises((Cut, Interrupted)):
            run_fit(dropped(), "cut", cut_at("step", step) if how == "killed" else ask, **OPTIONS)
        if how == "signalled" and cuts.count(step) > 1:
            break  # it saved there and does not come by again
    model = dropped()
    run_fit(model, "cut", **OPTIONS)
    assert digest(model) == whole


@pytest.mark.parametrize("kind", ["evaluation", "checkpoint"])
def test_cut_off_right_after_an_evaluation_or_a_save(
    kind: str, dropped: Make, run_fit: Fit, digest: Digest, whole: str
) -> None:
    with pytest.raises(Cut):
        run_fit(dropped(), "cut", cut_at(kind, 5), **OPTIONS)
    model = dropped()
    run_fit(model, "cut", **OPTIONS)
    assert digest(model) == whole


def test_a_signal_during_an_evaluation_leaves_it_and_the_next_run_makes_up_for_it(
    dropped: Make, run_fit: Fit, digest: Digest, whole: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain = loop.mean_loss

    def interrupted(*args: Any) -> float:
        os.kill(os.getpid(), signal.SIGUSR1)
        return plain(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "mean_loss", interrupted)
        with pytest.raises(Interrupted, match="E4010"):
            run_fit(dropped(), "cut", **OPTIONS)
    path, _ = newest_valid(tmp_path / "cut" / "checkpoints")
    assert path is not None
    assert path.name == "step-5"
    events: list[Event] = []
    model = dropped()
    run_fit(model, "cut", events.append, **OPTIONS)
    assert [event["event"] for event in events[:3]] == ["resumed", "evaluation", "checkpoint"]
    assert [event["step"] for event in events if event["event"] == "evaluation"] == [5, 9]
    assert digest(model) == whole


@pytest.mark.parametrize("place", [0, 3, 6])
def test_cut_off_inside_a_save(
    place: int, dropped: Make, run_fit: Fit, digest: Digest, whole: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, calls = os.fsync, [0]

    def fail(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] == 8 + place:
            raise Cut
        plain(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "fsync", fail)
        with pytest.raises(Cut):
            run_fit(dropped(), "cut", **OPTIONS)
    model = dropped()
    run_fit(model, "cut", **OPTIONS)
    assert digest(model) == whole


@pytest.mark.parametrize("cuts", [[], [2, 5], [3, 4, 7]])
def test_every_row_is_shown_once_an_epoch_through_any_resume(
    cuts: list[int], make_model: Make, run_fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: dict[int, list[int]] = {}
    plain = loop.train_step

    def note(model: Any, optimizers: Any, examples: Any, make: Any, settings: Any, state: Any, loss_of: Any) -> Any:
        shown[state.step] = [example.row for example in examples]
        return plain(model, optimizers, examples, make, settings, state, loss_of)

    monkeypatch.setattr(loop, "train_step", note)
    for step in cuts:
        with pytest.raises(Cut):
            run_fit(make_model(), "run", cut_at("step", step), **OPTIONS)
    run_fit(make_model(), "run", **OPTIONS)
    assert sorted(shown) == list(range(9))
    for epoch in range(3):
        rows = Counter(row for step in range(3 * epoch, 3 * epoch + 3) for row in shown[step])
        assert rows == Counter(range(100, 111))


def test_a_signal_that_only_asks_for_a_save_gets_one_and_the_run_goes_on(
    make_model: Make, run_fit: Fit, digest: Digest, tmp_path: Path
) -> None:
    whole, model = make_model(), make_model()
    run_fit(whole, "whole")
    saved: list[int] = []

    def ask(event: Event) -> None:
        if event["event"] == "step" and event["step"] == 4:
            os.kill(os.getpid(), signal.SIGUSR2)
        if event["event"] == "checkpoint":
            saved.append(event["step"])

    assert run_fit(model, "run", ask).step == 12
    assert saved == [3, 4, 6, 9, 12]
    assert digest(model) == digest(whole)


def test_a_broken_best_checkpoint_is_told_and_the_best_of_the_rest_kept(
    make_model: Make, run_fit: Fit, digest: Digest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    losses = iter([1.0, 3.0, 2.0, 2.5])
    monkeypatch.setattr(loop, "mean_loss", lambda *_: next(losses))
    with pytest.raises(Cut):
        run_fit(make_model(), "run", cut_at("step", 7), save_total_limit=1)
    folder = tmp_path / "run" / "checkpoints"
    assert [step for step, _ in steps_on_disk(folder)] == [6, 3]
    weights = folder / "step-3" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    events: list[Event] = []
    state = run_fit(make_model(), "run", events.append, save_total_limit=1)
    [lost] = [event for event in events if event["event"] == "best_lost"]
    assert (lost["best_step"], lost["loss"]) == (3, 1.0)
    assert (state.best_step, state.best_loss) == (9, 2.0)


def test_other_software_than_the_checkpoints_is_told(
    make_model: Make, run_fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Cut):
        run_fit(make_model(), "run", cut_at("step", 4))
    monkeypatch.setattr(loop, "versions", lambda: {**checkpoint.versions(), "torch": "99.0"})
    events: list[Event] = []
    run_fit(make_model(), "run", events.append)
    [event] = [event for event in events if event["event"] == "other_software"]
    assert set(event["changed"]) == {"torch"}
    assert event["changed"]["torch"][1] == "99.0"
