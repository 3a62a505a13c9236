"""How much a run computes: tokens of its passes, counted from the user's rows or said by hand."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

LEAST_PROOF = 768
"""Tokens on which a layout is proved exact at least."""


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward (and backward) pass.

    Attributes:
        tokens: computed, padding included. rows: in it. longest: tokens that see one another in a row.
        labels: tokens whose logits are taken. sources, source_longest: the encoder's side of an encoder-decoder.
        keys: tokens of all blocks of tree attention whose keys are gathered from several places.
        pairs: of queries and keys in all blocks, where these are short and a layer keeps their probabilities instead,
            if they are few.
    """

    tokens: int
    rows: int
    longest: int
    labels: int
    sources: int = 0
    source_longest: int = 0
    keys: int = 0
    pairs: int = 0

    @property
    def source_tokens(self) -> int:
        return self.sources * self.source_longest


@dataclass(frozen=True, slots=True)
class Workload:
    """All passes of a run, added up.

    Attributes:
        rows: of the training file. shown: rows over all steps. steps: of the optimizer. passes: forward and backward.
        row_tokens: tokens of the separate rows, shown over all steps. tokens: computed, shared ones once.
        labels: learnt from. context: tokens that a token sees, in the mean. largest: the pass that takes most memory.
        evaluation_rows, evaluation_tokens, evaluation_passes: of one pass over the validation rows.
        evaluations: how many. saves: checkpoints. proof: the rows on which exactness is proved; None: no proof.
        sampled: rows that were tokenized to know this; 0: it was said by hand.
    """

    rows: int
    shown: int
    steps: int
    passes: int
    row_tokens: int
    tokens: int
    labels: int
    context: float
    largest: Pass
    evaluation_rows: int = 0
    evaluation_tokens: int = 0
    evaluation_passes: int = 0
    evaluations: int = 0
    saves: int = 1
    proof: Pass | None = None
    sampled: int = 0

    @property
    def shared(self) -> int:
        """Tokens that need not be computed because rows share them; padding counts against it."""
        return self.row_tokens - self.tokens

    def as_dict(self) -> dict[str, Any]:
        """For records, with what sharing saves."""
        return {**asdict(self), "shared": self.shared}


def by_hand(
    rows: int, length: int, labels: int, *, epochs: float, rows_per_step: int, rows_per_pass: int, max_tokens: int,
    max_steps: int = 0, packed: bool = False, seq2seq: bool = False,
) -> Workload:
    """A run over equal rows that share nothing.

    Args:
        length: tokens of a row (of its source, for an encoder-decoder). labels: tokens learnt from, of a row.
        max_tokens: of a pass, where passes are bounded in tokens.
    """
    per_epoch = math.ceil(rows / rows_per_step)
    steps = max_steps or max(1, math.ceil(epochs * per_epoch - 1e-9))
    row_tokens = length + (labels if seq2seq else 0)
    in_pass = max(1, min(rows_per_pass, rows, max_tokens // row_tokens))
    shown = steps * min(rows_per_step, rows)
    largest = Pass(in_pass * (labels if seq2seq else length), in_pass, labels if seq2seq else length,
                   in_pass * labels, in_pass if seq2seq else 0, length if seq2seq else 0)
    return Workload(rows, shown, steps, math.ceil(shown / in_pass), shown * row_tokens, shown * row_tokens,
                    shown * labels, length / 2 if packed else length, largest, proof=largest if packed else None)


def of_tokens(tokens: int, length: int, batch_tokens: int) -> Workload:
    """Pretraining on whole windows: every token is learnt from."""
    steps = max(1, round(tokens / batch_tokens))
    rows = max(1, tokens // length)
    return Workload(rows, rows, steps, rows, tokens, tokens, tokens, length / 2, Pass(length, 1, length, length))


def smaller_passes(work: Workload, rows: int) -> Workload:
    """The same run with at most ``rows`` rows in a pass and as many more passes; its proof shrinks with them."""
    factor = min(1.0, rows / work.largest.rows)
    proof = work.proof and scaled(work.proof, max(factor, min(1.0, LEAST_PROOF / work.proof.tokens)))
    return replace(work, largest=scaled(work.largest, factor), passes=math.ceil(work.passes / factor), proof=proof)


def scaled(one: Pass, factor: float) -> Pass:
    """A pass of that share of the rows."""
    return replace(one, tokens=max(1, math.ceil(one.tokens * factor)), rows=max(1, math.ceil(one.rows * factor)),
                   labels=max(1, math.ceil(one.labels * factor)), keys=math.ceil(one.keys * factor),
                   pairs=math.ceil(one.pairs * factor),
                   sources=math.ceil(one.sources * factor) if one.sources else 0)
