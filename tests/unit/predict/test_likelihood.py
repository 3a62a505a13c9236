"""Log-probabilities of reference answers are those of separate rows, in every layout."""


import numpy as np
import pytest
import torch

from treetune.core.records import TokenizedExample
from treetune.models.load import LoadedModel
from treetune.predict.likelihood import completion_log_probs

WINDOW = 64


@pytest.fixture
def rows() -> list[TokenizedExample]:
    """Rows that share prompts, with a repeat, answers that begin alike, one a prefix of another."""
    random = np.random.default_rng(0)
    shared = random.integers(1, 290, 9)

    def row(number: int, prompt: list[int], completion: list[int]) -> TokenizedExample:
        return TokenizedExample(number, 0, np.array(prompt), np.array(completion), 0)

    made = [row(n, [*shared, *random.integers(1, 290, n % 4)], [*random.integers(1, 290, n % 5), 0])
            for n in range(8)]
    return [*made, row(8, list(shared), [7, 8, 0]), row(9, list(shared), [7, 8, 9, 0]), row(10, [5], [7, 0]),
            row(11, list(shared), [7, 8, 0])]


def by_hand(loaded: LoadedModel, row: TokenizedExample) -> list[float]:
    ids = [*row.prompt_ids.tolist(), *row.completion_ids.tolist()]
    with torch.no_grad():
        logs = loaded.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    first = len(row.prompt_ids) - 1
    return [float(logs[first + place, token]) for place, token in enumerate(row.completion_ids.tolist())]


@pytest.mark.parametrize("layout", ["tree", "packed", "padded"])
@pytest.mark.parametrize(("rows_per_pass", "max_tokens"), [(32, 768), (5, 768), (1, 768), (32, 24)])
def test_log_probs_are_those_of_separate_rows(
    loaded: LoadedModel, rows: list[TokenizedExample], layout: str, rows_per_pass: int, max_tokens: int
) -> None:
    got = completion_log_probs(loaded, rows, layout, rows_per_pass, max_tokens)
    assert len(got) == len(rows)
    for row, values in zip(rows, got, strict=True):
        assert values == pytest.approx(by_hand(loaded, row), abs=1e-9)


def test_tree_and_padded_agree(loaded: LoadedModel, rows: list[TokenizedExample]) -> None:
    tree, padded = (completion_log_probs(loaded, rows, layout) for layout in ("tree", "padded"))
    assert [len(values) for values in tree] == [len(row.completion_ids) for row in rows]
    for one, other in zip(tree, padded, strict=True):
        assert one == pytest.approx(other, abs=1e-9)
    assert tree[8] == tree[11]


def test_no_rows_have_no_log_probs(loaded: LoadedModel) -> None:
    assert completion_log_probs(loaded, [], "tree") == []


def test_a_model_in_training_is_scored_without_dropout(
    loaded: LoadedModel, rows: list[TokenizedExample]
) -> None:
    wanted = completion_log_probs(loaded, rows, "tree")
    dropouts = [module for module in loaded.model.modules() if isinstance(module, torch.nn.Dropout)]
    for module in dropouts:
        module.p = 0.5
    loaded.model.train()
    assert completion_log_probs(loaded, rows, "tree") == wanted
    for module in dropouts:
        module.p = 0.0
