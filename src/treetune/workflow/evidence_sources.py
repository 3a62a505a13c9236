"""The kinds of evidence a gate can ask for: each says what it takes to make its scores again, and what binds them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from treetune.core.errors import RunError, TreetuneError, UsageError
from treetune.core.files import file_digest, value_digest, write_bytes
from treetune.core.records import Example, OutputKind, Prediction, Row
from treetune.core.seeds import seed_of
from treetune.core.settings import EvidenceSettings, TuneSettings, read_settings
from treetune.data.read import read_rows
from treetune.data.sample import sample_path
from treetune.decide.agreement import MEASURES, agreement
from treetune.decide.distance import Distances, fit_normal
from treetune.decide.evidence import AGREEMENT, ENTAILMENT, NEAR_TRAINING, QUALITY
from treetune.models.family import kind_of
from treetune.tasks.contract import task_names
from treetune.workflow.gather import gather_training, read_for, to_examples
from treetune.workflow.run import Run, decoding_of
from treetune.workflow.scope import files_digest

if TYPE_CHECKING:
    from treetune.predict.second_model import SecondModel

MODEL_FILES = ("*.safetensors", "*.json", "*.model", "*.txt")
MOST_ROWS = 2000  # of the training that distances are taken from, drawn by a hash
SHORT = 12


class Source(Protocol):
    """One kind of evidence.

    Attributes:
        name: of its score. record: what stands in the gate, enough to make it again. identity: digest of what its
            numbers depend on, beside the run itself.
    """

    name: str
    record: dict[str, Any]
    identity: str

    def values(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> list[dict[str, float]]:
        """Scores by name of each answer."""
        ...


class Agreement:
    """Answers drawn from the run's own model."""

    name = AGREEMENT

    def __init__(self, run: Run, record: Mapping[str, Any]) -> None:
        self.run = run
        self.record = {key: record[key] for key in ("samples", "temperature", "seed", "measure")}
        self.identity = value_digest(self.record)

    def values(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> list[dict[str, float]]:
        from treetune.predict.sample import Sampling, sampled_answers


        own = self.record
        drawn = sampled_answers(self.run.loaded, self.run.task, examples, decoding_of(self.run),
                                Sampling(own["samples"], own["temperature"], own["seed"]))
        found = agreement(own["measure"], [each.answer for each in predictions], drawn,
                          [each.language for each in examples])
        return [{AGREEMENT: value} for value in found]


class NearTraining:
    """Distances of hidden states, kept in the run's folder by their digest."""

    name = NEAR_TRAINING

    def __init__(self, run: Run, record: Mapping[str, Any]) -> None:
        """Raises:
            RunError: E5510 the file is gone.
        """
        self.run = run
        self.record = {key: record[key] for key in ("file", "layer", "position", "rows_of_training", "background",
                                                    "rows_of_background", "width", "shrinkage")}
        self.path = run.folder.trust / Path(record["file"]).name
        if not self.path.is_file():
            raise RunError("E5510", "the file of distances that the gate's score needs is gone", where=str(self.path),
                           do="put it back, or set the gate again with --distance")
        self.identity = value_digest([self.record, file_digest(self.path)])
        self._distances: Distances | None = None

    def values(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> list[dict[str, float]]:
        from treetune.predict.states import hidden_states

        if self._distances is None:
            self._distances = Distances.from_bytes(self.path.read_bytes())
        states = hidden_states(self.run.loaded, self.run.task, examples, decoding_of(self.run))
        return [{NEAR_TRAINING: value} for value in self._distances.nearness(states).tolist()]


class _ByModel:
    """What a model of the user's says. Its path is kept relative to the run's folder, its files by their digest."""

    name: str

    def __init__(self, run: Run, record: Mapping[str, Any]) -> None:
        """Raises:
            RunError: E5509 the folder is gone.
        """
        self.record = {"path": record["path"]}
        self.folder = Path(os.path.normpath(run.folder.root.resolve() / record["path"]))
        if not self.folder.is_dir():
            raise RunError("E5509", "the model whose numbers the gate needs is not there", where=str(self.folder),
                           found="no folder", do="put it back, or set the gate again without it")
        self.identity = files_digest(self.folder, MODEL_FILES)
        self._model: SecondModel | None = None

    @property
    def model(self) -> SecondModel:
        """Loaded when it is first asked."""
        if self._model is None:
            self._model = self.load()
        return self._model

    def load(self) -> SecondModel:
        """The model, looked at; ModelError where it does not do."""
        raise NotImplementedError


class ByEntailment(_ByModel):
    """Whether the source bears the summary out."""

    name = ENTAILMENT

    def load(self) -> SecondModel:
        from treetune.predict.second_model import entailment_model

        return entailment_model(str(self.folder))

    def values(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> list[dict[str, float]]:
        from treetune.predict.second_model import borne_out

        found = borne_out(self.model, [each.source for each in examples], [each.answer for each in predictions])
        return [{ENTAILMENT: value, f"{ENTAILMENT}:start": float(start), f"{ENTAILMENT}:end": float(end)}
                for value, start, end in found]


class ByQuality(_ByModel):
    """How good an answer is for its source."""

    name = QUALITY

    def load(self) -> SecondModel:
        from treetune.predict.second_model import quality_model

        return quality_model(str(self.folder))

    def values(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> list[dict[str, float]]:
        found = self.model.values([each.source for each in examples], [each.answer for each in predictions])
        return [{QUALITY: value} for value in found.tolist()]


SOURCES: Mapping[str, Any] = {each.name: each for each in (Agreement, NearTraining, ByEntailment, ByQuality)}


def drawn_answers(run: Run, settings: EvidenceSettings) -> Agreement:
    """Labels and spans have probabilities over all that can be answered: drawing from these says nothing new.

    Raises:
        UsageError: E2511.
    """
    kind = kind_of(run.loaded.head, run.task)
    if kind is not OutputKind.TEXT:
        raise UsageError("E2511", "answers of this run are not written token by token, so none can be drawn",
                         where="--agreement", found=f"{run.task.NAME}, {kind}",
                         allowed=", ".join(MEASURES), do="leave --agreement out: the probabilities say as much")
    return Agreement(run, {
        "samples": settings.agreement, "temperature": settings.agreement_temperature, "seed": settings.agreement_seed,
        "measure": MEASURES[run.task.NAME]})


def entailment_source(run: Run, path: str) -> ByEntailment:
    """Raises:
        UsageError: E2513 not a summary. ModelError: as `treetune.predict.second_model.entailment_model`.
    """
    if run.task.NAME != "summarization":
        raise UsageError("E2513", "a source can bear out a summary, not an answer of {task}", task=run.task.NAME,
                         where="--entailment-model", found=run.task.NAME, allowed="summarization",
                         do="leave it out: a translation is in another language than its source, and a label or a "
                            "short answer states nothing; for translations there is --quality-model")
    source = ByEntailment(run, {"path": relative(run, path)})
    _ = source.model  # refused before anything is answered
    return source


def quality_source(run: Run, path: str) -> ByQuality:
    """Raises:
        UsageError: E2514 labels or spans. ModelError: as `treetune.predict.second_model.quality_model`.
    """
    if kind_of(run.loaded.head, run.task) is not OutputKind.TEXT:
        raise UsageError("E2514", "a model of quality reads written answers, which this run does not give",
                         where="--quality-model", found=run.task.NAME, allowed=", ".join(MEASURES),
                         do="leave --quality-model out")
    source = ByQuality(run, {"path": relative(run, path)})
    _ = source.model
    return source


def relative(run: Run, path: str) -> str:
    """From the run's folder, so that both can be moved together."""
    return os.path.relpath(Path(path).resolve(), run.folder.root.resolve())


def training_distances(run: Run, background: str) -> NearTraining:
    """Measure the training rows and the background, and keep both in the run's folder.

    Args:
        background: a file of rows of the task, answers not needed; "": of labels the training rows whatever their
            label, else the packaged rows of every task.

    Raises:
        RunError: E5511 the training rows cannot be read again. DataError: as `read_rows`.
    """
    from treetune.predict.states import hidden_states, position_of

    def states_of(examples: Sequence[Example]) -> Any:
        return hidden_states(run.loaded, run.task, examples, decoding_of(run))

    training = some(training_rows(run))
    label = run.task.OUTPUT is OutputKind.LABEL
    states = states_of(training)
    near = fit_normal(states, [each.answers[0] for each in training] if label else ())
    if background:
        others = some(background_rows(run, background))
    else:
        others = training if label else some(packaged_rows(run))
    far = fit_normal(states if others is training else states_of(others))
    data = Distances(near, far).to_bytes()
    name = f"distances-{value_digest(data.hex())[:SHORT]}.safetensors"
    write_bytes(run.folder.trust / name, data)
    return NearTraining(run, {
        "file": name, "layer": "last", "position": position_of(run.loaded.head, run.task),
        "rows_of_training": len(training), "rows_of_background": len(others), "width": int(states.shape[1]),
        "background": background or ("training rows of all labels" if label else "packaged rows of every task"),
        "shrinkage": [near.shrinkage, far.shrinkage]})


def training_rows(run: Run) -> Sequence[Example]:
    """Raises:
        RunError: E5511.
    """
    try:
        training, _, _ = gather_training(read_settings(TuneSettings, run.folder.config, {}), run.task, None)
    except TreetuneError as error:
        raise RunError("E5511", "the training rows cannot be read again, so no distance from them can be taken",
                       where=str(run.folder.config), found=f"{error.code}: {error.where}",
                       do="put the training file back where config.yaml says, or leave --distance out") from error
    return training.examples


def background_rows(run: Run, path: str) -> Sequence[Example]:
    """Rows of the user's, read as rows to answer."""
    found = read_for(run.task, path, "background", {}, with_answer=False)
    return to_examples(run.task, found, run.options, None, 1.0, with_answer=False).examples


def packaged_rows(run: Run) -> list[Example]:
    """The longest text of every packaged training row of every task, in the place of each column the task asks for."""
    columns = [each.name for each in run.task.COLUMNS
               if each.required and each.name not in run.task.ANSWER_COLUMNS]
    found: list[Example] = []
    for task in task_names():
        for row in read_rows(str(sample_path(task, "train")), split="background", aliases={}, columns={},
                             required=[]).rows:
            text = max((str(value) for value in row.values.values() if isinstance(value, str)), key=len)
            values = {name: text if place == 0 else text[:80] for place, name in enumerate(columns)}
            found.append(run.task.example_from_row(Row(values, row.file, row.line, len(found), "background"),
                                                   run.options, with_answer=False))
    return found


def some(examples: Sequence[Example]) -> Sequence[Example]:
    """``MOST_ROWS`` of them at most, by a hash of their text."""
    order = sorted(range(len(examples)), key=lambda place: seed_of(0, "distance", examples[place].source, place))
    return [examples[place] for place in sorted(order[:MOST_ROWS])]
