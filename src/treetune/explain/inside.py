"""What happens inside: where each layer looks, at which layer the answer settles, whether the source is used.

Attention shows where information could flow, not why the answer is what it is (Jain & Wallace 2019, arXiv 1902.10186).
Rollout: Abnar & Zuidema 2020 (arXiv 2005.00928). Logit lens: nostalgebraist 2020. Reliance on the source: log-odds
with and without it, as pointwise cross-mutual information (Bugliarello et al. 2020, arXiv 2005.02354).
Letters: L tokens, W words, layers Y, heads H.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from treetune.core.errors import UsageError
from treetune.core.records import FloatArray, IntArray
from treetune.explain.read import Read
from treetune.explain.subject import Subject, all_but
from treetune.explain.words import SOURCE, Word
from treetune.explain.written import Written
from treetune.models import seq2seq
from treetune.models.engine import core_model
from treetune.models.label_loss import at_least_float32
from treetune.models.load import LoadedModel

AGREES = 1e-3  # largest difference of log-probabilities between attention in the open and attention as served
NORMS = ("ln_f", "norm", "final_layer_norm", "final_layernorm")


@dataclass(frozen=True, slots=True)
class Attention:
    """Attention from the place of the answer.

    Attributes:
        words: (W,) of the input. layers: (Y, W) mean over heads, what each layer gives each word. rollout: (W,).
        heads: (Y, H, W).
    """

    words: tuple[Word, ...]
    layers: FloatArray
    rollout: FloatArray
    heads: FloatArray


@torch.no_grad()
def attention(loaded: LoadedModel, subject: Subject) -> Attention:
    """Weights by which the answering token reads the words: a decoder's last one, an encoder's first one, of an
    encoder-decoder the one that the answer begins with (by cross-attention; its rollout goes on through the encoder).

    Raises:
        UsageError: E2610 the model does not show its weights, or computes another answer when it does.
    """
    ids = input_ids(subject)
    given = {"input_ids": torch.from_numpy(ids)[None].to(loaded.model.device)}
    if isinstance(subject, Read) and subject.row.segment_ids is not None:
        given["token_type_ids"] = torch.from_numpy(subject.row.segment_ids)[None].to(loaded.model.device)
    core = core_model(loaded.model)
    base = core.get_encoder() if loaded.head == "seq2seq" else core.base_model
    served = base(**given)[0]
    with attention_in_the_open(core):
        found = base(**given, output_attentions=True)
    maps = found.attentions or ()
    if not maps or any(each is None for each in maps):
        raise UsageError("E2610", "this model does not show where it looks", found=type(core).__name__,
                         do="use another view of the answer")
    far = float((found[0] - served).abs().max() / served.abs().max().clamp(min=1e-9))
    if far > AGREES:
        raise UsageError("E2610", "this model does not show where it looks", found=f"outputs differ by {far:.1e}",
                         allowed=f"{AGREES:.0e}", do="use another view of the answer")
    weights = torch.stack([each[0].double() for each in maps]).cpu().numpy()  # (Y, H, L, L)
    mixed = np.eye(len(ids))
    for layer in weights.mean(1):
        step = layer + np.eye(len(ids))
        mixed = (step / step.sum(-1, keepdims=True)) @ mixed
    if loaded.head == "seq2seq":
        read = _cross_attention(core, given)
        rolled = read.mean((0, 1)) @ mixed
    else:
        asking = len(ids) - 1 if loaded.head == "causal" else 0
        read, rolled = weights[:, :, asking], mixed[asking]
    words = subject.words
    by_word = [list(word.tokens) for word in words]
    heads = np.stack([read[:, :, tokens].sum(-1) for tokens in by_word], axis=-1)
    return Attention(words, heads.mean(1), np.array([rolled[tokens].sum() for tokens in by_word]), heads)


def _cross_attention(core: Any, given: dict[str, torch.Tensor]) -> FloatArray:
    """(Y, H, L) how the decoder's first token reads the encoder's states."""
    start = seq2seq.shifted(core, torch.zeros_like(given["input_ids"][:, :1]))
    with attention_in_the_open(core):
        found = core(**given, decoder_input_ids=start, output_attentions=True, use_cache=False).cross_attentions
    read: FloatArray = torch.stack([each[0, :, 0].double() for each in found]).cpu().numpy()
    return read


def input_ids(subject: Subject) -> IntArray:
    """(L,) the subject's input."""
    if isinstance(subject, Written):
        return subject.ids
    assert isinstance(subject, Read)
    return subject.row.input_ids


@contextmanager
def attention_in_the_open(core: Any) -> Iterator[None]:
    """While open, attention is computed with its weights; our own model does so by itself."""
    if getattr(core, "takes_tree", False):
        yield
        return
    before = core.config._attn_implementation
    core.set_attn_implementation("eager")
    try:
        yield
    finally:
        core.set_attn_implementation(before)


@dataclass(frozen=True, slots=True)
class Lens:
    """The answer's first token, layer by layer (embedding first).

    Attributes:
        layers: of each layer the probability of the answer, of its rival, and the likeliest token with its probability.
    """

    answer: str
    rival: str
    layers: tuple[tuple[float, float, str, float], ...]


@torch.no_grad()
def logit_lens(loaded: LoadedModel, subject: Subject) -> Lens | None:
    """What each layer would answer if it were the last; None for encoders, whose layers have no words of their own."""
    if loaded.head != "causal" or not isinstance(subject, Written):
        return None
    core = core_model(loaded.model)
    norm = next((getattr(core.base_model, name) for name in NORMS if hasattr(core.base_model, name)), None)
    if norm is None:
        return None
    given = torch.from_numpy(subject.ids)[None].to(loaded.model.device)
    states = core.base_model(input_ids=given, output_hidden_states=True).hidden_states
    first = subject.continuations[0]
    answer = int(first.ids[0])
    other = subject.continuations[1] if len(subject.continuations) > 1 else first
    rival = int(other.ids[0]) if len(subject.continuations) > 1 else next(
        (int(label) for at, label, weight in zip(first.place, first.label, first.weight, strict=True)
         if at == 0 and weight < 0), answer)
    layers = []
    for number, state in enumerate(states):
        last = state[:, -1] if number == len(states) - 1 else norm(state[:, -1])  # the last comes normed
        chance = at_least_float32(core.get_output_embeddings()(last))[0].softmax(-1)
        best = int(chance.argmax())
        layers.append((float(chance[answer]), float(chance[rival]), loaded.tokenizer.decode([best]),
                       float(chance[best])))
    return Lens(loaded.tokenizer.decode([answer]), loaded.tokenizer.decode([rival]), tuple(layers))


@dataclass(frozen=True, slots=True)
class Reliance:
    """What the source does for the answer, natural logarithms.

    Attributes:
        with_source, without: log-probability of the answer. pieces: (K,) gain of each piece of the answer.
    """

    with_source: float
    without: float
    pieces: tuple[float, ...]


def reliance(subject: Subject) -> Reliance:
    """The answer's log-probability with the source and with every word of it taken away; the instruction stays.

    Of a span the question is taken away instead: the answer is a piece of the source.
    """
    span = not isinstance(subject, Written) and any(word.part != SOURCE for word in subject.words)
    gone = [place for place, word in enumerate(subject.words) if (word.part == SOURCE) != span]
    with_source, without = subject.log_probs_kept(np.stack([all_but(subject, []), all_but(subject, gone)]))
    return Reliance(float(with_source.sum()), float(without.sum()), tuple((with_source - without).tolist()))


