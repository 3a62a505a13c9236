"""A tuned run as a pipeline of transformers, for programs that are made for one.

transformers gives the calling: one row or many, lists, data sets, generators. Reading the row, the model, the prompt,
how an answer is written and the decision are treetune's own, so an answer is the one that ``treetune predict`` gives.

transformers has a class for labels, and ours is one. Its classes for translations, summaries and questions are gone in
transformers 5 (``REMOVED_TASKS``); ours keep the names of their tasks, and what they took and gave.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Sized
from itertools import islice
from typing import Any, Protocol

from transformers import Pipeline, TextClassificationPipeline

from treetune.core.errors import UsageError
from treetune.core.records import Decision, Example, OutputKind, Prediction, Row
from treetune.models.load import LoadedModel
from treetune.tasks.contract import Task

ROWS_PER_PASS = 32
TASKS = {"question_answering": ("question-answering", "answer"), "translation": ("translation", "translation_text"),
         "summarization": ("summarization", "summary_text")}
OTHER = ("text2text-generation", "generated_text")
LABELS = "text-classification"


class Answering(Protocol):
    """What a run does for its pipeline."""

    @property
    def loaded(self) -> LoadedModel: ...

    @property
    def task(self) -> Task: ...

    def read(self, given: Any, number: int) -> tuple[Example, Row]:
        """One row, the ``number``-th (from 0) of a call.

        Raises:
            DataError: E1202 … a row the task cannot read, E1208 no row at all.
        """
        ...

    def decided(self, examples: Sequence[Example], rows: Sequence[Row]) -> list[Prediction]:
        """Answers, each with its decision."""
        ...

    def as_dict(self, decision: Decision) -> dict[str, Any]:
        """A decision as ``treetune predict`` writes it."""
        ...


class RunPipeline(Pipeline):  # type: ignore[misc]
    """Rows in, answers with their decisions out. Takes no argument that would change an answer."""

    def __init__(self, answering: Answering, task: str, batch_size: int, **arguments: Any) -> None:
        self._answering = answering
        self._count = 0
        super().__init__(model=answering.loaded.model, tokenizer=answering.loaded.tokenizer, task=task,
                         device=-1, batch_size=batch_size)  # -1: where the model is
        (self._preprocess_params, self._forward_params,
         self._postprocess_params) = self._sanitize_parameters(**arguments)

    def __call__(self, inputs: Any, **arguments: Any) -> Any:
        """Answers in the order of the rows; a list for a list, an iterator for a data set or a generator.

        Raises:
            UsageError: E2065 an argument that the run's own settings decide. DataError: as `Answering.read`.
        """
        self._count = 0
        if isinstance(inputs, Sized) and not len(inputs):
            return []  # transformers looks at the first one
        return super().__call__(inputs, **arguments)

    def _sanitize_parameters(self, **arguments: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        for name in arguments:
            raise UsageError("E2065", "the pipeline of a run takes no argument {name!r}", name=name, found=name,
                             allowed="num_workers, batch_size" + (", top_k" if self.task == LABELS else ""),
                             do="leave it out: how answers are written was settled by treetune tune, and the gate "
                             "knows those only")
        return {}, {}, {}

    def preprocess(self, input_: Any, **_: Any) -> dict[str, Any]:
        """One row, read by the task; tokens are made batch by batch, where rows can share them."""
        example, row = self._answering.read(input_, self._count)
        self._count += 1
        return {"examples": [example], "rows": [row]}

    def _forward(self, input_tensors: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        return {"predictions": self._answering.decided(input_tensors["examples"], input_tensors["rows"])}

    def get_iterator(
        self, inputs: Any, num_workers: int, batch_size: int, preprocess_params: Mapping[str, Any],
        forward_params: Mapping[str, Any], postprocess_params: Mapping[str, Any],
    ) -> Answers:
        """In place of transformers' own: nothing is padded here, so tokenizers without padding will do."""
        return Answers(self, inputs, batch_size, postprocess_params)

    def save_pretrained(self, save_directory: Any, **_: Any) -> None:
        """Refused: weights without their gate, prompt and settings do not answer as this pipeline does.

        Raises:
            UsageError: E2066.
        """
        raise UsageError("E2066", "a pipeline of a run is not saved: its gate, prompt and settings would be lost",
                         found=str(save_directory), do="keep the run, or write it with treetune export")

    def push_to_hub(self, repo_id: Any, **_: Any) -> None:
        """Refused as `save_pretrained`."""
        self.save_pretrained(repo_id)


