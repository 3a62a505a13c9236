"""Checkpoints that are whole or absent: safetensors and JSON in a temporary folder, manifest last, then a rename.

One layout, whatever number of processes holds the weights and in which parts: tensors are put together one after the
other while they are written, and each process reads its own rows of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import struct
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor

from treetune.core.errors import RunError
from treetune.core.files import disk_error, file_digest, read_json, sync_folder, value_digest, write_chunks, write_json
from treetune.models.product import numpys
from treetune.models.shard import is_sharded, own_rows, part_like, whole

WEIGHTS, OPTIMIZER, STATE, MANIFEST = "model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"
PLAIN_KEYS = {"step", "files", "fingerprint"}  # of manifests before they had a digest of their own
KEYS = PLAIN_KEYS | {"versions", "sha256"}
DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}
_found_whole: dict[Path, tuple[Any, ...]] = {}


@dataclass(slots=True)
class TrainState:
    """Where a run stands. ``step`` steps are done; ``best_step`` is the step of the lowest validation loss.

    ``tokens``: of the separate rows so far; ``computed_tokens``: of the passes that were run for them.
    ``evaluated_step``: the last step whose evaluation is in here. ``usual_loss``: moving average over
    ``usual_count`` good steps. ``bad_in_row``: steps just left out; ``skipped_steps``: all that were.
    ``halved``: passes are half as large since memory ran out.
    """

    step: int = 0
    best_step: int = 0
    best_loss: float | None = None
    evaluations_without_gain: int = 0
    tokens: int = 0
    computed_tokens: int = 0
    seconds: float = 0.0
    evaluated_step: int = 0
    usual_loss: float = 0.0
    usual_count: int = 0
    bad_in_row: int = 0
    skipped_steps: int = 0
    halved: bool = False
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
        make_folder(folder)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        tensors, state.optimizer_groups = flatten_optimizers(model, optimizers)
        text = json.dumps(asdict(state), ensure_ascii=False, indent=2, allow_nan=False) + "\n"
        files = {
            WEIGHTS: write_chunks(temporary / WEIGHTS, tensor_chunks(trainable_weights(model))),
            OPTIMIZER: write_chunks(temporary / OPTIMIZER, tensor_chunks(tensors)),
            STATE: write_chunks(temporary / STATE, [text.encode("utf-8")]),
        }
        manifest = {"step": state.step, "files": files, "fingerprint": fingerprint, "versions": versions()}
        write_json(temporary / MANIFEST, {**manifest, "sha256": value_digest(manifest)})
        if target.exists():
            set_aside(target)
        os.rename(temporary, target)
        sync_folder(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        bring_back(folder)
        raise disk_error(error, target) from error
    except RuntimeError:  # a RunError, or a process that does not give its parts any more
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _found_whole[target] = appearance(target)
    rotate(folder, keep, {state.best_step, state.step})
    return target


def make_folder(folder: Path) -> None:
    """A folder whose name is durable, too."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)


