"""Drawn tokens come as often as the model says, and a row's draw does not depend on the rows beside it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from treetune.predict.draw import Draw, DrawnTokens


def test_tokens_come_as_often_as_the_tempered_distribution_says() -> None:
    logits = torch.tensor([[0.3, -1.0, 1.2, -torch.inf]])
    even = (np.arange(20000) + 0.5) / 20000
    for temperature in (0.5, 1.0, 2.0):
        draw = Draw(temperature, even[:, None])
        found = draw.tokens(logits.expand(len(even), -1), range(len(even)), 0)
        wanted = (logits[0].double() / temperature).softmax(-1).numpy()
        assert np.bincount(found.numpy(), minlength=4) / len(even) == pytest.approx(wanted, abs=2e-4)


@given(arrays(np.float64, (3, 5), elements=st.floats(-20, 20)), st.floats(0, 1, exclude_max=True), st.integers(0, 4),
       st.floats(0.05, 5))
def test_a_barred_token_is_never_drawn(logits: np.ndarray, number: float, kept: int, temperature: float) -> None:
    barred = torch.from_numpy(logits.copy())
    barred[0, [place for place in range(5) if place != kept]] = -torch.inf
    found = Draw(temperature, np.full((3, 1), number)).tokens(barred, range(3), 0)
    assert int(found[0]) == kept


def test_rows_keep_their_own_numbers() -> None:
    random = np.random.default_rng(0)
    draw, logits = Draw(1.0, random.random((6, 4))), torch.randn(6, 50)
    whole = draw.tokens(logits, range(6), 2)
    assert draw.tokens(logits[[4, 1]], [4, 1], 2).tolist() == whole[[4, 1]].tolist()
    assert draw.of([4, 1]).tokens(logits[[4, 1]], [0, 1], 2).tolist() == whole[[4, 1]].tolist()
    left = DrawnTokens(draw, begin=3)(torch.zeros(6, 5, dtype=torch.long), logits)  # step 2
    assert left.argmax(-1).tolist() == whole.tolist()
    assert torch.isinf(left).sum() == 6 * 49
