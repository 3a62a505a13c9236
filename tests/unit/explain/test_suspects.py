"""Planted wrong labels stand first, near rows are near, gradients are those of torch."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from treetune.core.records import Example
from treetune.explain.suspects import RANKINGS, Rows, nearest, supporting, suspects, unit_rows
from treetune.explain.traces import Traces, chosen_parameters, representations, traces
from treetune.models import causal
from treetune.models.load import LoadedModel


@pytest.fixture(scope="module")
def planted() -> tuple[Rows, np.ndarray]:
    """Two clouds; 5 % of the labels wrong; gradients as a linear head over the states would have them."""
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, 400)
    states = (random.normal(0, 1, (400, 8)) + 4 * truth[:, None] * np.eye(8)[0] + 3).astype(np.float32)
    wrong = np.zeros(400, dtype=bool)
    wrong[random.permutation(400)[:20]] = True
    given = np.where(wrong, 1 - truth, truth)
    residual = np.where(given == truth, 0.1, 0.9) * np.where(given == 1, -1, 1)
    gradients = (residual[:, None] * states).astype(np.float32)
    losses = np.where(wrong, 2.3, 0.1).astype(np.float32)
    texts = [f"a {'good' if each else 'bad'} film {number}" for number, each in enumerate(truth)]
    return Rows([str(each) for each in given], states, Traces(gradients, losses), texts=texts), wrong


@pytest.mark.parametrize("method", list(RANKINGS))
def test_planted_wrong_labels_stand_first(planted: tuple[Rows, np.ndarray], method: str) -> None:
    rows, wrong = planted
    assert roc_auc_score(wrong, RANKINGS[method](rows)) > 0.9
    first = suspects(rows, method, 20)
    assert [score for _, score in first] == sorted((score for _, score in first), reverse=True)
    assert np.mean([wrong[place] for place, _ in first]) > 0.6


@pytest.mark.parametrize("labels", [["a"] * 6, ["a"] * 5 + ["b"], ["a", "b", "c"]])
@pytest.mark.parametrize("method", ["words", "cross_validated", "margin"])
def test_few_labels_and_few_rows_are_ranked_without_a_fault(labels: list[str], method: str) -> None:
    states = np.random.default_rng(0).normal(size=(len(labels), 4)).astype(np.float32)
    scores = RANKINGS[method](Rows(labels, states, texts=[f"row number {each}" for each in range(len(labels))]))
    assert scores.shape == (len(labels),)
    assert np.isfinite(scores).all()


def test_the_nearest_row_is_itself_and_the_most_supporting_gradient_its_own() -> None:
    random = np.random.default_rng(1)
    states = random.normal(0, 1, (30, 6)).astype(np.float32)
    places, likeness = nearest(states, states[:5], 3)
    assert places[:, 0].tolist() == list(range(5))
    assert likeness[:, 0] == pytest.approx(1.0, abs=1e-5)
    own = Traces(states, np.zeros(30, np.float32))
    assert supporting(own, Traces(states[:5], np.zeros(5, np.float32)), 1)[0][:, 0].tolist() == list(range(5))


def test_sketched_gradients_keep_their_angles(decoder: LoadedModel, review: Callable[..., Example]) -> None:
    examples = [review(f"The {word} was good.", label, number) for number, (word, label) in enumerate(
        [("film", "positive"), ("film", "negative"), ("book", "positive"), ("long film", "negative")])]
    found = traces(decoder, examples, 64, sketch=4096)
    chosen = chosen_parameters(decoder.model)
    whole = []
    for row in causal.encode(examples, decoder.tokenizer, 64):
        [batch] = causal.batches_of([row], "padded", 1, 999)
        loss = causal.loss_sum(decoder.model, batch)
        slopes = torch.autograd.grad(loss.total, chosen)
        whole.append(torch.cat([slope.flatten() for slope in slopes]).float().numpy())
    exact = unit_rows(np.stack(whole))
    assert unit_rows(found.gradients) @ unit_rows(found.gradients).T == pytest.approx(exact @ exact.T, abs=0.1)
    assert all(weight.requires_grad for weight in decoder.model.parameters())
    assert (found.losses > 0).all()


def test_a_representation_does_not_depend_on_the_rows_beside_it(
    decoder: LoadedModel, review: Callable[..., Example]
) -> None:
    examples = [review("The film was good."), review("A very long film that was not good at all.", number=1)]
    together = representations(decoder, examples, 64)
    assert together[0] == pytest.approx(representations(decoder, examples[:1], 64)[0], abs=1e-5)