def tensor_chunks(tensors: Mapping[str, torch.Tensor]) -> Iterator[Any]:
    """A safetensors file, tensor after tensor: no second copy of all of them in memory, each write one of ours.

    The format: 8 bytes with the header's length, a JSON header, the tensors' bytes without gaps
    (https://github.com/huggingface/safetensors, "Format").
    """
    order = order_of(tensors)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name in order:
        size = tensors[name].numel() * tensors[name].element_size()
        header[name] = {"dtype": DTYPES[tensors[name].dtype], "shape": list(tensors[name].shape),
                        "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for name in order:
        yield whole(tensors[name].detach()).cpu().contiguous().flatten().view(torch.uint8).numpy()


def order_of(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Names in the order of the file: no tensor may start between the bytes of a number."""
    return sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))


def gather_with_lead(model: torch.nn.Module, optimizers: list[torch.optim.Optimizer]) -> None:
    """What the other processes do while the lead saves: give their parts, in the order in which it writes."""
    if is_sharded(model):
        for tensors in (trainable_weights(model), flatten_optimizers(model, optimizers)[0]):
            for name in order_of(tensors):
                whole(tensors[name])


def versions() -> dict[str, str]:
    """What byte-equality depends on beside the settings."""
    return {"python": platform.python_version(), "machine": platform.machine(), "torch": torch.__version__,
            "products": "numpy" if numpys() is not None else "torch",
            **{name: metadata.version(name) for name in ("transformers", "safetensors", "numpy")}}


def set_aside(path: Path) -> None:
    """Make room for a new checkpoint of the same step; until that is there, `bring_back` undoes it."""
    aside = path.parent / f".tmp-old-{path.name}"
    shutil.rmtree(aside, ignore_errors=True)
    os.rename(path, aside)


def bring_back(folder: Path) -> None:
    """Undo `set_aside` where a crash came between its two renames."""
    for aside in folder.glob(".tmp-old-step-*"):
        path = folder / aside.name.removeprefix(".tmp-old-")
        if not path.exists():
            with contextlib.suppress(OSError):
                os.rename(aside, path)


def flatten_optimizers(
    model: torch.nn.Module, optimizers: list[torch.optim.Optimizer],
) -> tuple[dict[str, torch.Tensor], list[list[dict[str, Any]]]]:
    """State tensors by name, and the groups without tensors (JSON)."""
    tensors: dict[str, torch.Tensor] = {}
    groups: list[list[dict[str, Any]]] = []
    for number, optimizer in enumerate(optimizers):
        state = numbered_state(model, optimizer) if is_sharded(model) else optimizer.state_dict()
        for weight, entries in state["state"].items():
            for key, value in entries.items():
                tensors[f"{number}.{weight}.{key}"] = torch.as_tensor(value).contiguous()
        groups.append(state["param_groups"])
    return tensors, groups


def numbered_state(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """`Optimizer.state_dict` of weights in parts, which DCP names by weight; nothing is put together here."""
    if not optimizer.state:  # DCP would take a step to make one
        return optimizer.state_dict()
    found: dict[str, Any] = get_optimizer_state_dict(model, optimizer)
    names = [name for group in found["param_groups"] for name in group["params"]]
    numbers = {name: number for number, name in enumerate(names)}
    groups = [{**group, "params": [numbers[name] for name in group["params"]]} for group in found["param_groups"]]
    return {"state": {numbers[name]: entries for name, entries in found["state"].items()}, "param_groups": groups}


def set_numbered_state(model: torch.nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Undo `numbered_state`."""
    names = {id(weight): name for name, weight in model.named_parameters()}
    order = [names[id(weight)] for group in optimizer.param_groups for weight in group["params"]]
    named: Any = {"state": {order[number]: entries for number, entries in state["state"].items()},
             "param_groups": [{**group, "params": [order[number] for number in group["params"]]}
                              for group in state["param_groups"]]}
    set_optimizer_state_dict(model, optimizer, named, options=StateDictOptions(strict=False))


def restore(
    path: Path, model: torch.nn.Module, optimizers: list[torch.optim.Optimizer]
) -> TrainState:
    """Bring model and optimizers to the state of the checkpoint (already found valid)."""
    load_weights(path, model)
    state = read_state(path)
    for number, optimizer in enumerate(optimizers):
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        entries: dict[int, dict[str, torch.Tensor]] = {}
        with safe_open(path / OPTIMIZER, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                owner, weight, key = name.split(".", 2)
                if int(owner) == number:
                    entries.setdefault(int(weight), {})[key] = read_part(file, name, weights[int(weight)])
        groups = [dict(group) for group in state.optimizer_groups[number]]
        for group in groups:
            group.update({key: tuple(value) for key, value in group.items()
                          if isinstance(value, list) and key != "params"})
        if is_sharded(model) and entries:
            set_numbered_state(model, optimizer, {"state": entries, "param_groups": groups})
        else:
            optimizer.load_state_dict({"state": entries, "param_groups": groups})
    return state


def read_part(file: Any, name: str, weight: torch.Tensor) -> torch.Tensor:
    """A tensor of an open safetensors file; of one shaped as a weight in parts, the rows that lie in this process."""
    if not isinstance(weight, DTensor) or tuple(file.get_slice(name).get_shape()) != tuple(weight.shape):
        return torch.as_tensor(file.get_tensor(name))
    rows = own_rows(weight)
    empty = rows.start == rows.stop
    return part_like(weight, weight.to_local().detach()[:0] if empty else file.get_slice(name)[rows])


def read_state(path: Path) -> TrainState:
    """The state a checkpoint holds.

    Raises:
        RunError: E5014 it was written by a newer version.
    """
    values = read_json(path / STATE)
    unknown = sorted(set(values) - {each.name for each in fields(TrainState)})
    if unknown:
        raise RunError("E5014", "the checkpoint was written by a newer version", where=str(path / STATE),
                       found=", ".join(unknown), do="install that version again, or start a new run")
    state = TrainState(**values)
    if "evaluated_step" not in values:  # an older version evaluated before it saved
        state.evaluated_step = state.step
    return state


def load_weights(path: Path, model: torch.nn.Module) -> None:
    """Put the checkpoint's weights into the model."""
    own = dict(model.named_parameters())
    with torch.no_grad(), safe_open(path / WEIGHTS, "pt") as file:
        for name in file.keys():  # noqa: SIM118
            own[name].copy_(read_part(file, name, own[name]))


def steps_on_disk(folder: Path) -> list[tuple[int, Path]]:
    """(step, path) of everything named like a checkpoint, newest first."""
    found = [(int(path.name[5:]), path) for path in folder.glob("step-*") if path.name[5:].isdigit()]
    return sorted(found, reverse=True)


def problem_of(path: Path) -> str:
    """What is wrong with a checkpoint, ``""`` when it is whole: sizes and digests against its manifest."""
    try:
        manifest = read_json(path / MANIFEST)
        if set(manifest) not in (KEYS, PLAIN_KEYS) or set(manifest["files"]) != {WEIGHTS, OPTIMIZER, STATE}:
            return "its manifest does not list its files"
        told = manifest.pop("sha256", "")
        if (told and value_digest(manifest) != told) or f"step-{manifest['step']}" != path.name:
            return f"{MANIFEST} was changed after it was written"
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


def appearance(path: Path) -> tuple[Any, ...]:
    """What a change to a checkpoint's files would show in, without reading them."""
    stats = [(path / name).stat() for name in (WEIGHTS, OPTIMIZER, STATE, MANIFEST)]
    return tuple((each.st_ino, each.st_size, each.st_mtime_ns) for each in stats)


def is_whole(path: Path) -> bool:
    """Whether a checkpoint is whole; one that this process has read or written and nobody has touched is not read
    again, so that rotating costs a save no second walk through the files.
    """
    try:
        looks = appearance(path)
    except OSError:
        return False
    if _found_whole.get(path) != looks:
        if problem_of(path):
            return False
        _found_whole[path] = looks
    return True


def rotate(folder: Path, keep: int, needed: set[int]) -> None:
    """Delete all but the newest ``keep`` whole checkpoints and the ``needed`` steps; junk of crashed saves goes too."""
    for junk in folder.glob(".tmp-*"):
        shutil.rmtree(junk, ignore_errors=True)
    kept = 0
    for step, path in steps_on_disk(folder):
        if kept < keep and is_whole(path):
            kept += 1
        elif step not in needed:
            _found_whole.pop(path, None)
            shutil.rmtree(path, ignore_errors=True)
