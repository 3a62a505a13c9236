"""An encoder with a span head (AutoModelForQuestionAnswering): a question and a context in, the answer's place out.

Contexts longer than the window are read in windows that overlap. A window without the answer is taught to point at the
start token, which also stands for "there is no answer" (Devlin et al. 2019, arXiv 1810.04805, section 4.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from treetune.core.errors import DataError
from treetune.core.records import Example
from treetune.models.decoder import LossSum
from treetune.models.encoder import EncoderBatch, EncoderRow, batches_of, run_encoder, segment_ids_of
from treetune.models.label_loss import at_least_float32

__all__ = ["batches_of"]
AUTO_CLASS = "AutoModelForQuestionAnswering"
PEFT_TASK = "QUESTION_ANS"
BRANCHES = False
PACKS = True
MAX_LENGTH = 384
OVERLAP = 128
LEAST_ROOM = 16
ROWS_PER_PASS = 32


def encode(examples: Sequence[Example], tokenizer: Any, max_length: int) -> list[EncoderRow]:
    """All windows of all examples, in order: question and a piece of the context, with their special tokens.

    Windows overlap by 128 tokens, or by half of the room where that is less. The target is the first answer's first
    and last token, else the start token twice.

    Raises:
        DataError: E1302 a question that leaves no room for its context.
    """
    if not examples:
        return []
    lengths = question_lengths(examples, tokenizer)
    refuse_long_questions(examples, lengths, max_length)
    overlap = min(OVERLAP, (max_length - max(lengths)) // 2)
    encoded = tokenizer(
        [example.question for example in examples], [example.source for example in examples],
        truncation="only_second", max_length=max_length, stride=overlap, return_overflowing_tokens=True,
        return_offsets_mapping=True, split_special_tokens=True,
    )
    rows = []
    for number, place in enumerate(encoded["overflow_to_sample_mapping"]):
        ids = np.array(encoded["input_ids"][number], dtype=np.int64)
        offsets = context_offsets(encoded, number)
        start = start_token(ids, tokenizer)
        target = span_tokens(examples[place], offsets) or (start, start)
        rows.append(EncoderRow(examples[place].row, place, ids, segment_ids_of(tokenizer, encoded, number),
                               np.array(target, dtype=np.int64), 0, offsets))
    return rows


def question_lengths(examples: Sequence[Example], tokenizer: Any) -> list[int]:
    """Tokens of each question with the special tokens of a pair."""
    special = tokenizer.num_special_tokens_to_add(pair=True)
    texts = [example.question for example in examples]
    ids = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [len(each) + special for each in ids]


def refuse_long_questions(examples: Sequence[Example], lengths: Sequence[int], max_length: int) -> None:
    """A question is never cut: it must leave room for some context.

    Raises:
        DataError: E1302.
    """
    for example, length in zip(examples, lengths, strict=True):
        if length + LEAST_ROOM > max_length:
            raise DataError("E1302", "the question leaves no room for its context in the model's window",
                            where=f"{example.split} row {example.row_id}", found=f"{length} tokens",
                            allowed=f"{max_length - LEAST_ROOM} tokens",
                            do="shorten the question or choose a model with a longer window")


def context_offsets(encoded: Any, number: int) -> NDArray[np.int64]:
    """(L, 2) characters of the context behind each token, -1 at the question and at special tokens."""
    own = np.array([part == 1 for part in encoded.sequence_ids(number)])
    offsets: NDArray[np.int64] = np.array(encoded["offset_mapping"][number], dtype=np.int64)
    offsets[~own] = -1
    return offsets


def start_token(ids: NDArray[np.int64], tokenizer: Any) -> int:
    """Where the token stands that means "no answer in here"."""
    found = np.flatnonzero(ids == tokenizer.cls_token_id)
    return int(found[0]) if len(found) else 0


def span_tokens(example: Example, offsets: NDArray[np.int64]) -> tuple[int, int] | None:
    """First and last token that cover the first answer; None where this window does not hold all of it."""
    if not example.spans:
        return None
    start, end = example.spans[0]
    inside = np.flatnonzero(offsets[:, 0] >= 0)
    if not len(inside) or offsets[inside[0], 0] > start or offsets[inside[-1], 1] < end:
        return None
    covering = inside[(offsets[inside, 1] > start) & (offsets[inside, 0] < end)]
    return (int(covering[0]), int(covering[-1])) if len(covering) else None


def loss_sum(model: torch.nn.Module, batch: EncoderBatch) -> LossSum:
    """Negative log-likelihood of first and last token in nats; two labels a window."""
    logs = log_probs(model, batch)
    return LossSum(-logs.gather(-1, batch.targets[..., None]).sum(), float(batch.targets.numel()))


def log_probs(model: torch.nn.Module, batch: EncoderBatch) -> torch.Tensor:
    """(B, 2, L) natural-log probabilities of each token being the first, and the last, of the answer."""
    found = run_encoder(model, batch)
    logits = at_least_float32(torch.stack([found.start_logits, found.end_logits], dim=1))
    return logits.masked_fill(batch.attention_mask[:, None] == 0, torch.finfo(logits.dtype).min).log_softmax(-1)


@torch.no_grad()
def reference_log_probs(
    loaded: Any, examples: Sequence[Example], max_length: int, layout: str
) -> list[list[float]]:
    """Natural-log probabilities of first and last token, of the example's window that holds them best."""
    loaded.model.eval()
    rows = encode(examples, loaded.tokenizer, max_length)
    starts = [start_token(row.input_ids, loaded.tokenizer) for row in rows]
    result: list[list[float]] = [[] for _ in examples]
    for batch in batches_of(rows, layout, ROWS_PER_PASS, max_length * ROWS_PER_PASS):
        batch = batch.to(loaded.model.device)
        values = log_probs(loaded.model, batch).gather(-1, batch.targets[..., None])[..., 0]
        for number, pair in zip(batch.order.tolist(), values.tolist(), strict=True):
            row = rows[number]
            without = int(row.target[0]) == starts[number] == int(row.target[1])
            if without and examples[row.place].spans and _held_elsewhere(rows, number, starts):
                continue
            if not result[row.place] or sum(pair) > sum(result[row.place]):
                result[row.place] = pair
    return result


def _held_elsewhere(rows: Sequence[EncoderRow], number: int, starts: Sequence[int]) -> bool:
    """Whether another window of the same example holds the answer; an example's windows stand side by side."""
    first = last = number
    while first > 0 and rows[first - 1].place == rows[number].place:
        first -= 1
    while last + 1 < len(rows) and rows[last + 1].place == rows[number].place:
        last += 1
    return any(int(rows[other].target[0]) != starts[other] for other in range(first, last + 1))


def settle(examples: Sequence[Example]) -> dict[str, Any]:
    """Whether "no answer" is a possible answer: only where training showed questions without one."""
    return {"no_answer": any(example.answers and not example.spans for example in examples)}
