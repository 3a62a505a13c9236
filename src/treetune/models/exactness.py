"""Is a tree of rows the same as the rows? Asked of the user's own model before it is trained on trees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from treetune.core.records import TokenizedExample
from treetune.core.stretches import rows_of_chunk
from treetune.models.batches import Batch, batches_of, padded_batch
from treetune.models.decoder import loss_sum
from treetune.models.engine import Engine, core_model, fullest_engine, set_up
from treetune.models.norm import distance, total_norm
from treetune.models.shard import inside, recover
from treetune.trees.build import input_ids_of, sorted_order

TOLERANCE = 1e-4
CANNOT = (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, NotImplementedError)


@dataclass(frozen=True, slots=True)
class Exactness:
    """What was proved.

    Attributes:
        layout: the layout to train with. engine: what the model was set up for.
        difference: relative difference of its gradients from those of the separate rows; inf when it cannot run.
        refused: (what, difference, where it begins) of everything tried before.
    """

    layout: str
    engine: Engine
    difference: float
    refused: tuple[tuple[str, float, str], ...]

    def event(self, asked: str) -> dict[str, Any]:
        """For the run's log: the layout asked for and the one used, and where the former differs if it is not used."""
        first = self.refused[0] if self.refused else None
        return {"event": "exactness", "layout": asked, "tolerance": TOLERANCE, "used": self.layout,
                "engine": engine_name(self.engine),
                "difference": str(first[1]) if first and self.layout != asked else self.difference,
                "where": first[2] if first else "",
                "refused": [[what, str(difference), where] for what, difference, where in self.refused]}


def prove(
    model: torch.nn.Module, examples: Sequence[TokenizedExample], layout: str, max_tokens: int,
    tolerance: float = TOLERANCE,
) -> Exactness:
    """The fastest exact way to run ``examples`` through ``model``, which is set up for it.

    The gradients of the model as it came, on padded rows and with its own logits, are the truth; they are added up
    over a few rows at a time, so that the proof needs about the memory of one pass of training. Tried in turn:
    ``layout`` with everything the engine can do, then with less and less, then packed rows, then padded rows with the
    head in stretches.
    Dropout is off; weights are left untouched.
    """
    truth = _gradients(model, examples, "padded", max_tokens)
    fullest = fullest_engine(model)
    refused: list[tuple[str, float, str]] = []
    layouts = {"tree": ("tree", "packed"), "packed": ("packed",)}.get(layout, ())
    for each in layouts:
        for engine in (fullest, *fullest.less()):
            set_up(model, engine)
            difference, where = compare(model, truth, examples, each, max_tokens)
            if difference <= tolerance:
                return Exactness(each, engine, difference, tuple(refused))
            refused.append((f"{each} {engine_name(engine)}", difference, where))
    engine = Engine(own_head=fullest.own_head)
    set_up(model, engine)
    difference, where = compare(model, truth, examples, "padded", max_tokens)
    if not difference <= tolerance:  # not a number is not exact either
        refused.append((f"padded {engine_name(engine)}", difference, where))
        engine = Engine()
        set_up(model, engine)
        difference = 0.0
    return Exactness("padded", engine, difference, tuple(refused))


def rows_to_prove(
    examples: Sequence[TokenizedExample], count: int = 4, num_tokens: int = 0
) -> list[TokenizedExample]:
    """The longest rows, where windows and cut sources show, each with the row that shares most with it; and others.

    Args:
        count: long rows. num_tokens: rows are added until they hold as many, as a pack of training will.
    """
    sequences = [input_ids_of(example) for example in examples]
    order = sorted_order(sequences)
    place_of = {index: place for place, index in enumerate(order)}
    longest = sorted(range(len(examples)), key=lambda index: len(sequences[index]), reverse=True)[:count]
    chosen = {neighbour: None for index in longest
              for neighbour in (index, order[(place_of[index] + 1) % len(order)])}
    size = sum(len(sequences[index]) for index in chosen)
    for index in order:
        if size >= num_tokens:
            break
        if index not in chosen:
            chosen[index] = None
            size += len(sequences[index])
    return [examples[index] for index in chosen]


def engine_name(engine: Engine) -> str:
    """The parts in use, for people."""
    parts = [name for name in ("blocks", "own_head", "pruned", "flex") if getattr(engine, name)]
    return "+".join(parts) or "mask"


