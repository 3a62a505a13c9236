"""The loop: accumulation is exact, an interrupted run ends where an uninterrupted one does, trouble is named."""

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from treetune.core.errors import Interrupted, TrainingError
from treetune.core.records import TokenizedExample
from treetune.core.settings import LoopSettings
from treetune.models.batches import batches_of
from treetune.models.gpt3 import GPT3LMHeadModel
from treetune.train import loop
from treetune.train.loop import mean_loss, train_step
from treetune.train.memory import keep_freed_memory
from treetune.train.optimizers import build_optimizers
from treetune.train.signals import stop_on_signal

Make = Callable[..., GPT3LMHeadModel]
Rows = list[TokenizedExample]
Fit = Callable[..., Any]


class Stop(Exception):
    """What a test raises to cut a run off."""


def one_step(model: GPT3LMHeadModel, rows: Rows, rows_per_pass: int, layout: str = "padded", **changes: Any) -> Any:
    settings = LoopSettings(output_dir="x", **{"max_grad_norm": 0.0, **changes})
    make_batches = partial(batches_of, layout=layout, rows_per_pass=rows_per_pass, max_tokens=200)
    return train_step(model, build_optimizers(model, "sgd", 0.5, None), rows, make_batches, settings, 0)


@pytest.mark.parametrize("num_rows", [8, 11])
@pytest.mark.parametrize("layout", ["padded", "tree", "packed"])
@pytest.mark.parametrize("rows_per_pass", [1, 3])
def test_accumulated_passes_equal_one_pass_also_with_a_ragged_tail(
    make_model: Make, rows: Rows, num_rows: int, layout: str, rows_per_pass: int
) -> None:
    whole, parts = make_model(), make_model()
    first = one_step(whole, rows[:num_rows], num_rows)
    second = one_step(parts, rows[:num_rows], rows_per_pass, layout)
    assert second.loss == pytest.approx(first.loss, rel=1e-6)
    assert second.grad_norm == pytest.approx(first.grad_norm, rel=1e-5)
    assert (second.num_labels, second.row_tokens) == (first.num_labels, first.row_tokens)
    for name, weight in whole.named_parameters():
        other = dict(parts.named_parameters())[name]
        assert (weight - other).norm() <= 1e-6 * max(1.0, float(weight.detach().norm())), name


def test_the_loss_of_a_step_is_the_mean_over_its_labels(make_model: Make, rows: Rows) -> None:
    model = make_model()
    expected = mean_loss(model, rows, partial(batches_of, layout="padded", rows_per_pass=4, max_tokens=0))
    result = one_step(model, rows, 3)
    assert result.loss == pytest.approx(expected, rel=1e-6)
    assert result.num_labels == sum(len(row.completion_ids) for row in rows)


def test_clipping_bounds_the_update_and_zero_switches_it_off(make_model: Make, rows: Rows) -> None:
    moves = []
    for bound in (0.01, 0.0):
        model = make_model()
        before = torch.cat([w.detach().flatten().clone() for w in model.parameters()])
        result = one_step(model, rows, 11, max_grad_norm=bound)
        after = torch.cat([w.detach().flatten() for w in model.parameters()])
        moves.append(float((after - before).norm()))
        assert result.grad_norm > 0.01
    assert moves[0] == pytest.approx(0.5 * 0.01, rel=1e-3)
    assert moves[1] == pytest.approx(0.5 * result.grad_norm, rel=1e-3)


def test_dropout_depends_on_seed_and_step_not_on_the_global_state(make_model: Make, rows: Rows) -> None:
    losses = []
    for junk, seed in ((1, 0), (2, 0), (1, 5)):
        model = make_model(resid_pdrop=0.3)
        torch.manual_seed(junk)
        losses.append(one_step(model, rows, 11, seed=seed).loss)
    assert losses[0] == losses[1] != losses[2]


def test_a_tiny_model_learns_its_rows_by_heart(make_model: Make, run_fit: Fit) -> None:
    events: list[dict[str, Any]] = []
    run_fit(make_model(), on_event=events.append, num_train_epochs=40, eval_steps=1000)
    losses = [event["loss"] for event in events if event["event"] == "step"]
    assert losses[-1] < 0.4 * losses[0]


@pytest.mark.parametrize("optim", ["adamw", "muon"])
@pytest.mark.parametrize("cut", [3, 6])
def test_a_run_cut_off_after_a_checkpoint_ends_byte_equal(
    make_model: Make, run_fit: Fit, digest: Callable[..., str], optim: str, cut: int
) -> None:
    options = {"optim": optim, "save_steps": 3, "eval_steps": 5}
    whole = make_model(resid_pdrop=0.1)
    state = run_fit(whole, "whole", **options)

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "checkpoint" and event["step"] == cut:
            raise Stop

    with pytest.raises(Stop):
        run_fit(make_model(resid_pdrop=0.1), "cut", stop, **options)
    events: list[dict[str, Any]] = []
    resumed = make_model(resid_pdrop=0.1, initializer_range=0.5)
    again = run_fit(resumed, "cut", events.append, **options)
    assert events[0] == {"event": "resumed", "step": cut, "path": f"step-{cut}"}
    assert digest(resumed) == digest(whole)
    assert (again.step, again.best_loss, again.best_step) == (state.step, state.best_loss, state.best_step)
    assert (again.tokens, again.computed_tokens) == (state.tokens, state.computed_tokens)


def test_a_run_cut_off_between_checkpoints_ends_byte_equal(
    make_model: Make, run_fit: Fit, digest: Callable[..., str]
) -> None:
    whole, resumed = make_model(), make_model()
    run_fit(whole, "whole", save_steps=2)

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == 5:
            raise Stop

    with pytest.raises(Stop):
        run_fit(make_model(), "cut", stop, save_steps=2)
    run_fit(resumed, "cut", save_steps=2)
    assert digest(resumed) == digest(whole)


