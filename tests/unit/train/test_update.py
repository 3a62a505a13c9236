"""The end of a step changes weights as plain optimizers would, whoever divides and wherever a gradient waits."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from treetune.core.records import TokenizedExample
from treetune.core.settings import LoopSettings
from treetune.models.batches import batches_of
from treetune.models.engine import fullest_engine, set_up
from treetune.train import loop
from treetune.train.loop import train_step
from treetune.train.optimizers import build_optimizers, start_state
from treetune.train.update import update

Make = Callable[..., Any]


@pytest.mark.parametrize("optim", ["adamw", "adam", "sgd", "muon"])
def test_dividing_is_part_of_the_step_or_comes_before_it(optim: str, make_model: Make) -> None:
    ours, plain = make_model(), make_model()
    for model, divisor in ((ours, 5.0), (plain, 1.0)):
        optimizers = build_optimizers(model, optim, 1e-2, None)
        torch.manual_seed(0)
        for weight in model.parameters():
            weight.grad = torch.randn_like(weight) * divisor
        update(optimizers, divisor, None)
        assert all(weight.grad is None for weight in model.parameters())
        assert not any(hasattr(optimizer, "grad_scale") for optimizer in optimizers)
    for weight, other in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(weight, other, rtol=1e-6, atol=1e-7)


def test_an_optimizer_without_a_gradient_does_nothing() -> None:
    weight = nn.Parameter(torch.ones(3))
    update([torch.optim.AdamW([weight], fused=True)], 2.0, None)
    assert torch.equal(weight, torch.ones(3))


def short_rows(count: int) -> list[TokenizedExample]:
    random = np.random.default_rng(1)
    return [TokenizedExample(n, 0, random.integers(1, 50, n % 4 + 3), random.integers(1, 50, 1), 0)
            for n in range(count)]


@pytest.mark.parametrize("num_rows", [6, 40], ids=["waits in factors", "waits in pieces"])
@pytest.mark.parametrize("rows_per_pass", [40, 6], ids=["one pass", "several passes"])
def test_steps_are_those_of_gradients_that_never_wait(
    num_rows: int, rows_per_pass: int, make_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained() -> tuple[Any, list[Any]]:
        model = make_model(vocab_size=400).double()
        set_up(model, fullest_engine(model))
        optimizers = build_optimizers(model, "adamw", 1e-2, 0.1)
        start_state(optimizers)
        make_batches = partial(batches_of, layout="tree", rows_per_pass=rows_per_pass, max_tokens=60)
        settings = LoopSettings(output_dir="x", max_grad_norm=0.5)
        return model, [train_step(model, optimizers, short_rows(num_rows), make_batches, settings, step)
                       for step in range(3)]

    seen: list[bool] = []
    step_by = loop.update
    monkeypatch.setattr(loop, "update", lambda optimizers, divisor, waiting: (
        seen.append(bool(waiting and waiting._factors)), step_by(optimizers, divisor, waiting)))
    ours, steps = trained()
    assert seen == [num_rows == 6] * 3
    monkeypatch.setattr(loop, "gradient_that_waits", lambda core, optimizers: nullcontext(None))
    plain, others = trained()
    assert [step.loss for step in steps] == pytest.approx([step.loss for step in others], rel=1e-9)
    assert [step.grad_norm for step in steps] == pytest.approx([step.grad_norm for step in others], rel=1e-9)
    for (name, weight), other in zip(ours.named_parameters(), plain.parameters(), strict=True):
        assert torch.allclose(weight, other, rtol=1e-8, atol=1e-10), name
