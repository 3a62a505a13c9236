"""A teacher's probabilities in the loss: the formula by hand, and what it is good for."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from treetune.core.records import TokenizedExample
from treetune.models import causal, classes
from treetune.models.batches import batches_of
from treetune.models.distill import class_loss, divergence, token_loss
from treetune.models.encoder import EncoderRow, padded
from treetune.models.engine import fullest_engine, set_up

Make = Callable[..., Any]
Rows = list[TokenizedExample]


def test_the_divergence_is_the_sum_it_says() -> None:
    torch.manual_seed(0)
    ours, theirs = torch.randn(2, 5, 7, dtype=torch.float64)
    for temperature in (1.0, 3.0):
        q, p = (torch.softmax(each / temperature, -1) for each in (ours, theirs))
        wanted = temperature**2 * (p * (p.log() - q.log())).sum(-1)
        assert torch.allclose(divergence(ours, theirs, temperature), wanted)
    assert divergence(ours, ours + 4, 2.0).abs().max() < 1e-12  # the same distribution


@pytest.mark.parametrize("layout", ["tree", "packed", "padded"])
def test_soft_labels_of_a_decoder_are_those_of_its_separate_rows(rows: Rows, make_gpt3: Make, layout: str) -> None:
    student, teacher = make_gpt3().double(), make_gpt3(n_embd=48).double()
    how = {"teacher": teacher, "temperature": 2.0, "weight": 0.3}
    wanted = torch.zeros((), dtype=torch.float64)
    for row in rows:  # by hand, a row at a time
        ids = torch.from_numpy(np.concatenate([row.prompt_ids, row.completion_ids]))[None]
        place = slice(len(row.prompt_ids) - 1, ids.shape[1] - 1)
        own, theirs = (each(input_ids=ids).logits[0, place] for each in (student, teacher))
        q, p = (torch.log_softmax(each / 2, -1) for each in (own, theirs))
        hard = -own.log_softmax(-1)[range(len(row.completion_ids)), row.completion_ids]
        wanted = wanted + (0.7 * hard + 0.3 * 4 * (p.exp() * (p - q)).sum(-1)).sum()
    wanted.backward()
    truth = {name: weight.grad.clone() for name, weight in student.named_parameters()}
    student.zero_grad()
    teacher.zero_grad()
    for model in (student, teacher):
        set_up(model, fullest_engine(model))
    parts = [token_loss(student, batch, **how) for batch in batches_of(rows, layout, 32, 60)]
    torch.stack([part.total for part in parts]).sum().backward()
    assert sum(float(part.total.detach()) for part in parts) == pytest.approx(float(wanted.detach()), rel=1e-9)
    assert sum(part.count for part in parts) == sum(len(row.completion_ids) for row in rows)
    for name, weight in student.named_parameters():
        assert torch.allclose(weight.grad, truth[name], atol=1e-8), name
    assert all(weight.grad is None for weight in teacher.parameters())
    with torch.no_grad():
        batch = next(batches_of(rows, layout, 32, 999))
        assert token_loss(student, batch, **how).total == causal.loss_sum(student, batch).total


class Linear(torch.nn.Module):
    """A label head over counts of tokens, in the shape that `classes` calls."""

    def __init__(self, vocabulary: int, labels: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(vocabulary, labels))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        from types import SimpleNamespace

        counts = torch.zeros(len(input_ids), len(self.weight)).scatter_add_(1, input_ids, attention_mask.float())
        return SimpleNamespace(logits=counts @ self.weight)


def test_a_student_with_few_noisy_labels_comes_closer_to_the_truth_through_its_teacher() -> None:
    draw = np.random.default_rng(0)
    truth = torch.from_numpy(draw.normal(size=(30, 2))).float()

    def rows_of(count: int) -> tuple[list[EncoderRow], torch.Tensor]:
        ids = [draw.integers(0, 30, 8) for _ in range(count)]
        logits = torch.stack([truth[torch.from_numpy(each)].sum(0) for each in ids])
        logs = (logits / 2).log_softmax(-1)
        drawn = [int(draw.random() < p) for p in logs[:, 1].exp().tolist()]  # what an unsure annotator says
        return [EncoderRow(n, n, each, None, np.array([label]), soft=logs[n].double().numpy())
                for n, (each, label) in enumerate(zip(ids, drawn, strict=True))], logs

    training, _ = rows_of(60)
    held_out, true_logs = rows_of(500)
    found = {}
    for weight in (0.0, 0.9):
        model = Linear(30, 2)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        batch = padded(training, range(len(training)))
        for _ in range(300):
            optimizer.zero_grad()
            part = class_loss(model, batch, temperature=1.0, weight=weight)
            (part.total / part.count).backward()
            optimizer.step()
        with torch.no_grad():
            logs = classes.log_probs(model, padded(held_out, range(len(held_out))))
            found[weight] = float((true_logs.exp() * (true_logs - logs)).sum(-1).mean())
    assert found[0.9] < 0.5 * found[0.0]


def test_without_gradients_and_without_a_teacher_the_loss_is_the_plain_one() -> None:
    rows = [EncoderRow(0, 0, np.array([1, 2]), None, np.array([1]), soft=np.log([0.2, 0.8])),
            EncoderRow(1, 1, np.array([3]), None, np.array([0]), soft=np.log([0.6, 0.4]))]
    model = Linear(5, 2)
    with torch.no_grad():
        model.weight.normal_()
    plain = classes.loss_sum(model, padded(rows, [0, 1]))
    unmixed = class_loss(model, padded(rows, [0, 1]), temperature=2.0, weight=0.0).total
    assert torch.allclose(unmixed, plain.total)
    assert class_loss(model, padded(rows, [0, 1]), temperature=2.0, weight=0.5).total != plain.total
    with torch.no_grad():
        assert class_loss(model, padded(rows, [0, 1]), temperature=2.0, weight=0.5).total == plain.total
