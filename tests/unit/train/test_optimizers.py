"""Optimizers by name."""

from collections.abc import Callable

import pytest
import torch
from transformers import OPTConfig, OPTForCausalLM

from treetune.models.adapters import add_lora
from treetune.models.gpt3 import GPT3LMHeadModel
from treetune.train.optimizers import Muon, build_optimizers, orthogonal, set_learning_rate, start_state

Make = Callable[..., GPT3LMHeadModel]
ALL = ("adamw", "adam", "sgd", "muon")


def with_gradients(model: GPT3LMHeadModel) -> GPT3LMHeadModel:
    model(torch.tensor([[1, 2, 3, 4, 5]])).loss.backward()
    return model


def test_sgd_is_exactly_weights_minus_rate_times_gradient(make_model: Make) -> None:
    model = with_gradients(make_model().double())
    expected = {name: w.detach() - 0.1 * w.grad for name, w in model.named_parameters()}
    (optimizer,) = build_optimizers(model, "sgd", 0.1, None)
    optimizer.step()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.detach(), expected[name], rtol=0, atol=1e-15)


@pytest.mark.parametrize(("optim", "decay"), [("adam", 0.0), ("sgd", 0.0), ("adamw", 0.01), ("muon", 0.01)])
def test_default_decay_is_for_matrices_only(make_model: Make, optim: str, decay: float) -> None:
    for optimizer in build_optimizers(make_model(), optim, 0.1, None):
        for group in optimizer.param_groups:
            dims = {weight.dim() >= 2 for weight in group["params"]}
            assert group["weight_decay"] == (decay if dims == {True} else 0.0)
            assert len(dims) == 1


def test_adam_without_gradient_does_not_move(make_model: Make) -> None:
    model = make_model()
    before = [weight.detach().clone() for weight in model.parameters()]
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    build_optimizers(model, "adam", 0.1, None)[0].step()
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_a_given_decay_is_used(make_model: Make) -> None:
    (optimizer,) = build_optimizers(make_model(), "adamw", 0.1, 0.3)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.3, 0.0}


@pytest.mark.parametrize("optim", ["adamw", "adam"])
def test_a_state_made_before_the_first_step_is_torchs_own(make_model: Make, optim: str) -> None:
    states, models = [], [make_model(), make_model()]
    for model, early in zip(models, (True, False), strict=True):
        optimizers = build_optimizers(model, optim, 0.1, None)
        if early:
            start_state(optimizers)
        with_gradients(model)
        for _ in range(2):
            optimizers[0].step()
        start_state(optimizers)  # one that stands is left alone
        states.append(optimizers[0].state_dict()["state"])
    assert states[0].keys() == states[1].keys()
    for number, mine in states[0].items():
        assert mine.keys() == states[1][number].keys()
        for key, value in mine.items():
            assert value.dtype == states[1][number][key].dtype
            assert torch.equal(value, states[1][number][key])
    for weight, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(weight, other)


@pytest.mark.parametrize("optim", ALL)
def test_every_trainable_weight_is_in_exactly_one_group(make_model: Make, optim: str) -> None:
    model = make_model()
    model.transformer.wpe.weight.requires_grad_(False)
    held = [id(w) for o in build_optimizers(model, optim, 0.1, None) for g in o.param_groups for w in g["params"]]
    assert sorted(held) == sorted(id(w) for w in model.parameters() if w.requires_grad)


def test_muon_serves_the_matrices_of_the_layers_only(make_model: Make) -> None:
    model = make_model()
    muon, rest = build_optimizers(model, "muon", 0.1, None)
    assert isinstance(muon, Muon)
    assert isinstance(rest, torch.optim.AdamW)
    names = {id(weight): name for name, weight in model.named_parameters()}
    served = {names[id(weight)] for weight in muon.param_groups[0]["params"]}
    assert served == {name for name, w in model.named_parameters() if ".h." in name and w.dim() == 2}


def test_muon_leaves_position_tables_of_other_families_alone() -> None:
    model = OPTForCausalLM(OPTConfig(vocab_size=20, hidden_size=16, ffn_dim=16, num_hidden_layers=1,
                                     num_attention_heads=2, max_position_embeddings=8, word_embed_proj_dim=16))
    muon, _ = build_optimizers(model, "muon", 0.1, None)
    table = model.model.decoder.embed_positions.weight
    assert not any(weight is table for weight in muon.param_groups[0]["params"])


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft still asks transformers by an old name
@pytest.mark.parametrize("optim", ALL)
def test_adapters_can_be_trained_with_every_optimizer(make_model: Make, optim: str) -> None:
    model = add_lora(make_model(), 2, 4, 0.0)
    optimizers = build_optimizers(model, optim, 0.1, None)
    held = {id(w) for o in optimizers for g in o.param_groups for w in g["params"]}
    assert held == {id(w) for w in model.parameters() if w.requires_grad}


@pytest.mark.parametrize("shape", [(16, 16), (8, 32), (32, 8)])
def test_an_orthogonal_matrix_has_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    made = orthogonal(matrix)
    own = torch.linalg.svdvals(made)
    kept = values > 0.05 * values[0]
    assert made.shape == matrix.shape
    assert own.max() < 1.3
    assert own[: int(kept.sum())].min() > 0.6
    assert torch.nn.functional.cosine_similarity(made.flatten(), (left @ right).flatten(), dim=0) > 0.9


def test_a_zero_matrix_stays_finite() -> None:
    assert torch.isfinite(orthogonal(torch.zeros(4, 4))).all()


@pytest.mark.parametrize("optim", ALL)
def test_the_learning_rate_reaches_every_group(make_model: Make, optim: str) -> None:
    optimizers = build_optimizers(make_model(), optim, 0.1, None)
    set_learning_rate(optimizers, 0.5)
    assert {group["lr"] for optimizer in optimizers for group in optimizer.param_groups} == {0.5}


@pytest.mark.parametrize(("optim", "rate"), [("adamw", 1e-2), ("adam", 1e-2), ("sgd", 0.5), ("muon", 1e-2)])
def test_every_optimizer_lowers_the_loss(make_model: Make, optim: str, rate: float) -> None:
    model = make_model()
    optimizers = build_optimizers(model, optim, rate, None)
    losses = []
    for _ in range(15):
        loss = model(torch.tensor([[1, 2, 3, 4, 5, 6]])).loss
        loss.backward()
        losses.append(float(loss.detach()))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert losses[-1] < 0.7 * losses[0]
