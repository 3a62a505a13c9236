"""Answers read off an encoder: a label of its class head, a span of its span head. Words are masked, not deleted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from treetune.core.errors import UsageError
from treetune.core.records import Example, FloatArray
from treetune.explain.subject import MASKED, Answered, BoolArray, offsets_of
from treetune.explain.words import QUESTION, SOURCE, Word, words_of
from treetune.models import classes, spans
from treetune.models.encoder import EncoderRow
from treetune.models.engine import core_model
from treetune.models.label_loss import at_least_float32
from treetune.models.load import LoadedModel

ROWS_PER_PASS = 32


@dataclass(frozen=True, slots=True)
class Read:
    """A `treetune.explain.subject.Subject` of an encoder.

    Attributes:
        row: the input with its special tokens. chosen, other: what is compared: (class,) or (first, last) token.
    """

    loaded: LoadedModel
    words: tuple[Word, ...]
    answered: Answered
    row: EncoderRow
    chosen: tuple[int, ...]
    other: tuple[int, ...]
    removal: str = MASKED

    def embedded(self) -> torch.Tensor:
        ids = torch.from_numpy(self.row.input_ids).to(self.loaded.model.device)
        found: torch.Tensor = self._embedding()(ids)
        return found.detach()

    def baseline(self) -> torch.Tensor:
        table: torch.Tensor = self._embedding().weight
        return table.detach()[mask_id(self.loaded.tokenizer)]

    def _embedding(self) -> Any:
        return core_model(self.loaded.model).get_input_embeddings()

    def scores_of_embedded(self, embedded: torch.Tensor) -> torch.Tensor:
        logs = self._logs({"inputs_embeds": embedded}, len(embedded))
        return logs[:, 0].sum(-1) - logs[:, 1].sum(-1)

    def _logs(self, given: dict[str, torch.Tensor], count: int) -> torch.Tensor:
        """(N, 2, pieces) natural-log probabilities of both answers' pieces, in float64."""
        length, device = self.row.num_tokens, self.loaded.model.device
        given["attention_mask"] = torch.ones(count, length, dtype=torch.long, device=device)
        if self.row.segment_ids is not None:
            segments = torch.from_numpy(self.row.segment_ids).to(device)
            given["token_type_ids"] = segments.expand(count, -1)
        found = self.loaded.model(**given)
        if self.loaded.head == "classes":
            logs = at_least_float32(found.logits).log_softmax(-1)[:, None]
        else:
            logs = at_least_float32(torch.stack([found.start_logits, found.end_logits], dim=1)).log_softmax(-1)
        both = [torch.stack([logs[:, piece, place] for piece, place in enumerate(each)], dim=-1)
                for each in (self.chosen, self.other)]
        return torch.stack(both, dim=1).double()

    def scores_kept(self, kept: BoolArray) -> FloatArray:
        return np.concatenate([logs[:, 0].sum(-1) - logs[:, 1].sum(-1) for logs in self._passes(kept)])

    def log_probs_kept(self, kept: BoolArray) -> FloatArray:
        return np.concatenate([logs[:, 0] for logs in self._passes(kept)])

    @torch.no_grad()
    def _passes(self, kept: BoolArray) -> Iterator[FloatArray]:
        blank = mask_id(self.loaded.tokenizer)
        rows = np.tile(self.row.input_ids, (len(kept), 1))
        for place, word in enumerate(self.words):
            rows[np.ix_(np.flatnonzero(~kept[:, place]), np.array(word.tokens, dtype=np.int64))] = blank
        for start in range(0, len(rows), ROWS_PER_PASS):
            part = torch.from_numpy(rows[start : start + ROWS_PER_PASS]).to(self.loaded.model.device)
            yield self._logs({"input_ids": part}, len(part)).cpu().numpy()


def mask_id(tokenizer: Any) -> int:
    """The token that stands for a word nobody knows.

    Raises:
        UsageError: E2605 the tokenizer has none.
    """
    found = tokenizer.mask_token_id if tokenizer.mask_token_id is not None else tokenizer.unk_token_id
    if found is None:
        raise UsageError("E2605", "the tokenizer has no mask to put in a word's place", found=type(tokenizer).__name__,
                         do="use a model with a mask token")
    return int(found)


