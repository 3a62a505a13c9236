"""Answers of an encoder-decoder: text written greedily, labels by their words' probability; a source is read once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers.modeling_outputs import BaseModelOutput

from treetune.core.records import Example, Prediction, TokenizedExample
from treetune.models.batches import right_padded
from treetune.models.engine import core_model
from treetune.models.load import LoadedModel
from treetune.models.seq2seq import batches_of, encode, encode_candidates, encode_sources, label_log_probs
from treetune.predict.classes import label_scores
from treetune.predict.draw import Draw, DrawnTokens
from treetune.predict.watch import OnToken, watching
from treetune.tasks.contract import Task
from treetune.trees.passes import passes

ROWS_PER_PASS = 32
MAX_TOKENS = 4096
# whatever the model's own configuration says; of two least lengths transformers would tell at every call which it took
AS_GREEDY_AS_WE_SAY = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "min_length": 0,
                       "min_new_tokens": None}


@torch.no_grad()
def write_answers(
    loaded: LoadedModel, task: Task, examples: Sequence[Example], *, max_length: int, max_new_tokens: int,
    rows_per_pass: int, on_token: OnToken | None = None, no_repeat_ngram_size: int = 0, draw: Draw | None = None,
) -> list[Prediction]:
    """The likeliest answer to each source, token by token, up to end-of-text or ``max_new_tokens``.

    Args:
        draw: by example; None: each token is the likeliest, and rows of one source have one answer.

    Scores: ``probability`` (of the whole answer), ``mean_log_prob``, ``min_log_prob`` in nats a token.
    """
    loaded.model.eval()
    sources = encode_sources(examples, loaded.tokenizer, max_length)
    numbers: dict[tuple[bytes, int], int] = {}
    owner = [numbers.setdefault((ids.tobytes(), place if draw else 0), len(numbers))
             for place, (ids, _) in enumerate(sources)]
    distinct = [sources[owner.index(number)][0] for number in range(len(numbers))]
    began = time.perf_counter()
    written: dict[int, tuple[list[int], list[float]]] = {}
    for run in passes([len(ids) for ids in distinct], rows_per_pass, rows_per_pass * max_length):
        owners = [[place for place, number in enumerate(owner) if number == each] for each in run]
        answers = greedy(loaded, [distinct[each] for each in run], max_new_tokens, on_token, owners,
                         no_repeat_ngram_size, draw and draw.of([own[0] for own in owners]))
        written |= dict(zip(run, answers, strict=True))
    seconds = (time.perf_counter() - began) / len(examples)
    return [
        _text_prediction(loaded, task, example, *written[number], num_cut, seconds)
        for example, number, (_, num_cut) in zip(examples, owner, sources, strict=True)
    ]


def greedy(
    loaded: LoadedModel, sources: Sequence[np.ndarray[Any, np.dtype[np.int64]]], max_new_tokens: int,
    on_token: OnToken | None = None, owners: Sequence[Sequence[int]] = (), no_repeat_ngram_size: int = 0,
    draw: Draw | None = None,
) -> list[tuple[list[int], list[float]]]:
    """New token ids of each source (end-of-text included where it came) and their natural-log probabilities.

    ``owners``: for each source the places of the examples ``on_token`` is told of. ``draw``: by source; None: each
    token is the likeliest.
    """
    end = int(loaded.tokenizer.eos_token_id)
    ids, mask = right_padded(sources)
    device = next(loaded.model.parameters()).device
    given = {"input_ids": torch.from_numpy(ids).to(device), "attention_mask": torch.from_numpy(mask).to(device)}
    output: Any = core_model(loaded.model).generate(
        **given, **(drawn(loaded.model, given, draw) if draw else {}),
        max_new_tokens=max_new_tokens, eos_token_id=end, return_dict_in_generate=True, output_logits=True,
        use_cache=True, no_repeat_ngram_size=no_repeat_ngram_size, **AS_GREEDY_AS_WE_SAY,
        **watching(on_token, owners, end),
    )
    new = output.sequences[:, -len(output.logits) :].cpu()
    logs = torch.stack(
        [step.double().log_softmax(-1).gather(-1, new[:, place : place + 1].to(step.device))[:, 0].cpu()
         for place, step in enumerate(output.logits)], dim=1,
    )
    result = []
    for tokens, own in zip(new.tolist(), logs.tolist(), strict=True):
        length = tokens.index(end) + 1 if end in tokens else len(tokens)
        result.append((tokens[:length], own[:length]))
    return result


def drawn(model: Any, given: dict[str, torch.Tensor], draw: Draw) -> dict[str, Any]:
    """Arguments for ``generate``: tokens are drawn, and each distinct source of ``given`` is read once."""
    rows = torch.cat([given["input_ids"], given["attention_mask"]], dim=1)
    kept, copy = torch.unique(rows, dim=0, return_inverse=True)
    ids, mask = kept.chunk(2, dim=1)
    states = core_model(model).get_encoder()(input_ids=ids, attention_mask=mask)[0]
    return {"encoder_outputs": BaseModelOutput(last_hidden_state=states[copy]),
            "logits_processor": [DrawnTokens(draw, 1)]}


def _text_prediction(
    loaded: LoadedModel, task: Task, example: Example, ids: list[int], logs: list[float], num_cut: int,
    seconds: float,
) -> Prediction:
    text = loaded.tokenizer.decode(ids, skip_special_tokens=True)
    total = float(np.sum(logs))
    scores = {"probability": float(np.exp(total)), "mean_log_prob": total / max(1, len(logs)),
              "min_log_prob": float(min(logs, default=0.0))}
    return Prediction(
        row=example.row, row_id=example.row_id, split=example.split, answer=task.answer_from_text(text, example),
        text=text, scores=scores, token_log_probs=tuple(logs), num_cut=num_cut, seconds=seconds,
        finished=bool(ids) and ids[-1] == loaded.tokenizer.eos_token_id,
    )


@torch.no_grad()
def score_candidates(
    loaded: LoadedModel, examples: Sequence[Example], *, max_length: int, rows_per_pass: int
) -> list[Prediction]:
    """Normalise the candidates' probabilities over the labels and answer with the likeliest; scores as of labels."""
    loaded.model.eval()
    began = time.perf_counter()
    rows = encode_candidates(examples, loaded.tokenizer, max_length)
    logs = row_log_probs(loaded, rows, rows_per_pass)
    seconds = (time.perf_counter() - began) / len(examples)
    result = []
    place = 0
    for example in examples:
        own = logs[place : place + len(example.candidates)]
        labels = list(example.candidates)
        total = np.array([sum(values) for values in own])
        best = int(total.argmax())
        result.append(Prediction(
            row=example.row, row_id=example.row_id, split=example.split, answer=labels[best],
            text=example.candidates[labels[best]].strip(), scores=label_scores(labels, total),
            token_log_probs=tuple(own[best]), finished=True, num_cut=rows[place].num_cut, seconds=seconds,
        ))
        place += len(labels)
    return result


@torch.no_grad()
def row_log_probs(
    loaded: LoadedModel, rows: Sequence[TokenizedExample], rows_per_pass: int = ROWS_PER_PASS
) -> list[list[float]]:
    """Natural-log probability of each answer token, one list a row."""
    device = next(loaded.model.parameters()).device
    result: list[list[float]] = [[] for _ in rows]
    for batch in batches_of(rows, "padded", rows_per_pass, MAX_TOKENS):
        values = label_log_probs(loaded.model, batch.to(device)).cpu().tolist()
        for owner, value in zip(batch.label_example.tolist(), values, strict=True):
            result[owner].append(value)
    return result


def reference_log_probs(
    loaded: LoadedModel, examples: Sequence[Example], max_length: int, layout: str
) -> list[list[float]]:
    """Natural-log probability of each token of the reference answers."""
    loaded.model.eval()
    return row_log_probs(loaded, encode(examples, loaded.tokenizer, max_length))
