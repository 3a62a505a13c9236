"""Checkpoints are whole or absent."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load

from treetune.core.errors import RunError
from treetune.models.gpt3 import GPT3LMHeadModel
from treetune.train import checkpoint
from treetune.train.checkpoint import TrainState, newest_valid, problem_of, restore, rotate, save_checkpoint
from treetune.train.optimizers import build_optimizers

Make = Callable[..., GPT3LMHeadModel]
FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json")
PLAIN = ("step", "best_step", "best_loss", "evaluations_without_gain", "tokens", "computed_tokens", "seconds")


def trained(model: GPT3LMHeadModel, optim: str = "adamw", steps: int = 2) -> list[torch.optim.Optimizer]:
    optimizers = build_optimizers(model, optim, 1e-2, None)
    for _ in range(steps):
        model(torch.tensor([[1, 2, 3, 4]])).loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return optimizers


@pytest.fixture
def save(tmp_path: Path, make_model: Make) -> Callable[..., Path]:
    """(step, keep, best) -> path of a new checkpoint."""
    model = make_model()
    optimizers = trained(model)

    def run(step: int, keep: int = 5, best: int = 0) -> Path:
        return save_checkpoint(tmp_path, model, optimizers, TrainState(step=step, best_step=best), {"a": 1}, keep)

    return run


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("optim", ["adamw", "adam", "sgd", "muon"])
def test_a_checkpoint_comes_back_byte_equal_and_goes_on_equal(
    tmp_path: Path, make_model: Make, digest: Callable[..., str], optim: str
) -> None:
    model = make_model()
    optimizers = trained(model, optim)
    state = TrainState(step=2, best_step=1, best_loss=0.5, tokens=9, computed_tokens=7, seconds=1.5)
    path = save_checkpoint(tmp_path / "one", model, optimizers, state, {}, 2)
    other = make_model(initializer_range=0.5)
    fresh = build_optimizers(other, optim, 1e-2, None)
    back = restore(path, other, fresh)
    assert [getattr(back, each) for each in PLAIN] == [getattr(state, each) for each in PLAIN]
    assert digest(other) == digest(model)
    again = save_checkpoint(tmp_path / "two", other, fresh, back, {}, 2)
    for name in FILES:
        assert (again / name).read_bytes() == (path / name).read_bytes(), name
    for each, own in ((model, optimizers), (other, fresh)):
        each(torch.tensor([[5, 6, 7]])).loss.backward()
        for optimizer in own:
            optimizer.step()
    assert digest(other) == digest(model)


@pytest.mark.parametrize("name", FILES[:3])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damage_is_found_and_the_one_before_is_taken(
    tmp_path: Path, save: Callable[..., Path], name: str, damage: str
) -> None:
    good, bad = save(1), save(2)
    assert newest_valid(tmp_path) == (bad, [])
    data = bytearray((bad / name).read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        (bad / name).write_bytes(data)
    elif damage == "truncate":
        (bad / name).write_bytes(data[:-1])
    else:
        (bad / name).unlink()
    assert name in problem_of(bad)
    path, broken = newest_valid(tmp_path)
    assert path == good
    assert len(broken) == 1
    assert broken[0].startswith("step-2: ")


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"files": []}', '{"files": {}}',
                                     '{"files": {"model.safetensors": 3}}'])
def test_a_manifest_that_is_missing_or_broken_makes_the_checkpoint_broken(
    tmp_path: Path, save: Callable[..., Path], content: str | None
) -> None:
    good, bad = save(1), save(2)
    (bad / "manifest.json").unlink()
    if content is not None:
        (bad / "manifest.json").write_text(content)
    assert problem_of(bad)
    assert newest_valid(tmp_path)[0] == good


def test_without_any_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert newest_valid(tmp_path / "absent") == (None, [])
    (tmp_path / "step-x").mkdir()
    assert newest_valid(tmp_path) == (None, [])


def test_newest_means_the_highest_number_not_the_last_name(tmp_path: Path, save: Callable[..., Path]) -> None:
    save(10)
    save(9)
    assert newest_valid(tmp_path)[0] == tmp_path / "step-10"


def test_rotation_keeps_the_newest_and_the_best(tmp_path: Path, save: Callable[..., Path]) -> None:
    for step in range(1, 6):
        save(step, keep=2, best=2)
    assert names(tmp_path) == ["step-2", "step-4", "step-5"]


def test_rotation_never_deletes_the_last_whole_checkpoint(tmp_path: Path, save: Callable[..., Path]) -> None:
    good, bad = save(1), save(2)
    weights = bad / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    rotate(tmp_path, 1, {0})
    assert newest_valid(tmp_path)[0] == good


def test_a_fresh_checkpoint_outlives_a_broken_one_with_a_higher_number(
    tmp_path: Path, save: Callable[..., Path]
) -> None:
    bad = save(4)
    weights = bad / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    fresh = save(3, keep=1)
    assert newest_valid(tmp_path)[0] == fresh


def test_junk_of_a_crashed_save_is_no_checkpoint_and_goes(tmp_path: Path, save: Callable[..., Path]) -> None:
    (tmp_path / ".tmp-step-9-1").mkdir()
    (tmp_path / "step-3").mkdir()
    path = save(4)
    assert names(tmp_path) == ["step-4"]
    assert newest_valid(tmp_path)[0] == path


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, "E5001"), (errno.EACCES, "E5002")])
@pytest.mark.parametrize("place", ["fsync", "rename"])
def test_a_failed_save_leaves_the_old_ones_and_no_half_one(
    tmp_path: Path, save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, number: int, code: str, place: str
) -> None:
    old = save(1)

    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(checkpoint.os, place, fail)
    with pytest.raises(RunError) as caught:
        save(2, keep=1)
    monkeypatch.undo()
    assert caught.value.code == code
    assert names(tmp_path) == ["step-1"]
    assert newest_valid(tmp_path)[0] == old


def test_saving_a_step_again_cannot_lose_it(
    tmp_path: Path, save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = save(1)

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(checkpoint.os, "rename", fail)
    with pytest.raises(RunError):
        save(1)
    monkeypatch.undo()
    assert newest_valid(tmp_path)[0] == old


def test_tied_and_frozen_weights_are_not_stored_twice_or_at_all(make_model: Make) -> None:
    model = make_model()
    model.transformer.wpe.weight.requires_grad_(False)
    held = checkpoint.trainable_weights(model)
    assert "lm_head.weight" not in held
    assert "transformer.wpe.weight" not in held
    assert "transformer.wte.weight" in held


def test_the_manifest_holds_digests_and_fingerprint(save: Callable[..., Path]) -> None:
    manifest = checkpoint.read_json(save(3) / "manifest.json")
    assert manifest["step"] == 3
    assert manifest["fingerprint"] == {"a": 1}
    assert set(manifest["files"]) == set(FILES[:3])


KINDS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
         torch.int8, torch.uint8, torch.bool]


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(lambda n: n != "__metadata__"),
    st.tuples(st.sampled_from(KINDS), st.lists(st.integers(0, 3), max_size=3)), max_size=6))
def test_what_is_written_piece_by_piece_safetensors_reads_back(shapes: dict[str, Any]) -> None:
    draw = torch.Generator().manual_seed(0)
    tensors = {name: torch.randint(0, 2, shape, generator=draw).to(kind) for name, (kind, shape) in shapes.items()}
    data = b"".join(bytes(memoryview(chunk).cast("B")) if memoryview(chunk).nbytes else b""
                    for chunk in checkpoint.tensor_chunks(tensors))
    back = load(data)
    assert set(back) == set(tensors)
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor)


def test_a_flipped_bit_anywhere_is_found(tmp_path: Path, save: Callable[..., Path]) -> None:
    path = save(2)
    random = np.random.default_rng(0)
    for name in FILES:
        data = (path / name).read_bytes()
        for place in random.integers(0, len(data), 60 if name.endswith(".json") else 5):
            changed = bytearray(data)
            changed[place] ^= 1 << int(random.integers(8))
            (path / name).write_bytes(changed)
            assert problem_of(path), (name, place)
        (path / name).write_bytes(data)
    assert problem_of(path) == ""


def test_a_checkpoint_under_another_name_is_broken(tmp_path: Path, save: Callable[..., Path]) -> None:
    path = save(2)
    path.rename(tmp_path / "step-7")
    assert "manifest.json" in problem_of(tmp_path / "step-7")


def test_an_older_manifest_without_a_digest_of_its_own_is_good(tmp_path: Path, save: Callable[..., Path]) -> None:
    path = save(2)
    manifest = checkpoint.read_json(path / "manifest.json")
    older = {key: manifest[key] for key in ("step", "files", "fingerprint")}
    (path / "manifest.json").write_text(json.dumps(older))
    assert problem_of(path) == ""


def test_a_state_of_an_older_version_was_evaluated_and_one_of_a_newer_is_refused(
    tmp_path: Path, save: Callable[..., Path]
) -> None:
    path = save(4)
    values = checkpoint.read_json(path / "state.json")
    older = {key: value for key, value in values.items() if key in (*PLAIN, "optimizer_groups")}
    (path / "state.json").write_text(json.dumps(older))
    assert checkpoint.read_state(path).evaluated_step == 4
    (path / "state.json").write_text(json.dumps(values | {"from_the_future": 1}))
    with pytest.raises(RunError) as caught:
        checkpoint.read_state(path)
    assert (caught.value.code, caught.value.found) == ("E5014", "from_the_future")


def test_rotating_reads_no_checkpoint_twice(
    tmp_path: Path, save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    plain = checkpoint.problem_of

    def note(path: Path) -> str:
        read.append(path.name)
        return plain(path)

    monkeypatch.setattr(checkpoint, "problem_of", note)
    for step in (1, 2, 3):
        save(step, keep=2)
    assert read == []
    weights = tmp_path / "step-3" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    save(4, keep=2)  # the touched one is read again, found broken, and does not count
    assert read == ["step-3"]
    assert names(tmp_path) == ["step-2", "step-4"]


def test_a_crash_between_the_two_renames_of_a_step_saved_again_is_undone(
    tmp_path: Path, save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    save(1)
    checkpoint.set_aside(tmp_path / "step-1")
    assert newest_valid(tmp_path)[0] is None
    checkpoint.bring_back(tmp_path)
    assert newest_valid(tmp_path)[0] == tmp_path / "step-1"


@pytest.mark.parametrize("again", [False, True], ids=["a new step", "a step saved again"])
def test_killed_in_every_call_of_a_save_the_step_before_or_the_new_one_is_whole(
    tmp_path: Path, again: bool, benchmark_module: Callable[[str], Any]
) -> None:
    killing = benchmark_module("killing")
    model = torch.nn.Linear(3, 2)
    optimizers = build_optimizers(model, "adamw", 1e-2, None)
    model(torch.ones(3)).sum().backward()
    optimizers[0].step()

    def save(folder: Path, step: int) -> Path:
        return save_checkpoint(folder, model, optimizers, TrainState(step=step), {}, 1)

    def die(folder: Path, number: int) -> int:
        death = killing.DieAt(number)
        death.arm()
        save(folder, 1 if again else 2)
        (tmp_path / "calls").write_text(json.dumps(death.names))
        return 0

    save(tmp_path / "count", 1)
    killing.forked(lambda: die(tmp_path / "count", -1), tmp_path / "output")
    calls = json.loads((tmp_path / "calls").read_text())
    assert {"open", "write", "fsync", "replace", "rename", "mkdir"} <= set(calls)
    kept = set()
    for number in range(1, len(calls) + 1):
        folder = tmp_path / f"at-{number}"
        save(folder, 1)
        ended = killing.forked(lambda folder=folder, number=number: die(folder, number), tmp_path / "output")
        assert ended.killed, (tmp_path / "output").read_text()
        checkpoint.bring_back(folder)
        path, broken = newest_valid(folder)
        assert path is not None, calls[number - 1]
        assert broken == []
        kept.add(path.name)
        save(folder, 2)
        assert names(folder) == ["step-2"]
    assert kept == ({"step-1"} if again else {"step-1", "step-2"})
