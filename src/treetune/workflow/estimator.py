"""A run as an object for programs: scikit-learn's ``predict``, ``predict_proba``, ``score``; transformers' pipelines.

``predict`` says what the model says. Whether an answer may go out without a person is a decision, and decisions leave
by one door (`treetune.workflow.decider.Decider`): ``decide`` and ``pipeline`` go through it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from treetune.core.errors import DataError, UsageError
from treetune.core.records import Decision, Example, FloatArray, OutputKind, Prediction, Row
from treetune.tasks.contract import Task
from treetune.workflow.answer_lines import decision_as_dict
from treetune.workflow.decider import Decider, Recording
from treetune.workflow.evaluate import answer
from treetune.workflow.run import Run, open_run

if TYPE_CHECKING:
    from treetune.models.load import LoadedModel
    from treetune.predict.pipeline import RunPipeline

UNRECORDED = Recording(on=False)
Rows = Sequence[str] | Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]]


class TunedModel:
    """A tuned run that answers lists of rows. Not for two threads at the same time.

    Rows are texts, where the task reads one column; or a dict of columns, ``{"context": […], "question": […]}``; or
    one dict a row. Attributes: ``run``; ``columns``: the names of what it reads, first the needed ones.
    """

    def __init__(self, run: Run, recording: Recording = UNRECORDED) -> None:
        self.run = run
        self._recording = recording
        self._decider: Decider | None = None
        answers = run.task.ANSWER_COLUMNS
        needed = [each.name for each in run.task.COLUMNS if each.required and each.name not in answers]
        others = [each.name for each in run.task.COLUMNS if not each.required and each.name not in answers]
        self.columns = tuple(needed + others)
        self._needed = tuple(needed)

    def predict(self, X: Rows) -> NDArray[Any]:
        """(N,) one answer a row, as text: the model's own, whatever a gate would say.

        Raises:
            DataError: E1202 … a row the task cannot read, E1208 rows of no known form.
        """
        return np.array([each.answer for each in self._answered(X)], dtype=object)

    def decide(self, X: Rows) -> list[Prediction]:
        """One prediction a row with its ``decision``: accept, review, refuse; ``ungated`` where there is no gate.

        Raises:
            DataError: as `predict`. RunError: E5001 to E5003, E5505 where decisions are recorded and cannot be.
        """
        examples, rows = self._read(X)
        return self.decided(examples, rows)

    def pipeline(self, *, batch_size: int = 32, **arguments: Any) -> RunPipeline:
        """A `transformers.Pipeline` of the run's task, whose answers are those of ``decide``, decisions included.

        Args:
            batch_size: rows answered together. arguments: ``top_k`` for labels.

        Raises:
            UsageError: E2065 for any argument that would change what the run answers.
        """
        from treetune.predict.pipeline import pipeline_of

        return pipeline_of(self, batch_size, **arguments)

    @property
    def loaded(self) -> LoadedModel:
        return self.run.loaded

    @property
    def task(self) -> Task:
        return self.run.task

    def read(self, given: Any, number: int) -> tuple[Example, Row]:
        """One row, the ``number``-th (from 0): a text, or its columns; errors as `predict`."""
        [values] = rows_of([given], self._needed)
        if "text_pair" in values:
            raise _no_rows(self._needed, "text_pair")
        row = Row(values, "<rows>", number + 1, number, "test")
        return self.run.task.example_from_row(row, self.run.options, with_answer=False), row

    def decided(self, examples: Sequence[Example], rows: Sequence[Row]) -> list[Prediction]:
        """Answers to rows that were read, each with its decision; errors as `decide`."""
        if self._decider is None:
            self._decider = Decider(self.run, self._recording)
        return self._decider.decide(answer(self.run, self.run.loaded, examples), examples, rows)

    def as_dict(self, decision: Decision) -> dict[str, Any]:
        """A decision as ``treetune predict`` writes it."""
        return decision_as_dict(decision)

    def _answered(self, given: Rows) -> list[Prediction]:
        return answer(self.run, self.run.loaded, self._read(given)[0])

    def _read(self, given: Rows) -> tuple[list[Example], list[Row]]:
        pairs = [self.read(values, number) for number, values in enumerate(rows_of(given, self._needed))]
        return [example for example, _ in pairs], [row for _, row in pairs]


class TunedClassifier(TunedModel):
    """A tuned run whose answers are labels: a fitted classifier for scikit-learn's metrics, scorers and displays.

    Attributes:
        classes_: (L,) label names in alphabetical order, as scikit-learn's metrics expect them.
    """

    def __init__(self, run: Run, recording: Recording = UNRECORDED) -> None:
        super().__init__(run, recording)
        self.classes_: NDArray[np.str_] = np.array(sorted(run.options.labels))

    def predict_proba(self, X: Rows) -> FloatArray:
        """(N, L) probability of each label, in the order of ``classes_``; errors as `predict`."""
        predictions = self._answered(X)
        return np.array([[each.scores[f"probability:{label}"] for label in self.classes_] for each in predictions],
                        dtype=np.float64).reshape(len(predictions), len(self.classes_))

    def score(self, X: Rows, y: Sequence[str], sample_weight: Any = None) -> float:
        """Share of right answers, 0 to 1, as scikit-learn's classifiers give it; errors as `predict`."""
        from sklearn.metrics import accuracy_score

        return float(accuracy_score(y, self.predict(X), sample_weight=sample_weight))

    def fit(self, X: Any, y: Any = None) -> None:
        """Here because scikit-learn takes nothing else for a classifier.

        Raises:
            UsageError: E2067 always.
        """
        raise UsageError("E2067", "a run is tuned already", found="fit",
                         allowed="predict, predict_proba, score, decide",
                         do="tune another one with treetune.tune")

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_clone__(self) -> TunedClassifier:
        return self

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(estimator_type="classifier", target_tags=TargetTags(required=True), transformer_tags=None,
                    regressor_tags=None, classifier_tags=ClassifierTags(), input_tags=InputTags(string=True))


