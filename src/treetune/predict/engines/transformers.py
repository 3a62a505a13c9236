"""The engine that needs nothing else: the run's own model, its rows laid out as trees."""

from __future__ import annotations

from collections.abc import Sequence

from treetune.core.records import Example, Prediction
from treetune.models.load import LoadedModel
from treetune.predict.answers import predict_answers
from treetune.predict.engines.contract import Decoding
from treetune.tasks.contract import Task


class TransformersEngine:
    """`treetune.predict.answers.predict_answers` with everything settled."""

    identity = "transformers"

    def __init__(self, loaded: LoadedModel, task: Task, decoding: Decoding) -> None:
        self.loaded, self.task, self.decoding = loaded, task, decoding

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """One prediction an example, in the order given."""
        own = self.decoding
        return predict_answers(
            self.loaded, self.task, examples, max_length=own.max_length, max_new_tokens=own.max_new_tokens,
            layout=own.layout, answers_from=own.answers_from, no_repeat_ngram_size=own.no_repeat_ngram_size,
        )