def compare(
    model: torch.nn.Module, truth: dict[str, torch.Tensor], examples: Sequence[TokenizedExample], layout: str,
    max_tokens: int,
) -> tuple[float, str]:
    """(relative difference of all gradients, the kind of layer where the largest one stands)."""
    try:
        ours = _gradients(model, examples, layout, max_tokens)
    except CANNOT as error:
        recover(model)
        model.zero_grad(set_to_none=True)
        return float("inf"), " ".join(str(error).split())[:200]
    if ours.keys() != truth.keys():
        return float("inf"), ", ".join(sorted(ours.keys() ^ truth.keys()))[:200]
    gaps = {name: distance(ours.pop(name), true) for name, true in truth.items()}
    sizes = {name: total_norm([true]) for name, true in truth.items()}
    total = sum(gap**2 for gap in gaps.values()) ** 0.5
    layers = [name for name in gaps if any(part.isdigit() for part in name.split("."))]
    worst = max(layers or gaps, key=lambda name: gaps[name] / max(sizes[name], 1e-12))
    return total / max(sum(size**2 for size in sizes.values()) ** 0.5, 1e-12), layer_kind(model, worst)


def layer_kind(model: Any, weight: str) -> str:
    """Where a weight stands, with the kind of its layer where its config names kinds, e.g. ``(sliding_attention)``."""
    config = core_model(model).config
    kinds = getattr(config, "layer_types", None) or getattr(config, "attention_layers", None)
    numbers = [int(part) for part in weight.split(".") if part.isdigit()]
    if hasattr(config, "band_of_layer") and numbers:
        band = config.band_of_layer(numbers[0])
        return f"{weight} ({'dense' if band is None else f'banded, {band} tokens'})"
    if kinds and numbers and numbers[0] < len(kinds):
        return f"{weight} ({kinds[numbers[0]]})"
    return f"{weight} ({core_model(model).config.model_type})"


def _gradients(
    model: torch.nn.Module, examples: Sequence[TokenizedExample], layout: str, max_tokens: int
) -> dict[str, torch.Tensor]:
    training = model.training
    without_dropout(model)
    model.zero_grad(set_to_none=True)
    device = next(model.parameters()).device
    try:
        for batch in _passes(model, examples, layout, max_tokens):
            part = inside(model, partial(loss_sum, model, batch.to(device)))
            part.total.backward()  # type: ignore[no-untyped-call]
        return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    finally:
        model.zero_grad(set_to_none=True)
        model.train(training)


def without_dropout(model: torch.nn.Module) -> None:
    """Evaluation, but layers that were told to recompute their activations still do, which takes training.

    Only the layer itself is put back, not what is in it, and none that drops values itself.
    """
    model.eval()
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False) and not isinstance(getattr(module, "dropout", None), float):
            module.training = True


def _passes(
    model: torch.nn.Module, examples: Sequence[TokenizedExample], layout: str, max_tokens: int
) -> Iterator[Batch]:
    """The passes whose gradients are added up; none takes more memory than about one pass of training.

    A model as it came keeps up to twice as much a token as one that was set up, and its logits stand whole with
    their logarithms and the slopes of both, hence a quarter of the tokens and of the logits.
    """
    if layout != "padded":
        yield from batches_of(examples, layout, len(examples), max_tokens)
        return
    core = core_model(model)
    logits = rows_of_chunk(int(core.config.get_text_config().vocab_size))
    for part in few_rows(examples, max_tokens // 4, logits // 4):
        yield padded_batch(part)


def few_rows(
    examples: Sequence[TokenizedExample], max_tokens: int, max_logits: int
) -> Iterator[list[TokenizedExample]]:
    """Every row once, rows of like length together, padded to at most ``max_tokens`` or one by one.

    Args:
        max_logits: tokens of a pass whose logits are taken at most: those of all rows at every place where one of
            them has a label.
    """
    part: list[TokenizedExample] = []
    places: set[int] = set()
    for example in sorted(examples, key=lambda each: (len(each.prompt_ids), len(each.completion_ids))):
        start = len(example.prompt_ids) - 1
        more = places.union(range(start, start + len(example.completion_ids)))
        longest = max(len(input_ids_of(each)) for each in (*part, example))
        count = len(part) + 1
        if part and (count * longest > max_tokens or count * len(more) > max_logits):
            yield part
            part, more = [], set(range(start, start + len(example.completion_ids)))
        part.append(example)
        places = more
    if part:
        yield part