class LabelPipeline(RunPipeline, TextClassificationPipeline):  # type: ignore[misc]
    """``{"label", "score", "decision"}``; with ``top_k`` the other labels behind it, which have no decision."""

    def check_model_type(self, supported_models: Any) -> None:
        """Any: decoders score label words, which transformers' own class does not know how to."""

    def _sanitize_parameters(
        self, top_k: Any = "", **arguments: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        super()._sanitize_parameters(**arguments)
        return {}, {}, {} if top_k == "" else {"top_k": top_k, "_legacy": False}

    def postprocess(self, model_outputs: Mapping[str, Any], top_k: int | None = 1, _legacy: bool = True) -> Any:
        """The answer first. ``_legacy``: nobody asked for ``top_k``, so it stands alone."""
        [prediction] = model_outputs["predictions"]
        scores = {name.removeprefix("probability:"): value for name, value in prediction.scores.items()
                  if name.startswith("probability:")}
        answer = {"label": prediction.answer, "score": scores.pop(prediction.answer),
                  "decision": self._answering.as_dict(prediction.decision)}
        if _legacy:
            return answer
        others = [{"label": name, "score": scores[name]} for name in sorted(scores, key=lambda name: -scores[name])]
        return [answer, *others][:top_k]


class TextPipeline(RunPipeline):
    """``{"answer" | "translation_text" | "summary_text", "score", "decision"}``.

    One text alone gives a list of one, as transformers' pipelines of these tasks did; one question gives no list.
    """

    key = OTHER[1]

    def __call__(self, inputs: Any, **arguments: Any) -> Any:
        result = super().__call__(inputs, **arguments)
        return [result] if isinstance(result, dict) and self.key != "answer" else result

    def postprocess(self, model_outputs: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        [prediction] = model_outputs["predictions"]
        return {self.key: prediction.answer, "score": prediction.scores["probability"],
                "decision": self._answering.as_dict(prediction.decision)}


class Answers:
    """What a pipeline says of many rows: read, answered and decided so many at a time, when they are asked for."""

    def __init__(self, pipe: RunPipeline, inputs: Any, batch_size: int, written: Mapping[str, Any]) -> None:
        self._pipe, self._inputs, self._batch_size, self._written = pipe, inputs, batch_size, written

    def __len__(self) -> int:
        return len(self._inputs)

    def __iter__(self) -> Iterator[Any]:
        waiting = (self._inputs[place] for place in range(len(self._inputs))) if hasattr(
            self._inputs, "__getitem__") else iter(self._inputs)
        while part := [self._pipe.preprocess(each) for each in islice(waiting, self._batch_size)]:
            batch = {name: [each[name][0] for each in part] for name in ("examples", "rows")}
            for prediction in self._pipe.forward(batch)["predictions"]:
                yield self._pipe.postprocess({"predictions": [prediction]}, **self._written)


def pipeline_of(answering: Answering, batch_size: int = ROWS_PER_PASS, **arguments: Any) -> RunPipeline:
    """The pipeline of a run's task, under the name that transformers has, or had, for it.

    Args:
        batch_size: rows answered together. arguments: ``top_k`` for labels.

    Raises:
        UsageError: E2065 for any other argument.
    """
    if answering.task.OUTPUT == OutputKind.LABEL:
        return LabelPipeline(answering, LABELS, batch_size, **arguments)
    name, key = TASKS.get(answering.task.NAME, OTHER)
    made = TextPipeline(answering, name, batch_size, **arguments)
    made.key = key
    return made