def class_subject(loaded: LoadedModel, example: Example, answer: str, rival: str, *, max_length: int) -> Read:
    """Why this label rather than that one."""
    [row] = classes.encode([example], loaded.tokenizer, max_length)
    ids, offsets = offsets_of(loaded.tokenizer, example.source)
    first, count = _where(row.input_ids, ids)
    words = words_of(example.source, offsets[:count], range(first, first + count), SOURCE)
    labels = list(example.candidates)
    return Read(loaded, tuple(words), Answered(answer, rival), row, (labels.index(answer),), (labels.index(rival),))


def _where(whole: NDArray[np.int64], ids: list[int]) -> tuple[int, int]:
    """(place, length) of the longest beginning of ``ids`` that stands in ``whole``: its end may have been cut off."""
    for count in range(min(len(ids), len(whole)), 0, -1):
        for first in range(min(4, len(whole) - count + 1)):
            if list(whole[first : first + count]) == ids[:count]:
                return first, count
    return 0, 0


@torch.no_grad()
def span_subject(loaded: LoadedModel, example: Example, start: int, end: int, *, max_length: int) -> Read:
    """Why this span of the source rather than the best one that does not touch it (or than no answer).

    Args:
        start, end: the answer's characters in the source; (-1, -1): there was no answer.
    """
    best: Read | None = None
    best_score = -np.inf
    for row in spans.encode([replace(example, spans=((start, end),) if start >= 0 else ())], loaded.tokenizer,
                            max_length):
        assert row.offsets is not None
        none = spans.start_token(row.input_ids, loaded.tokenizer)
        chosen = (none, none)
        if start >= 0:
            found = spans.span_tokens(replace(example, spans=((start, end),)), row.offsets)
            if found is None:
                continue  # this window does not hold the answer
            chosen = found
        subject = Read(loaded, _pair_words(loaded, example, row), Answered("", ""), row, chosen, chosen)
        logs = _span_logs(subject)
        score = float(logs[0, chosen[0]] + logs[1, chosen[1]])
        if score > best_score:
            other = _best_other(logs, row, chosen, none if getattr(loaded.model.config, "no_answer", False) else -1)
            best, best_score = replace(subject, other=other, answered=_named(example, row, chosen, other)), score
    if best is None:
        raise UsageError("E2606", "no window of the source holds the whole answer", found=example.source[start:end],
                         do="explain a shorter answer, or raise max_length")
    return best


def _pair_words(loaded: LoadedModel, example: Example, row: EncoderRow) -> tuple[Word, ...]:
    assert row.offsets is not None
    ids, offsets = offsets_of(loaded.tokenizer, example.question)
    first, count = _where(row.input_ids, ids)
    inside = np.flatnonzero(row.offsets[:, 0] >= 0)
    asked = words_of(example.question, offsets[:count], range(first, first + count), QUESTION)
    return (*asked, *words_of(example.source, row.offsets[inside], inside.tolist(), SOURCE))


def _span_logs(subject: Read) -> torch.Tensor:
    """(2, L) log-probabilities of each token being the first, and the last."""
    device = subject.loaded.model.device
    given = {"input_ids": torch.from_numpy(subject.row.input_ids)[None].to(device)}
    if subject.row.segment_ids is not None:
        given["token_type_ids"] = torch.from_numpy(subject.row.segment_ids)[None].to(device)
    found = subject.loaded.model(**given)
    return at_least_float32(torch.stack([found.start_logits[0], found.end_logits[0]])).log_softmax(-1).double().cpu()


def _best_other(logs: torch.Tensor, row: EncoderRow, chosen: tuple[int, int], none: int) -> tuple[int, int]:
    """The likeliest span that shares no token with the chosen one, of at most as many tokens plus eight."""
    assert row.offsets is not None
    best, score = (chosen[0], chosen[0]), -np.inf
    if none >= 0 and chosen != (none, none):
        best, score = (none, none), float(logs[0, none] + logs[1, none])
    longest = chosen[1] - chosen[0] + 9
    for first in np.flatnonzero(row.offsets[:, 0] >= 0).tolist():
        for last in range(first, min(first + longest, row.num_tokens)):
            if row.offsets[last, 0] < 0:
                break
            touches = first <= chosen[1] and last >= chosen[0]
            value = float(logs[0, first] + logs[1, last])
            if not touches and value > score:
                best, score = (first, last), value
    return best


def _named(example: Example, row: EncoderRow, chosen: tuple[int, int], other: tuple[int, int]) -> Answered:
    assert row.offsets is not None
    texts = []
    for first, last in (chosen, other):
        start, end = row.offsets[first, 0], row.offsets[last, 1]
        texts.append(example.source[start:end] if start >= 0 else "")
    return Answered(texts[0], texts[1])
