"""A model whose weights lie in parts over several processes: FSDP2, each block gathered only while it computes.

torch's own engine (`torch.distributed.fsdp.fully_shard`) holds, gathers and frees the parts and adds up gradients.
Here is what treetune asks of it: sums instead of means, a way in for losses that call parts of a model, and a way
back to an ordinary model. Every function but `whole` of a plain tensor is called by all processes, in the same order.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

KEPT_AS = "_treetune_whole"
VIEWS_THAT_STAY = r"FSDP2-wrapped module \(FSDPT5Block\) returned a view"
"""FSDP2 warns of layers that give a view, which nobody may change in place; T5 does not (a test compares gradients)."""
Found = TypeVar("Found")


class Whole(nn.Module):
    """The outermost unit: what runs in its forward finds the weights that stand in no block gathered.

    Around the model, not the model itself: so the model keeps its class, and with it the name it is saved under, and
    a loss may call its parts (hidden states without the head) and read a matrix (the head's, tied to the embedding).
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, work: Callable[[], Any]) -> Any:
        """What ``work`` gives; tensors in it that a backward pass starts from must be in tuples, lists or dicts."""
        return work()


def shard(model: nn.Module, blocks: Sequence[nn.Module], device: str) -> None:
    """Keep one part in as many of each weight as there are processes; each block is one unit, all else another.

    Args:
        device: ``cpu`` or ``cuda``; the weights are moved there block by block, so that none holds them all.
    """
    warnings.filterwarnings("ignore", message=VIEWS_THAT_STAY)
    mesh = init_device_mesh(device, (distributed.get_world_size(),))
    root = Whole(model)
    for unit in [*blocks, root]:
        fully_shard(unit, mesh=mesh)
        assert isinstance(unit, FSDPModule)
        unit.set_gradient_divide_factor(1.0)  # a step's loss is a sum, divided once
        unit.set_force_sum_reduction_for_comms(True)  # gloo knows no other
    for module in model.modules():
        module.__dict__[KEPT_AS] = root  # past nn.Module, which would take it for a part of the model


def is_sharded(model: nn.Module) -> bool:
    """Whether the processes must run through this model in step."""
    return KEPT_AS in model.__dict__


def inside(model: nn.Module, work: Callable[[], Found]) -> Found:
    """What ``work`` gives, which runs the model; the one way to run a model that may be in parts."""
    root: Any = model.__dict__.get(KEPT_AS)
    if root is None:
        return work()
    try:
        found: Found = root(work)
    except Exception:
        recover(model)
        raise
    if not torch.is_grad_enabled():
        root.reshard()  # no backward pass will
    return found


def recover(model: nn.Module) -> None:
    """Parts as they were before a forward or backward pass that failed in all processes alike."""
    root: Any = model.__dict__.get(KEPT_AS)
    if root is None:
        return
    if hasattr(root, "reset_iter_state"):  # torch 2.13
        root.reset_iter_state()
    for module in root.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor that may be in parts."""
    found: torch.Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return found


def own_rows(tensor: DTensor) -> slice:
    """Which rows of the whole tensor lie here: equal shares, the last ones smaller or empty."""
    mesh = tensor.device_mesh
    share = -(-tensor.shape[0] // mesh.size())
    start = min(tensor.shape[0], mesh.get_local_rank() * share)
    return slice(start, min(tensor.shape[0], start + share))


def part_like(weight: DTensor, rows: torch.Tensor) -> DTensor:
    """A tensor in parts as ``weight`` is, from the rows that lie here."""
    return DTensor.from_local(rows.to(weight.device), weight.device_mesh, weight.placements, run_check=False,
                              shape=weight.shape, stride=weight.stride())


@torch.no_grad()
def gather(model: nn.Module, keep: bool) -> None:
    """Make an ordinary model of it again, on the processor, where it is to be kept; it cannot be trained on then.

    Weight after weight, so that the device never holds more than one of them whole.
    """
    held: dict[int, nn.Parameter | None] = {}
    for module in model.modules():
        for name, weight in module._parameters.items():
            if not isinstance(weight, DTensor):
                continue
            if id(weight) not in held:  # tied weights once
                found = whole(weight.detach()).cpu()
                held[id(weight)] = nn.Parameter(found, weight.requires_grad) if keep else None
            if keep:
                module._parameters[name] = held[id(weight)]
    if keep:
        for module in model.modules():
            module.__dict__.pop(KEPT_AS, None)
            module._buffers.update({name: buffer.cpu() for name, buffer in module._buffers.items()
                                    if buffer is not None})
