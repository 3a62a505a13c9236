"""A true explanation beats random order, a false one is called so; shuffled weights change the map."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from treetune.core.records import Example, FloatArray
from treetune.explain import attribution
from treetune.explain.attribution import Found
from treetune.explain.faithfulness import FREQUENCY, METRICS, RANDOM, map_correlation, measure_faithfulness, word_counts
from treetune.explain.subject import Answered, BoolArray
from treetune.explain.words import SOURCE, Word
from treetune.explain.written import label_subject
from treetune.models.load import LoadedModel


@dataclass(frozen=True)
class Linear:
    """A subject whose score is a sum over the words that stand."""

    weights: FloatArray
    removal: str = "deleted"

    @property
    def words(self) -> tuple[Word, ...]:
        return tuple(Word(f"w{n}", SOURCE, 2 * n, 2 * n + 1, (n,)) for n in range(len(self.weights)))

    @property
    def answered(self) -> Answered:
        return Answered("a", "b")

    def embedded(self) -> torch.Tensor:
        return torch.ones(len(self.weights), 1, dtype=torch.float64)

    def baseline(self) -> torch.Tensor:
        return torch.zeros(1, dtype=torch.float64)

    def scores_of_embedded(self, embedded: torch.Tensor) -> torch.Tensor:
        return (embedded[..., 0] * torch.from_numpy(self.weights)).sum(-1)

    def scores_kept(self, kept: BoolArray) -> FloatArray:
        return np.asarray(kept @ self.weights)

    def log_probs_kept(self, kept: BoolArray) -> FloatArray:
        return self.scores_kept(kept)[:, None]


@pytest.fixture
def rows() -> list[Linear]:
    random = np.random.default_rng(0)
    return [Linear(random.normal(0.3, 1.0, 12)) for _ in range(30)]


def test_every_method_finds_the_weights_of_a_linear_score(rows: list[Linear]) -> None:
    for method in attribution.METHODS:
        assert attribution.attribute(rows[0], method).values == pytest.approx(rows[0].weights)


def test_a_true_method_beats_random_and_a_false_one_does_not(
    rows: list[Linear], monkeypatch: pytest.MonkeyPatch
) -> None:
    def guess(subject: Linear, places: FloatArray, seed: int) -> Found:
        return Found(np.random.default_rng(len(places)).permutation(12).astype(float), 0.0, 0.0, None, 1)

    monkeypatch.setattr(attribution, "METHODS", {**attribution.METHODS, "guess": guess})
    found = measure_faithfulness(rows, ["occlusion", "guess"], {})
    assert found.beats_random("occlusion")
    assert not found.beats_random("guess")
    record = found.as_dict()
    assert record["rows"] == len(rows)
    assert set(record["methods"]) == {"occlusion", "guess", RANDOM, FREQUENCY}
    best = record["methods"]["occlusion"]
    assert best["comprehensiveness"]["value"] > record["methods"]["guess"]["comprehensiveness"]["value"]
    assert all(curve[:, 0] == pytest.approx(found.curves[RANDOM][:, 0]) for curve in found.curves.values())
    assert all(curve[:, -1] == pytest.approx(0.5) for curve in found.curves.values())
    assert set(best["against"][RANDOM]) == set(METRICS)


def test_rare_words_go_first_by_their_count() -> None:
    counts = word_counts(["W0 w0 w1", "w0 电影"])
    assert (counts["w0"], counts["w1"], counts["电"]) == (3, 1, 1)
    [row] = [Linear(np.array([5.0, 0.0]))]
    found = measure_faithfulness([row], ["occlusion"], {"w0": 9})
    assert found.values[FREQUENCY][0, 2] > found.values["occlusion"][0, 2]


def test_shuffled_weights_change_the_map(decoder: LoadedModel, review: Callable[..., Example]) -> None:
    subjects = [label_subject(decoder, review(f"The film {word} good, good and very long."), "positive", "negative",
                              max_length=64, layout="tree") for word in ("was", "is", "seems", "looks")]
    before = {name: weight.clone() for name, weight in decoder.model.named_parameters()}
    assert abs(map_correlation(subjects, "gradient_x_input")) < 0.8
    assert all(torch.equal(before[name], weight) for name, weight in decoder.model.named_parameters())
