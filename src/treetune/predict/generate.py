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
from treetune.predict.draw import Draw, DrawnTokens
from treetune.predict.extract import Allowed, paths_for
from treetune.predict.shared import greedy_shared, repeats, without
from treetune.predict.watch import OnToken, told, watching
from treetune.tasks.contract import Task, is_extractive
from treetune.trees.build import sorted_order

SHARED_PASS = 2  # times the rows of a padded pass: rows that share their prompts hold less, and products like more rows


@torch.no_grad()
def generate_answers(
    loaded: LoadedModel, task: Task, examples: Sequence[Example], *, max_length: int, max_new_tokens: int,
    rows_per_pass: int, layout: str = "padded", on_token: OnToken | None = None, answers_from: str = "anything",
    no_repeat_ngram_size: int = 0, draw: Draw | None = None,
) -> list[Prediction]:
    """The likeliest continuation of each prompt, token by token, up to end-of-text or ``max_new_tokens``.

    Args:
        layout: with ``tree``, and a model set up for blocks, prompts are read as trees, neighbours in the alphabet
            together; else rows of like length are, padded on the left.
        answers_from: with ``source`` an answer of an extractive task is a piece of the row's source, or that there is
            none: each token is the likeliest of those that keep it one (`treetune.predict.extract`).
        no_repeat_ngram_size: no run of this many tokens comes twice in an answer; 0: it may. Pieces of a source repeat
            what the source repeats.
        draw: by example; None: each token is the likeliest.

    Scores: ``probability`` (of the whole answer), ``mean_log_prob``, ``min_log_prob`` in nats a token.
    """
    tokenized = tokenize(examples, loaded.tokenizer, max_length - max_new_tokens, with_completion=False)
    prompts = [each.prompt_ids for each in tokenized]
    shared = layout == "tree" and engine_of(loaded.model).blocks
    order = sorted_order(prompts) if shared else sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    paths = paths_for(loaded, task, examples, [each.num_cut for each in tokenized],
                      max_new_tokens) if answers_from == "source" and is_extractive(task) else []
    size = rows_per_pass * (SHARED_PASS if shared else 1)
    result: dict[int, Prediction] = {}
    for start in range(0, len(order), size):
        places = order[start : start + size]
        began = time.perf_counter()
        part = [tokenized[place] for place in places]
        allowed = [paths[place].after for place in places] if paths else []
        no_repeat = 0 if paths else no_repeat_ngram_size
        drawn = draw and draw.of(places)
        if shared:
            answers = greedy_shared(loaded.model, part, max_new_tokens, int(loaded.tokenizer.eos_token_id),
                                    told(on_token, places), allowed, no_repeat, drawn)
        else:
            answers = greedy(loaded, part, max_new_tokens, told(on_token, places), allowed, no_repeat, drawn)
        seconds = (time.perf_counter() - began) / len(places)
        for place, (ids, logs) in zip(places, answers, strict=True):
            result[place] = _prediction(loaded, task, examples[place], ids, logs, tokenized[place].num_cut, seconds)
    return [result[place] for place in range(len(examples))]


class _NoRepeat:
    """Bars, inside transformers' ``generate``, what would repeat a run of tokens behind the prompt."""

    def __init__(self, size: int, longest: int) -> None:
        self.size, self.longest = size, longest

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return without(scores, [repeats(row[self.longest :].tolist(), self.size) for row in input_ids])


def greedy(
    loaded: LoadedModel, rows: Sequence[TokenizedExample], max_new_tokens: int, on_token: OnToken | None = None,
    allowed: Sequence[Allowed] = (), no_repeat_ngram_size: int = 0, draw: Draw | None = None,
) -> list[tuple[list[int], list[float]]]:
    """New token ids of each row (end-of-text included where it came) and their natural-log probabilities.

    Rows are padded on the left; the model's own ``generate`` does the rest, whatever its kind of mixing.

    Args:
        allowed: for each row what it may write next; (): anything. no_repeat_ngram_size: counted in what is written,
            not in the prompt, as transformers' own would. draw: None: each token is the likeliest.
    """
    def may_follow(row: int, ids: torch.Tensor) -> list[int]:
        tokens = ids[longest:].tolist()
        return [end] if end in tokens else allowed[row](tokens).tolist()

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
        prefix_allowed_tokens_fn=may_follow if allowed else None,
        logits_processor=[*([_NoRepeat(no_repeat_ngram_size, longest)] if no_repeat_ngram_size else []),
                          *([DrawnTokens(draw, longest)] if draw else [])],
        **watching(on_token, [[row] for row in range(len(rows))], end),
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