def test_a_broken_newest_checkpoint_is_told_and_the_one_before_taken(
    make_model: Make, run_fit: Fit, tmp_path: Path, digest: Callable[..., str]
) -> None:
    whole, resumed = make_model(), make_model()
    options = {"save_steps": 3, "save_total_limit": 9}
    run_fit(whole, **options)
    for step in (9, 12):
        path = tmp_path / "run" / "checkpoints" / f"step-{step}" / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
    events: list[dict[str, Any]] = []
    run_fit(resumed, on_event=events.append, **options)
    assert [event["event"] for event in events[:3]] == ["broken_checkpoint", "broken_checkpoint", "resumed"]
    assert events[2]["step"] == 6
    assert digest(resumed) == digest(whole)


def test_a_finished_run_run_again_trains_nothing(
    make_model: Make, run_fit: Fit, digest: Callable[..., str]
) -> None:
    first, second = make_model(), make_model()
    run_fit(first)
    events: list[dict[str, Any]] = []
    run_fit(second, on_event=events.append)
    assert [event["event"] for event in events] == ["resumed"]
    assert digest(second) == digest(first)


def test_a_run_that_stopped_early_run_again_trains_nothing(
    make_model: Make, run_fit: Fit, digest: Callable[..., str]
) -> None:
    options = {"early_stopping_patience": 1, "learning_rate": 1.0, "eval_steps": 1, "optim": "sgd",
               "num_train_epochs": 20, "max_grad_norm": 50.0}
    events: list[dict[str, Any]] = []
    first, second = make_model(), make_model()
    state = run_fit(first, on_event=events.append, **options)
    assert events[-1]["event"] == "early_stop"
    again = run_fit(second, **options)
    assert again.step == state.step
    assert digest(second) == digest(first)


def test_the_best_weights_are_left_in_the_model(
    make_model: Make, run_fit: Fit, digest: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([3.0, 1.0, 2.0, 2.5])
    monkeypatch.setattr(loop, "mean_loss", lambda *_: next(losses))
    model = make_model()
    at_checkpoints: dict[int, str] = {}

    def note(event: dict[str, Any]) -> None:
        if event["event"] == "checkpoint":
            at_checkpoints[event["step"]] = digest(model)

    state = run_fit(model, on_event=note, save_total_limit=1)
    assert (state.step, state.best_step, state.best_loss) == (12, 6, 1.0)
    assert digest(model) == at_checkpoints[6] != at_checkpoints[12]


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_rows(
    make_model: Make, run_fit: Fit, tmp_path: Path
) -> None:
    model = make_model()
    with torch.no_grad():
        model.transformer.h[0].mlp.c_fc.weight[0, 0] = float("nan")
    with pytest.raises(TrainingError) as caught:
        run_fit(model)
    assert caught.value.code == "E4001"
    named = [int(text) for text in caught.value.where.removeprefix("rows ").split(", ")]
    assert len(named) == 4
    assert all(101 <= row < 112 for row in named)  # as a person counts them
    assert "step 1" in str(caught.value)
    assert not list((tmp_path / "run").glob("checkpoints/step-*"))


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
def test_a_signal_saves_and_the_same_call_goes_on_byte_equal(
    make_model: Make, run_fit: Fit, digest: Callable[..., str], tmp_path: Path, name: str
) -> None:
    before = signal.getsignal(signal.SIGINT)
    whole, resumed = make_model(), make_model()
    run_fit(whole, "whole")

    def ask(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == 4:
            os.kill(os.getpid(), getattr(signal, name))

    with pytest.raises(Interrupted) as caught:
        run_fit(make_model(), "cut", ask)
    assert caught.value.exit_code == 75
    assert name in str(caught.value)
    assert (tmp_path / "cut" / "checkpoints" / "step-4" / "manifest.json").is_file()
    assert signal.getsignal(signal.SIGINT) is before
    run_fit(resumed, "cut")
    assert digest(resumed) == digest(whole)


def interrupt_twice() -> None:
    with stop_on_signal() as asked:
        assert asked() == ""
        os.kill(os.getpid(), signal.SIGINT)
        assert asked() == "SIGINT"
        os.kill(os.getpid(), signal.SIGINT)


def test_a_second_interrupt_leaves_at_once() -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupt_twice()


def test_a_signal_in_the_last_step_leaves_only_the_evaluation_for_later(
    make_model: Make, run_fit: Fit, digest: Callable[..., str]
) -> None:
    whole, resumed = make_model(), make_model()
    state = run_fit(whole, "whole")

    def ask(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == event["of"]:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        run_fit(make_model(), "cut", ask)
    events: list[dict[str, Any]] = []
    again = run_fit(resumed, "cut", events.append)
    assert [event["event"] for event in events] == ["resumed", "evaluation", "checkpoint"]
    assert (again.step, again.best_loss, again.best_step) == (state.step, state.best_loss, state.best_step)
    assert digest(resumed) == digest(whole)


def test_max_steps_bounds_the_run_and_gradient_accumulation_counts_rows(make_model: Make, run_fit: Fit) -> None:
    events: list[dict[str, Any]] = []
    state = run_fit(make_model(), on_event=events.append, max_steps=2, gradient_accumulation_steps=2)
    assert state.step == 2
    assert [event["epoch"] for event in events if event["event"] == "step"] == [0.5, 1.0]


def test_asking_malloc_to_keep_memory_never_fails_and_leaves_the_number_of_kept_kernels_to_the_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    assert keep_freed_memory() in (True, False)
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "7"
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    keep_freed_memory()
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "64"
