"""What an engine is: something that answers examples as a run would, and says what it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from treetune.core.errors import UsageError
from treetune.core.records import Example, Prediction


@dataclass(frozen=True, slots=True)
class Decoding:
    """How a run answers, see `treetune.predict.answers.predict_answers`."""

    max_length: int
    max_new_tokens: int
    layout: str
    answers_from: str
    no_repeat_ngram_size: int


class Engine(Protocol):
    """Answers examples.

    Attributes:
        identity: what a gate is bound to; another one voids it.
    """

    identity: str

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """One prediction an example, in the order given."""


def refuse_settings(engine: str, decoding: Decoding, extractive: bool) -> None:
    """Engines of others write freely: what a run writes under conditions they would write otherwise.

    Raises:
        UsageError: E3101.
    """
    found = ["answers_from: source"] if extractive and decoding.answers_from == "source" else []
    if decoding.no_repeat_ngram_size:
        found.append(f"no_repeat_ngram_size: {decoding.no_repeat_ngram_size}")
    if found:
        raise UsageError("E3101", "the engine {engine} cannot write answers as this run does", engine=engine,
                         found=", ".join(found), allowed="answers_from: anything, no_repeat_ngram_size: 0",
                         do="leave --engine out, or tune with --answers-from anything --no-repeat-ngram-size 0")
