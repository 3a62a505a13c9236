"""Checkpoints that are whole or absent: safetensors and JSON in a temporary folder, manifest last, then a rename."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from treetune.core.errors import RunError
from treetune.core.files import disk_error, file_digest, read_json, sync_folder, write_bytes, write_json

WEIGHTS, OPTIMIZER, STATE, MANIFEST = "model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"


@dataclass(slots=True)
class TrainState:
    """Where a run stands. ``step`` steps are done; ``best_step`` is the step of the lowest validation loss.

    ``tokens``: of the separate rows so far; ``computed_tokens``: of the passes that were run for them.
    """

    step: int = 0
    best_step: int = 0
    best_loss: float | None = None
    evaluations_without_gain: int = 0
    tokens: int = 0
    computed_tokens: int = 0
    seconds: float = 0.0
    optimizer_groups: list[list[dict[str, Any]]] = field(default_factory=list)


def trainable_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Name -> weight, only what training changes, tied weights once."""
    return {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}


def save_checkpoint(
    folder: Path, model: torch.nn.Module, optimizers: list[torch.optim.Optimizer], state: TrainState,
    fingerprint: dict[str, Any], keep: int,
) -> Path:
    """Write ``folder/step-N`` and drop all but the newest ``keep`` valid ones and the best.

    Raises:
        RunError: E5001 disk full, E5002 no permission; nothing half-written keeps a checkpoint's name.
    """
    target = folder / f"step-{state.step}"
    temporary = folder / f".tmp-{target.name}-{os.getpid()}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write_bytes(temporary / WEIGHTS, save({k: v.contiguous() for k, v in trainable_weights(model).items()}))
        tensors, state.optimizer_groups = flatten_optimizers(optimizers)
        write_bytes(temporary / OPTIMIZER, save(tensors))
        write_json(temporary / STATE, asdict(state))
        files = {
            name: {"bytes": (temporary / name).stat().st_size, "sha256": file_digest(temporary / name)}
            for name in (WEIGHTS, OPTIMIZER, STATE)
        }
        write_json(temporary / MANIFEST, {"step": state.step, "files": files, "fingerprint": fingerprint})
        replaced = folder / f".tmp-old-{target.name}"
        if target.exists():
            os.rename(target, replaced)
        os.rename(temporary, target)
        sync_folder(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise disk_error(error, target) from error
    except RunError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    rotate(folder, keep, {state.best_step, state.step})
    return target


def flatten_optimizers(
    optimizers: list[torch.optim.Optimizer],
) -> tuple[dict[str, torch.Tensor], list[list[dict[str, Any]]]]:
    """State tensors by name, and the groups without tensors (JSON)."""
    tensors: dict[str, torch.Tensor] = {}
    groups: list[list[dict[str, Any]]] = []
    for number, optimizer in enumerate(optimizers):
        state = optimizer.state_dict()
        for weight, entries in state["state"].items():
            for key, value in entries.items():
                tensors[f"{number}.{weight}.{key}"] = torch.as_tensor(value).contiguous()
        groups.append(state["param_groups"])
    return tensors, groups


def restore(
    path: Path, model: torch.nn.Module, optimizers: list[torch.optim.Optimizer]
) -> TrainState:
    """Bring model and optimizers to the state of the checkpoint (already found valid)."""
    load_weights(path, model)
    state = TrainState(**read_json(path / STATE))
    tensors = load_file(str(path / OPTIMIZER))
    for number, optimizer in enumerate(optimizers):
        entries: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            owner, weight, key = name.split(".", 2)
            if int(owner) == number:
                entries.setdefault(int(weight), {})[key] = tensor
        groups = [dict(group) for group in state.optimizer_groups[number]]
        for group in groups:
            group.update({key: tuple(value) for key, value in group.items()
                          if isinstance(value, list) and key != "params"})
        optimizer.load_state_dict({"state": entries, "param_groups": groups})
    return state


def load_weights(path: Path, model: torch.nn.Module) -> None:
    """Put the checkpoint's weights into the model."""
    weights = load_file(str(path / WEIGHTS))
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in weights.items():
            own[name].copy_(tensor)


def steps_on_disk(folder: Path) -> list[tuple[int, Path]]:
    """(step, path) of everything named like a checkpoint, newest first."""
    found = [(int(path.name[5:]), path) for path in folder.glob("step-*") if path.name[5:].isdigit()]
    return sorted(found, reverse=True)


def problem_of(path: Path) -> str:
    """What is wrong with a checkpoint, ``""`` when it is whole: sizes and digests against its manifest."""
    try:
        manifest = read_json(path / MANIFEST)
        if set(manifest["files"]) != {WEIGHTS, OPTIMIZER, STATE}:
            return "its manifest does not list its files"
        for name, facts in manifest["files"].items():
            if (path / name).stat().st_size != facts["bytes"]:
                return f"{name} has {(path / name).stat().st_size} bytes, not {facts['bytes']}"
            if file_digest(path / name) != facts["sha256"]:
                return f"{name} was changed after it was written"
    except (RunError, OSError, SafetensorError, KeyError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {getattr(error, 'found', '') or error}"
    return ""


def newest_valid(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint, and a line about each broken one passed over on the way."""
    broken: list[str] = []
    for _, path in steps_on_disk(folder):
        problem = problem_of(path)
        if not problem:
            return path, broken
        broken.append(f"{path.name}: {problem}")
    return None, broken


def rotate(folder: Path, keep: int, needed: set[int]) -> None:
    """Delete all but the newest ``keep`` whole checkpoints and the ``needed`` steps; junk of crashed saves goes too."""
    for junk in folder.glob(".tmp-*"):
        shutil.rmtree(junk, ignore_errors=True)
    kept = 0
    for step, path in steps_on_disk(folder):
        if kept < keep and not problem_of(path):
            kept += 1
        elif step not in needed:
            shutil.rmtree(path, ignore_errors=True)
