"""How a model runs over trees: which of its parts are replaced by faster ones that compute the same.

Every part is proved on the user's own model before it is used (`treetune.models.exactness`): attention block by block,
the head at labels in stretches, the last layer at labels only, GELU as one kernel, a low-rank adapter with its layer,
norms and activation functions that are computed twice instead of kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from treetune.models.last_layer import can_prune, prune
from treetune.models.low_rank import fuse_adapters
from treetune.models.projection import use_projections
from treetune.models.recomputed import recompute
from treetune.models.shard import inside
from treetune.models.tree_attention import NAME

KEPT_AS = "_treetune_engine"
GELU_BY_TANH = ("NewGELUActivation", "FastGELUActivation", "GELUTanh")
PROBE_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Engine:
    """What is used for a model.

    Attributes:
        blocks: attention over trees block by block; else one (T, T) mask through the public interface.
        own_head: loss from hidden states in stretches; else logits as the model gives them.
        pruned: the last layer computes labelled tokens only.
        flex: attention as one FlexAttention kernel instead of block by block; on GPUs.
    """

    blocks: bool = False
    own_head: bool = False
    pruned: bool = False
    flex: bool = False

    def less(self) -> list[Engine]:
        """Engines to try when this one is not exact, each doing less by itself."""
        weaker = [replace(self, flex=False), replace(self, flex=False, pruned=False),
                  replace(self, flex=False, pruned=False, own_head=False), Engine()]
        return [each for place, each in enumerate(weaker) if each != self and each not in weaker[:place]]


def core_model(model: Any) -> Any:
    """The transformers model, without the wrapper of adapters around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def engine_of(model: Any) -> Engine:
    """What the model was set up for; nothing, where `set_up` was never called."""
    found: Engine = getattr(core_model(model), KEPT_AS, Engine())
    return found


def fullest_engine(model: Any) -> Engine:
    """Everything this model's structure allows; whether it is exact is not asked here."""
    core = core_model(model)
    blocks = bool(getattr(core, "takes_tree", False)) or _takes_attention_function(core)
    return Engine(blocks=blocks, own_head=_has_plain_head(core), pruned=blocks and can_prune(core),
                  flex=blocks and next(core.parameters()).is_cuda)


def set_up(model: Any, engine: Engine) -> None:
    """Make the model run that way from now on; calls without a tree stay what they were."""
    core = core_model(model)
    if engine.flex and not next(core.parameters()).is_cuda:  # a run from a GPU, opened elsewhere
        engine = replace(engine, flex=False)
    if engine.blocks and not getattr(core, "takes_tree", False):
        core.set_attn_implementation(NAME)
    if engine.blocks and engine.pruned:
        prune(core)
    _fuse_gelu(core)
    use_projections(core)
    recompute(core)
    fuse_adapters(core)
    setattr(core, KEPT_AS, engine)


def _takes_attention_function(core: Any) -> bool:
    """Whether its attention is looked up in transformers' registry (the old models bring their own)."""
    return bool(getattr(core, "_supports_sdpa", False)) and bool(getattr(core, "_supports_attention_backend", False))


@torch.no_grad()
def _has_plain_head(core: Any) -> bool:
    """Whether the logits are hidden states times one matrix: no bias, no scale, no cap."""
    head = core.get_output_embeddings()
    if type(head) is not nn.Linear or head.bias is not None:
        return False
    settings = core.config.to_dict()
    if any(settings[name] for name in settings if "softcap" in name):  # too small to see until logits have grown
        return False
    training = core.training
    core.eval()
    ids = torch.arange(PROBE_TOKENS, device=head.weight.device)[None] % head.weight.shape[0]

    def both() -> tuple[torch.Tensor, torch.Tensor]:
        return (core.base_model(input_ids=ids, use_cache=False)[0] @ head.weight.T,
                core(input_ids=ids, use_cache=False).logits)

    try:
        own, logits = inside(core, both)
    except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError):
        return False
    finally:
        core.train(training)
    return own.shape == logits.shape and bool((own - logits).abs().max() <= 1e-4 * logits.abs().max())


def _fuse_gelu(core: Any) -> None:
    for module in core.modules():
        for name, child in module.named_children():
            if type(child).__name__ in GELU_BY_TANH:
                setattr(module, name, nn.GELU(approximate="tanh"))
