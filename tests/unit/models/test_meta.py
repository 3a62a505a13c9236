"""Nothing is drawn for weights without memory, and everything as ever for those with it."""

import torch

from treetune.models.meta import NothingDrawn


def test_a_weight_without_memory_takes_no_numbers_and_no_compiler() -> None:
    before = torch.random.get_rng_state()
    with NothingDrawn(), torch.device("meta"):
        embedding = torch.nn.Embedding(3, 2, padding_idx=0)
    assert embedding.weight.is_meta
    assert isinstance(embedding.weight, torch.nn.Parameter)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_weight_with_memory_gets_what_it_would_have_got() -> None:
    torch.manual_seed(3)
    expected = torch.nn.Embedding(3, 2).weight
    torch.manual_seed(3)
    with NothingDrawn():
        embedding = torch.nn.Embedding(3, 2)
        by_name = torch.nn.init.normal_(tensor=torch.empty(4), std=0.0)
    assert torch.equal(embedding.weight, expected)
    assert torch.equal(by_name, torch.zeros(4))
