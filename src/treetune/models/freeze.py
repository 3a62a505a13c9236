"""Training a part of a model: without its first layers, or its head alone (a linear probe)."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from treetune.core.errors import UsageError
from treetune.models.engine import core_model


def freeze_layers(model: Any, count: int) -> None:
    """Hold the embeddings and the first ``count`` layers as they are.

    The layers of an encoder-decoder are counted through the encoder, then through the decoder. A head that is the
    embedding matrix, as most decoders have it, is held, too.

    Raises:
        UsageError: E2009 there are not so many layers, or nothing is left to train.
    """
    core = core_model(model)
    layers = layers_of(core)
    if count > len(layers):
        raise UsageError("E2009", "more is frozen than there is", where="--freeze-layers", found=str(count),
                         allowed=f"0 to {len(layers)}", do="freeze fewer layers")
    inside = [module for layer in layers for module in layer.modules()]
    outside = [module for name, module in core.base_model.named_modules()
               if not any(module is each for each in inside) and is_embedding(name, module)]
    for part in [*outside, *layers[:count]]:
        for weight in part.parameters():
            weight.requires_grad_(False)
    refuse_all_frozen(model, "--freeze-layers")


def freeze_base(model: Any, fresh: tuple[str, ...] = ()) -> None:
    """Hold everything but what turns the last states into answers.

    That is the label or span head of an encoder, with its pooler where the files lack it; for a decoder or an
    encoder-decoder the last norm, and the output matrix where it is not the embedding.

    Args:
        fresh: names of weights that the files lack, which would stay random.

    Raises:
        UsageError: E2009 nothing is left to train.
    """
    core = core_model(model)
    body = core.base_model
    of_body = {id(weight) for weight in body.parameters()}
    writes = core.get_output_embeddings() is not None
    kept = {id(weight) for norm in (last_norms(core) if writes else []) for weight in norm.parameters()}
    for name, weight in core.named_parameters():
        weight.requires_grad_(id(weight) not in of_body or id(weight) in kept or name in fresh)
    refuse_all_frozen(model, "--freeze-base")


def layers_of(core: Any) -> list[nn.Module]:
    """All layers of the body, in the order they are computed."""
    stacks = [(name, module) for name, module in core.base_model.named_modules() if isinstance(module, nn.ModuleList)]
    outermost = [module for name, module in stacks if not re.search(r"\.\d+(\.|$)", name) and name]
    most = max((len(module) for module in outermost), default=0)
    stated = {getattr(core.config, key, None) for key in ("num_hidden_layers", "num_decoder_layers", "decoder_layers",
                                                          "encoder_layers", "num_layers")}
    return [layer for module in outermost if len(module) in stated or len(module) == most for layer in module]


def is_embedding(name: str, module: nn.Module) -> bool:
    """Whether a module outside the layers turns tokens or places into states, norms of embeddings included."""
    return isinstance(module, nn.Embedding) or "emb" in name


def last_norms(core: Any) -> list[nn.Module]:
    """The norm over the last states of what writes: none where the last layer brings its own (BART)."""
    body = core.get_decoder() if core.config.is_encoder_decoder else core.base_model
    return [module for name, module in body.named_children() if "Norm" in type(module).__name__ and "emb" not in name]


def refuse_all_frozen(model: Any, flag: str) -> None:
    """Raises:
    UsageError: E2009.
    """
    if not any(weight.requires_grad for weight in model.parameters()):
        raise UsageError("E2009", "nothing is left to train", where=flag, found=type(core_model(model)).__name__,
                         do="freeze fewer layers, or use --lora-r")
