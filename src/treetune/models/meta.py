"""Weights that have a shape and no memory yet, as a model has before its checkpoint is read."""

from __future__ import annotations

from typing import Any

from torch.nn.init import normal_
from torch.overrides import TorchFunctionMode


class NothingDrawn(TorchFunctionMode):
    """Inside, no normal distribution is drawn for weights without memory.

    Constructors draw one for every embedding. Without memory that changes nothing, but torch goes through sums of its
    reference implementation for it, and imports what compares unknown sizes: sympy, 33 MB and 0.3 s.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """``func``, but for `torch.nn.init.normal_` of a meta tensor, which is the tensor as it is."""
        named = kwargs or {}
        if func is normal_ and (weight := args[0] if args else named["tensor"]).is_meta:
            return weight
        return func(*args, **named)
