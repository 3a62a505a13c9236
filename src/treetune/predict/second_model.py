"""What a model of the user's says of a written answer: whether its source bears it out, or how good it is.

Both are encoders with a head of transformers' (AutoModelForSequenceClassification), loaded as every model is:
safetensors only, no code of their own. An entailment checker is wrong on about one summary in four (Laban et al. 2022,
arXiv 2111.09525): what it says is a number beside others, never a verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from treetune.core.errors import ModelError
from treetune.core.records import FloatArray
from treetune.decide.validators.words import sentences_in
from treetune.models.family import ENCODER, configuration, family_of
from treetune.models.load import LoadedModel, load_model

PAIRS_PER_PASS = 32
ENTAILMENT = "entailment"


@dataclass(frozen=True, slots=True)
class SecondModel:
    """``place``: the output that counts; of a single output it is the value itself, of several its probability."""

    loaded: LoadedModel
    place: int
    single: bool

    @torch.no_grad()
    def values(self, firsts: Sequence[str], seconds: Sequence[str]) -> FloatArray:
        """(N,) of pairs of texts; where both do not fit, the longer one loses its end.

        Raises:
            ModelError: E3033 a value that is no number.
        """
        tokenizer, model = self.loaded.tokenizer, self.loaded.model
        order = sorted(range(len(firsts)), key=lambda pair: len(firsts[pair]) + len(seconds[pair]))
        found = np.zeros(len(firsts))
        for start in range(0, len(order), PAIRS_PER_PASS):
            run = order[start : start + PAIRS_PER_PASS]
            given = tokenizer([firsts[pair] for pair in run], [seconds[pair] for pair in run], truncation=True,
                              max_length=self.loaded.window, padding=True, split_special_tokens=True,
                              return_tensors="pt").to(model.device)
            logits = model(**given).logits.double()
            own = logits[:, 0] if self.single else logits.softmax(-1)[:, self.place]
            found[run] = own.cpu().numpy()
        if not np.isfinite(found).all():
            raise ModelError("E3033", "the model gives values that are no numbers", where=self.loaded.name,
                             found=str(found[~np.isfinite(found)][0]), do="choose another model")
        return found


def entailment_model(path: str) -> SecondModel:
    """A model whose labels name an entailment.

    Raises:
        ModelError: E3030 no folder, or no encoder with a trained head; E3031 no such label; others as `load_model`.
    """
    loaded = _loaded(path)
    labels = [str(loaded.model.config.id2label[number]) for number in range(loaded.model.config.num_labels)]
    places = [place for place, label in enumerate(labels) if label.strip().lower() in (ENTAILMENT, "entailed")]
    if len(labels) < 2 or len(places) != 1:
        raise ModelError("E3031", "the model has no label that says entailment", where=path, found=", ".join(labels),
                         allowed="one label called entailment in id2label of config.json, and others",
                         do="choose a model for natural language inference, or name its labels")
    return SecondModel(loaded, places[0], single=False)


def quality_model(path: str) -> SecondModel:
    """A model with one output.

    Raises:
        ModelError: E3030 as above, E3032 several outputs; others as `load_model`.
    """
    loaded = _loaded(path)
    if loaded.model.config.num_labels != 1:
        raise ModelError("E3032", "a model of quality has one output", where=path,
                         found=f"{loaded.model.config.num_labels} outputs", allowed="1",
                         do="choose a regression model that reads source and answer")
    return SecondModel(loaded, 0, single=True)


def _loaded(path: str) -> LoadedModel:
    folder = Path(path).is_dir()
    if not folder or family_of(configuration(path)) != ENCODER:
        raise _no_judge(path, family_of(configuration(path)) if folder else "no folder")
    loaded = load_model(path, head="classes")
    if loaded.fresh:  # weights that the files lack would be random
        raise _no_judge(path, f"no weights for {', '.join(loaded.fresh)}"[:200])
    return loaded


def _no_judge(path: str, found: str) -> ModelError:
    return ModelError("E3030", "this is no folder with an encoder that judges pairs of texts", where=path, found=found,
                      allowed=ENCODER, do="give a folder in Hugging Face layout with its own classifier")


def borne_out(model: SecondModel, sources: Sequence[str], answers: Sequence[str]) -> list[tuple[float, int, int]]:
    """Of each answer: how far its least supported sentence follows from the sentence of the source that supports it
    most (SummaC's zero-shot rule, Laban et al. 2022), 0-1, and where that sentence stands in the answer.

    An answer or a source without sentences is not borne out: 0.
    """
    pairs: list[tuple[int, int, str, str]] = []
    spans = [spans_of(answer) for answer in answers]
    for row, (source, own) in enumerate(zip(sources, spans, strict=True)):
        pairs += [(row, place, premise, answers[row][start:end])
                  for place, (start, end) in enumerate(own) for premise in sentences_in(source)]
    values = model.values([pair[2] for pair in pairs], [pair[3] for pair in pairs])
    best: dict[tuple[int, int], float] = {}
    for (row, place, _, _), value in zip(pairs, values.tolist(), strict=True):
        best[row, place] = max(best.get((row, place), 0.0), value)
    found = []
    for row, own in enumerate(spans):
        value, start, end = min(((best.get((row, place), 0.0), *span) for place, span in enumerate(own)),
                                default=(0.0, 0, len(answers[row])))
        found.append((value, start, end))
    return found


def spans_of(text: str) -> list[tuple[int, int]]:
    """(start, end) of each sentence, in order."""
    found, at = [], 0
    for sentence in sentences_in(text):
        start = text.find(sentence, at)
        if start < 0:  # not a piece of the text as it stands
            return [(0, len(text))]
        at = start + len(sentence)
        found.append((start, at))
    return found
