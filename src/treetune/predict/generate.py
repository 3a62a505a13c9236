"""Text by greedy generation: prompts that share a beginning read once, each row stopped at its end-of-text."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from treetune.core.records import Example, Prediction, TokenizedExample
from treetune.models.engine import engine_of
from treetune.models.load import LoadedModel
from treetune.models.tokens import tokenize
from treetune.predict.shared import greedy_shared
from treetune.tasks.contract import Task
from treetune.trees.build import sorted_order


@torch.no_grad()
def generate_answers(
    loaded: LoadedModel, task: Task, examples: Sequence[Example], *, max_length: int, max_new_tokens: int,
    rows_per_pass: int, layout: str = "padded",
) -> list[Prediction]:
    """The likeliest continuation of each prompt, token by token, up to end-of-text or ``max_new_tokens``.

    Args:
        layout: with ``tree``, and a model set up for blocks, prompts are read as trees, neighbours in the alphabet
            together; else rows of like length are, padded on the left.

    Scores: ``probability`` (of the whole answer), ``mean_log_prob``, ``min_log_prob`` in nats a token.
    """
    tokenized = tokenize(examples, loaded.tokenizer, max_length - max_new_tokens, with_completion=False)
    prompts = [each.prompt_ids for each in tokenized]
    shared = layout == "tree" and engine_of(loaded.model).blocks
    order = sorted_order(prompts) if shared else sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    result: dict[int, Prediction] = {}
    for start in range(0, len(order), rows_per_pass):
        places = order[start : start + rows_per_pass]
        began = time.perf_counter()
        part = [tokenized[place] for place in places]
        if shared:
            answers = greedy_shared(loaded.model, part, max_new_tokens, int(loaded.tokenizer.eos_token_id))
        else:
            answers = greedy(loaded, part, max_new_tokens)
        seconds = (time.perf_counter() - began) / len(places)
        for place, (ids, logs) in zip(places, answers, strict=True):
            result[place] = _prediction(loaded, task, examples[place], ids, logs, tokenized[place].num_cut, seconds)
    return [result[place] for place in range(len(examples))]


def greedy(
    loaded: LoadedModel, rows: Sequence[TokenizedExample], max_new_tokens: int
) -> list[tuple[list[int], list[float]]]:
    """New token ids of each row (end-of-text included where it came) and their natural-log probabilities.

    Rows are padded on the left; the model's own ``generate`` does the rest, whatever its kind of mixing.
    """
    end = int(loaded.tokenizer.eos_token_id)
    longest = max(len(row.prompt_ids) for row in rows)
    ids = np.full((len(rows), longest), end, dtype=np.int64)
    mask = np.zeros((len(rows), longest), dtype=np.int64)
    for number, row in enumerate(rows):
        ids[number, longest - len(row.prompt_ids) :] = row.prompt_ids
        mask[number, longest - len(row.prompt_ids) :] = 1
    device = loaded.model.device
    output: Any = loaded.model.generate(
        input_ids=torch.from_numpy(ids).to(device), attention_mask=torch.from_numpy(mask).to(device),
        max_new_tokens=max_new_tokens, do_sample=False, num_beams=1, pad_token_id=end, eos_token_id=end,
        return_dict_in_generate=True, output_logits=True, use_cache=True,
    )
    new = output.sequences[:, longest:].cpu()
    logs = torch.stack(
        [step.float().log_softmax(-1).gather(-1, new[:, place : place + 1].to(step.device))[:, 0].cpu()
         for place, step in enumerate(output.logits)], dim=1,
    )
    result = []
    for number in range(len(rows)):
        tokens = new[number].tolist()
        length = tokens.index(end) + 1 if end in tokens else len(tokens)
        result.append((tokens[:length], logs[number, :length].tolist()))
    return result


def _prediction(
    loaded: LoadedModel, task: Task, example: Example, ids: list[int], logs: list[float], num_cut: int,
    seconds: float,
) -> Prediction:
    finished = bool(ids) and ids[-1] == loaded.tokenizer.eos_token_id
    text = loaded.tokenizer.decode(ids[:-1] if finished else ids, skip_special_tokens=False)
    total = float(np.sum(logs))
    scores = {
        "probability": float(np.exp(total)),
        "mean_log_prob": total / max(1, len(logs)),
        "min_log_prob": float(min(logs, default=0.0)),
    }
    return Prediction(
        row=example.row, row_id=example.row_id, split=example.split, answer=task.answer_from_text(text, example),
        text=text, scores=scores, token_log_probs=tuple(logs), finished=finished, num_cut=num_cut, seconds=seconds,
    )
