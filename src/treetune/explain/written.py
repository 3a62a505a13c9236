"""Answers written or scored token by token: a decoder's label or text, an encoder-decoder's.

Words are deleted, the text closes up, and what remains is computed as branches of one token tree where the run's
layout has one: answer and runner-up share the whole prompt, shortened prompts share what stands before the gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.modeling_outputs import BaseModelOutput

from treetune.core.errors import UsageError
from treetune.core.records import Example, FloatArray, IntArray, TokenizedExample
from treetune.explain.subject import DELETED, Answered, BoolArray, offsets_of
from treetune.explain.words import INSTRUCTION, QUESTION, SOURCE, Word, words_of
from treetune.models import seq2seq
from treetune.models.batches import batches_of
from treetune.models.decoder import label_log_probs
from treetune.models.engine import core_model
from treetune.models.label_loss import at_least_float32
from treetune.models.load import LoadedModel
from treetune.models.tokens import encode_texts, fit_prompt, instruction_length, start_ids

MAX_TOKENS = 768  # of a packed pass, as in prediction: the size at which a run proved its layout exact
ROWS_PER_PASS = 32


@dataclass(frozen=True, slots=True)
class Continuation:
    """What may follow the input, and what of it counts.

    Attributes:
        ids: (C,) tokens read one after another. place: (K,) a label is what comes behind ``ids[:place]``.
        label: (K,) token ids. weight: (K,) what its log-probability counts.
    """

    ids: IntArray
    place: IntArray
    label: IntArray
    weight: FloatArray

    def branches(self) -> list[tuple[IntArray, float | None]]:
        """Completions whose log-probabilities hold all labels: the whole one, and each label that leaves it."""
        beside = [(np.append(self.ids[:at], label), float(weight))
                  for at, label, weight in zip(self.place, self.label, self.weight, strict=True)
                  if label != self.ids[at]]
        return [(self.ids, None), *beside]

    def own_weights(self) -> FloatArray:
        """(C,) weight of each token of ``ids`` as a label."""
        weights = np.zeros(len(self.ids))
        for at, label, weight in zip(self.place, self.label, self.weight, strict=True):
            if label == self.ids[at]:
                weights[at] += weight
        return weights


def whole(ids: IntArray, weight: float) -> Continuation:
    """Every token of ``ids`` counts the same."""
    return Continuation(ids, np.arange(len(ids)), ids, np.full(len(ids), weight))


def against(ids: IntArray, rivals: IntArray, token: int | None) -> Continuation:
    """Each token of ``ids`` against its rival, as a mean over tokens; or one ``token`` alone."""
    at = np.arange(len(ids)) if token is None else np.array([token])
    share = np.full(len(at), 1.0 / len(at))
    return Continuation(ids, np.concatenate([at, at]), np.concatenate([ids[at], rivals[at]]),
                        np.concatenate([share, -share]))


@dataclass(frozen=True, slots=True)
class Written:
    """A `treetune.explain.subject.Subject` of a decoder or an encoder-decoder.

    Attributes:
        ids: (L,) the input. layout: ``tree``, ``packed`` or ``padded``.
        continuations: the answer's first. num_instruction: tokens of the input that are the run's instruction. See the
        protocol for the others.
    """

    loaded: LoadedModel
    words: tuple[Word, ...]
    answered: Answered
    ids: IntArray
    continuations: tuple[Continuation, ...]
    layout: str
    removal: str = DELETED
    num_instruction: int = 0

    def embedded(self) -> torch.Tensor:
        found: torch.Tensor = _embedding(self.loaded)(torch.from_numpy(self.ids).to(self.loaded.model.device))
        return found.detach()

    def baseline(self) -> torch.Tensor:
        table: torch.Tensor = _embedding(self.loaded).weight
        return table.detach().mean(0)

    def scores_of_embedded(self, embedded: torch.Tensor) -> torch.Tensor:
        total = embedded.new_zeros(len(embedded), dtype=torch.float64)
        for each in self.continuations:
            logits = self._logits(embedded, each.ids)
            logs = at_least_float32(logits).log_softmax(-1)
            weight = torch.from_numpy(each.weight).to(logs.device)
            total = total + (logs[:, each.place, each.label].double() * weight).sum(-1)
        return total

    def _logits(self, embedded: torch.Tensor, ids: IntArray) -> torch.Tensor:
        """(N, L, D) -> (N, C, V) logits behind the input and behind each token of ``ids`` but the last."""
        core = core_model(self.loaded.model)
        follow = torch.from_numpy(ids).to(embedded.device)
        if self.loaded.head == "seq2seq":
            mask = torch.ones(embedded.shape[:2], dtype=torch.long, device=embedded.device)
            states = core.get_encoder()(inputs_embeds=embedded, attention_mask=mask)[0]
            labels = follow[None].expand(len(embedded), -1)
            found: torch.Tensor = core(
                attention_mask=mask, encoder_outputs=BaseModelOutput(last_hidden_state=states),
                decoder_input_ids=seq2seq.shifted(core, labels.clone()), use_cache=False).logits
            return found
        behind = _embedding(self.loaded)(follow[:-1]).detach().expand(len(embedded), -1, -1)
        both = torch.cat([embedded, behind], dim=1)
        behind_each: torch.Tensor = core(inputs_embeds=both, use_cache=False, logits_to_keep=len(ids)).logits
        return behind_each

    def scores_kept(self, kept: BoolArray) -> FloatArray:
        branches = [branch for each in self.continuations for branch in each.branches()]
        owners = [each for each in self.continuations for _ in each.branches()]
        logs = self._completion_logs(kept, [ids for ids, _ in branches])
        result = np.zeros(len(kept))
        for number in range(len(kept)):
            own = logs[number * len(branches) : (number + 1) * len(branches)]
            for values, (_, weight), owner in zip(own, branches, owners, strict=True):
                result[number] += values @ owner.own_weights() if weight is None else values[-1] * weight
        return result

    def log_probs_kept(self, kept: BoolArray) -> FloatArray:
        return np.stack(self._completion_logs(kept, [self.continuations[0].ids]))

    @torch.no_grad()
    def _completion_logs(self, kept: BoolArray, completions: Sequence[IntArray]) -> list[FloatArray]:
        """Log-probabilities of every completion behind every shortened input, one after another."""
        rows = [TokenizedExample(number, choice, prompt, completion, 0, self.num_instruction)
                for number, prompt in enumerate(map(self._shortened, kept))
                for choice, completion in enumerate(completions)]
        result: list[list[float]] = [[] for _ in rows]
        log_probs: Any = label_log_probs
        batches: Any = batches_of
        if self.loaded.head == "seq2seq":
            log_probs, batches = seq2seq.label_log_probs, seq2seq.batches_of
        for start in range(0, len(rows), ROWS_PER_PASS * len(completions)):
            part = rows[start : start + ROWS_PER_PASS * len(completions)]
            for batch in batches(part, self.layout, len(part), MAX_TOKENS):
                values = log_probs(self.loaded.model, batch.to(self.loaded.model.device)).cpu().tolist()
                for owner, value in zip(batch.label_example.tolist(), values, strict=True):
                    result[start + owner].append(value)
        return [np.array(values) for values in result]

    def _shortened(self, kept: BoolArray) -> IntArray:
        gone = [token for word, stays in zip(self.words, kept, strict=True) if not stays for token in word.tokens]
        return np.delete(self.ids, gone) if gone else self.ids


def _embedding(loaded: LoadedModel) -> Any:
    return core_model(loaded.model).get_input_embeddings()


def read_input(
    loaded: LoadedModel, example: Example, max_length: int
) -> tuple[IntArray, tuple[Word, ...]]:
    """Token ids of the example's prompt as prediction reads it, and their words.

    Raises:
        UsageError: E2602 no offsets, E2603 an encoder-decoder's input that would have to be cut.
    """
    if loaded.head == "seq2seq":
        return _read_whole(loaded, example, max_length)
    pieces = example.pieces
    texts = encode_texts(loaded.tokenizer, [part.text for part in pieces])
    start = start_ids(loaded.tokenizer)
    ids, _ = fit_prompt(example, texts, start, max_length)
    words: list[Word] = []
    first = len(start)
    lengths = _kept_lengths([len(texts[part.text]) for part in pieces], [part.cuttable for part in pieces],
                            len(ids) - len(start))
    for part, length in zip(pieces, lengths, strict=True):
        _, offsets = offsets_of(loaded.tokenizer, part.text)
        words += words_of(part.text, offsets[:length], range(first, first + length), _name_of(part.text, example))
        first += length
    return ids, tuple(words)


def _kept_lengths(lengths: Sequence[int], cuttable: Sequence[bool], room: int) -> list[int]:
    """Tokens of each prompt part that `treetune.models.tokens.fit_prompt` leaves: the last cuttable one loses first."""
    kept, excess = list(lengths), sum(lengths) - room
    for place in reversed(range(len(kept))):
        if excess > 0 and cuttable[place]:
            lost = min(excess, kept[place])
            kept[place] -= lost
            excess -= lost
    return kept


def _name_of(text: str, example: Example) -> str:
    if text == example.lead:  # it may say what a row says: only its end tells them apart
        return INSTRUCTION
    if text == example.source:
        return SOURCE
    return QUESTION if example.question and text.strip() == example.question.strip() else INSTRUCTION


def _read_whole(loaded: LoadedModel, example: Example, max_length: int) -> tuple[IntArray, tuple[Word, ...]]:
    [(ids, num_cut)] = seq2seq.encode_sources([example], loaded.tokenizer, max_length)
    if num_cut:
        raise UsageError("E2603", "the input is too long for this model to be explained whole",
                         found=f"{num_cut} tokens too many", allowed=f"{max_length} tokens", do="shorten the text")
    bare = "marian" in type(loaded.tokenizer).__name__.lower()
    text = example.source if bare else example.prompt_text
    own, offsets = offsets_of(loaded.tokenizer, text)
    first = next(place for place in range(len(ids)) if list(ids[place : place + len(own)]) == own)
    words = words_of(text, offsets, range(first, first + len(own)), SOURCE)
    return ids, tuple(words) if bare else tuple(_with_part(word, example) for word in words)


def _with_part(word: Word, example: Example) -> Word:
    """The word with the part of the prompt it starts in."""
    at = 0
    for part in example.pieces:
        if word.start < at + len(part.text):
            return Word(word.text, _name_of(part.text, example), word.start - at, word.end - at, word.tokens)
        at += len(part.text)
    return word


def label_subject(
    loaded: LoadedModel, example: Example, answer: str, rival: str, *, max_length: int, layout: str
) -> Written:
    """Why this label rather than that one."""
    ends = _answer_ids(loaded, [example.candidates[answer], example.candidates[rival]])
    ids, words = read_input(loaded, example, max_length - max(map(len, ends)))
    both = (whole(ends[0], 1.0), whole(ends[1], -1.0))
    return Written(loaded, words, Answered(answer, rival), ids, both, layout,
                   num_instruction=instruction_length(loaded.tokenizer, example))


def text_subject(
    loaded: LoadedModel, example: Example, text: str, *, max_length: int, layout: str, token: int | None = None
) -> Written:
    """Why this text: each of its tokens against the one the model would have written next likely there.

    Args:
        token: explain this token alone.

    Raises:
        UsageError: E2604 there is no such token.
    """
    [ids] = _answer_ids(loaded, [text])
    if token is not None and not 0 <= token < len(ids):
        raise UsageError("E2604", "the answer has no such token", found=str(token), allowed=f"0 to {len(ids) - 1}",
                         do="choose a token of the answer")
    prompt, words = read_input(loaded, example, max_length - len(ids))
    first = Written(loaded, words, Answered(text, ""), prompt, (whole(ids, 1.0),), layout,
                    num_instruction=instruction_length(loaded.tokenizer, example))
    rivals = runners_up(first, ids)
    pieces, beside = (tuple(loaded.tokenizer.decode([each]) for each in row.tolist()) for row in (ids, rivals))
    rival = "".join(beside) if token is None else beside[token]
    shown = text if token is None else pieces[token]
    return replace(first, answered=Answered(shown, rival, pieces, beside), continuations=(against(ids, rivals, token),))


@torch.no_grad()
def runners_up(subject: Written, ids: IntArray) -> IntArray:
    """(C,) at each place of the answer the likeliest other token."""
    logits = subject._logits(subject.embedded()[None], ids)[0].clone()
    logits[torch.arange(len(ids)), torch.from_numpy(ids).to(logits.device)] = -torch.inf
    best: NDArray[np.int64] = logits.argmax(-1).cpu().numpy()
    return best


def _answer_ids(loaded: LoadedModel, texts: Sequence[str]) -> list[IntArray]:
    """Tokens of each answer, end-of-text last."""
    if loaded.head == "seq2seq":
        found = seq2seq.encode_answers(texts, loaded.tokenizer)
        return [found[text] for text in texts]
    own, end = encode_texts(loaded.tokenizer, texts), int(loaded.tokenizer.eos_token_id)
    return [np.array([*own[text], end], dtype=np.int64) for text in texts]
