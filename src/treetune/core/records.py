"""The records that cross borders: rows -> examples -> tokens -> trees -> predictions -> scores.

Data moves between layers only as these; behaviour stays where it is. Frozen, typed, free of torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


class OutputKind(StrEnum):
    """What a task's answer is."""

    TEXT = "text"
    LABEL = "label"
    SPAN = "span"


@dataclass(frozen=True, slots=True)
class Row:
    """One record of the user's file, as read.

    Attributes:
        values: column name (after aliases and ``--columns``) -> value.
        file: the file's name as the user gave it.
        line: 1-based line in a line-based file, else 1-based record number.
        number: 0-based place among the rows accepted from this data argument.
        split: ``train``, ``validation``, ``calibration`` or ``test``.
    """

    values: Mapping[str, Any]
    file: str
    line: int
    number: int
    split: str

    @property
    def id(self) -> str:
        """The row's own ``id`` if it has one, else ``split:number``."""
        own = self.values.get("id")
        return str(own) if own not in (None, "") else f"{self.split}:{self.number}"


@dataclass(frozen=True, slots=True)
class PromptPart:
    """A piece of prompt text; only ``cuttable`` pieces may lose tokens (at their end) when a row is too long."""

    text: str
    cuttable: bool = False


@dataclass(frozen=True, slots=True)
class Example:
    """A row as a task understood it.

    Attributes:
        prompt: pieces read by the model, in order.
        completion: what the model learns to write (end-of-text is added by the tokens stage).
        answers: reference answers, the first is the one the completion was made from; () where unknown.
        candidates: label name -> completion text, for LABEL tasks; {} else.
        source: the text the honest baselines work on (document, source sentence, context).
        language: language of the answer as a code (``en``, ``zh``, ``de`` …).
        groups: attribute -> value, for the audit.
        question: what is asked about ``source``, for tasks that ask; ``""`` else.
        spans: (start, end) characters of ``source`` where an answer stands, first answer first; () where unknown or
            where there is none.
        instruction: what stands in front of every prompt of the run, as the user gave it; no part of ``prompt``, whose
            first piece tells the task's form. ``""``: nothing does.
    """

    row: int
    row_id: str
    split: str
    prompt: tuple[PromptPart, ...]
    completion: str
    answers: tuple[str, ...]
    candidates: Mapping[str, str]
    source: str
    language: str
    groups: Mapping[str, str] = field(default_factory=dict)
    question: str = ""
    spans: tuple[tuple[int, int], ...] = ()
    instruction: str = ""

    @property
    def lead(self) -> str:
        """The instruction as it is read: on lines of its own, unless it ends in white space by itself."""
        closed = not self.instruction or self.instruction[-1].isspace()
        return self.instruction if closed else self.instruction + "\n"

    @property
    def pieces(self) -> tuple[PromptPart, ...]:
        """All that is read, in order: the instruction, where there is one, and the prompt."""
        return (PromptPart(self.lead), *self.prompt) if self.instruction else self.prompt

    @property
    def prompt_text(self) -> str:
        """All that is read, as one text."""
        return self.lead + self.row_text

    @property
    def row_text(self) -> str:
        """The prompt without the instruction."""
        return "".join(part.text for part in self.prompt)


@dataclass(frozen=True, slots=True)
class TokenizedExample:
    """Token ids of one example (or of one candidate answer of it).

    Attributes:
        row: the example's row number. choice: which candidate, 0 where there is one completion only.
        prompt_ids: (P,) P >= 1. completion_ids: (C,) with end-of-text last; (0,) when only the prompt matters.
        num_cut: prompt tokens cut off to fit ``max_length``. num_instruction: prompt tokens that are the run's
        instruction, which every row of the run has.
    """

    row: int
    choice: int
    prompt_ids: IntArray
    completion_ids: IntArray
    num_cut: int
    num_instruction: int = 0

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)


@dataclass(frozen=True, slots=True)
class TokenTree:
    """Several tokenized examples as one forest of tokens in depth-first order.

    Token ``k`` is an ancestor of, or is, token ``q`` exactly when ``k <= q < branch_end[k]``.

    Attributes:
        input_ids: (T,). depth: (T,) distance from the root = position id. parent: (T,) index, -1 at a root.
        branch_end: (T,) one past the last token of the subtree.
        label_index: (K,) token whose output predicts the label. label_ids: (K,). label_weight: (K,).
        label_example: (K,) index into ``examples`` of the list the tree was built from.
        num_row_tokens: tokens that the separate rows would have had (T plus what sharing saved).
    """

    input_ids: IntArray
    depth: IntArray
    parent: IntArray
    branch_end: IntArray
    label_index: IntArray
    label_ids: IntArray
    label_weight: FloatArray
    label_example: IntArray
    num_row_tokens: int


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a decision is what it is: a stable code, a sentence, and where they apply the value and its limit.

    Attributes:
        evidence: the piece of text that a check found fault with. span: its characters (start, end) in ``place``,
            which is ``answer``, ``source`` or ``question``; None where nothing is in one place.
    """

    code: str
    text: str
    value: float | None = None
    limit: float | None = None
    evidence: str = ""
    span: tuple[int, int] | None = None
    place: str = "answer"


@dataclass(frozen=True, slots=True)
class Decision:
    """What may be done with a prediction.

    Attributes:
        verdict: ``accept``, ``review`` (a person looks at it) or ``refuse`` (it is no answer at all).
        confidence: calibrated chance that the answer is right, 0-1; None where it is not known.
        score: what the gate compares with its threshold. reasons: () for accept.
        labels: those that are possible, the likeliest first; () for tasks without labels.
        guarantee: the promise the decision stands under, a sentence. valid: whether it is in force.
        flags: what checks noticed that does not change the verdict. audited: drawn by lot for a person to look at
            whatever the verdict, so that the promise can be watched.
    """

    verdict: str
    confidence: float | None
    score: float | None
    reasons: tuple[Reason, ...]
    labels: tuple[str, ...]
    guarantee: str
    valid: bool
    flags: tuple[Reason, ...] = ()
    audited: bool = False


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model answered to one example.

    Attributes:
        answer: the task's answer (a label name, or text). text: exactly what was generated.
        scores: name -> value; ``probability`` of the answer always; per label ``probability:<label>``.
        token_log_probs: natural-log probability of each answer token, end-of-text included.
        finished: whether the answer ended by itself. num_cut: prompt tokens cut off.
        seconds: this row's share of the batch's time. decision: None where no gate was set.
    """

    row: int
    row_id: str
    split: str
    answer: str
    text: str
    scores: Mapping[str, float]
    token_log_probs: tuple[float, ...]
    finished: bool
    num_cut: int
    seconds: float
    decision: Decision | None = None


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its interval, e.g. a bootstrap 95 % interval."""

    value: float
    low: float
    high: float
    level: float = 0.95


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one system on one data set.

    Attributes:
        metric: e.g. ``accuracy``. signature: what exactly was computed (tokenizer, version).
        interval: value and bounds, in the metric's own unit. count: rows it stands on.
    """

    metric: str
    interval: Interval
    count: int
    signature: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A paired difference of two systems on the same rows: ``interval`` of (a - b) and a two-sided p-value."""

    metric: str
    interval: Interval
    p_value: float
    count: int