def load(path: str | Path, *, record: bool = False, log_text: bool = False) -> TunedModel:
    """A run as an object for programs.

    Args:
        record: keep decisions as ``treetune predict`` does (drift watch, audit log, review queue). log_text: texts in
            the audit log, too.

    Returns:
        `TunedClassifier` where answers are labels, else `TunedModel`.

    Raises:
        UsageError: E2030, E2031 as `open_run`.
    """
    run = open_run(path)
    kind = TunedClassifier if run.task.OUTPUT == OutputKind.LABEL else TunedModel
    return kind(run, Recording(record, log_text))


def rows_of(given: Rows, needed: Sequence[str]) -> list[dict[str, Any]]:
    """The rows as column -> value.

    Raises:
        DataError: E1208 texts where a task reads several columns, columns of different lengths, or neither.
    """
    if isinstance(given, Mapping):
        lengths = {name: len(values) for name, values in given.items()}
        if any(isinstance(values, str) for values in given.values()):
            raise _no_rows(needed, "one row as a dict; put it into a list")
        if len(set(lengths.values())) > 1:
            raise _no_rows(needed, ", ".join(f"{name}: {length}" for name, length in lengths.items()))
        return [dict(zip(given, values, strict=True)) for values in zip(*given.values(), strict=True)]
    if isinstance(given, str):
        raise _no_rows(needed, "one text; put it into a list")
    rows: list[Any] = list(given)
    if all(isinstance(each, Mapping) for each in rows):
        return [{str(name): value for name, value in each.items()} for each in rows]
    if len(needed) == 1 and all(isinstance(each, str) for each in rows):
        return [{needed[0]: each} for each in rows]
    raise _no_rows(needed, ", ".join(sorted({type(each).__name__ for each in rows})))


def _no_rows(needed: Sequence[str], found: str) -> DataError:
    return DataError("E1208", "these are not rows of the task", found=found,
                     allowed="a list of texts (one column), a dict of columns, or a list of dicts: "
                     + ", ".join(needed), do="give every column the task reads, all of one length")
