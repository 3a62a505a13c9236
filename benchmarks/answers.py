"""One system's predictions on given rows, timed: treetune, transformers' pipeline and generate, lm-evaluation-harness.

Every clock starts before tokenization and stops when the last answer is there; loading is not counted. All systems
tokenize through treetune's `models.tokens`, so that they score and continue the same ids.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from children import memory_now
from rows import SETS, examples_of
from shapes import load_for_peer, save_shape
from treetune.core.records import Example, TokenizedExample

MAX_NEW_TOKENS = 32
Scores = list[list[float]]  # rows x labels, natural-log probability of the whole label


def clock() -> tuple[float, float]:
    """Now, by the wall and by the processor."""
    return time.perf_counter(), time.process_time()


def since(began: tuple[float, float]) -> dict[str, float]:
    """``seconds`` and ``cpu_seconds`` since `clock`."""
    return {"seconds": time.perf_counter() - began[0], "cpu_seconds": time.process_time() - began[1]}


def predict(job: dict[str, Any]) -> dict[str, Any]:
    """Run ``job["system"]`` (``treetune``, ``pipeline-N``, ``harness-N``, ``harness-own-N``, ``generate-N``,
    ``generate-sorted-N``) on the first rows of the validation split.

    Returns:
        seconds (of the wall, and of the processor), peak memory in MiB, answers; ``probability`` (rows x labels) or
        ``ids`` (new tokens of each row).
    """
    examples = examples_of(job["rows"], "validation")[0][: job["count"]]
    if job["system"] == "treetune":
        result = ours(job, examples)
    elif SETS[job["rows"]] == "sentiment":
        result = scored(job, examples)
    else:
        result = generated(job, examples)
    return {**result, "peak_memory": memory_now()}


def prepare(job: dict[str, Any]) -> dict[str, Any]:
    """Save the model; ``layout`` and ``engine`` as the exactness check of a tuning would leave them."""
    from ours import proved
    from treetune.core.settings import TuneSettings
    from treetune.models.load import load_model
    from treetune.models.tokens import tokenize

    save_shape(job["shape"], Path(job["model"]))
    loaded = load_model(job["model"])
    rows = tokenize(examples_of(job["rows"], "validation")[0][: job["count"]], loaded.tokenizer, loaded.window)
    budget = TuneSettings.model_fields["max_tokens_per_pass"].default
    return proved(loaded.model, rows, "tree", budget)


def ours(job: dict[str, Any], examples: Sequence[Example]) -> dict[str, Any]:
    """`treetune.predict`, as `treetune predict` calls it: the model set up as it was proved when it was tuned."""
    from treetune.models.engine import Engine, set_up
    from treetune.models.load import load_model
    from treetune.predict.answers import predict_answers
    from treetune.tasks.contract import load_task

    loaded = load_model(job["model"])
    set_up(loaded.model, Engine(**job["engine"]))
    began = clock()
    found = predict_answers(loaded, load_task(SETS[job["rows"]]), examples, max_length=loaded.window,
                            max_new_tokens=MAX_NEW_TOKENS, layout=job["layout"])
    times = since(began)
    result: dict[str, Any] = {**times, "answers": [each.answer for each in found],
                              "texts": [each.text for each in found]}
    if examples[0].candidates:
        result["probability"] = [[each.scores[f"probability:{label}"] for label in example.candidates]
                                 for each, example in zip(found, examples, strict=True)]
    return result


def scored(job: dict[str, Any], examples: Sequence[Example]) -> dict[str, Any]:
    """Labels by a peer: the likelihood of each label behind each prompt."""
    from transformers import AutoTokenizer

    from treetune.models.load import window_of
    from treetune.models.tokens import tokenize_candidates

    model, tokenizer = load_for_peer(job["model"]).eval(), AutoTokenizer.from_pretrained(job["model"])
    family, *form, size = job["system"].split("-")
    score = pipeline_scorer(model, tokenizer, int(size)) if family == "pipeline" else harness_scorer(
        model, tokenizer, int(size), with_end=form != ["own"])
    began = clock()
    rows = tokenize_candidates(examples, tokenizer, window_of(model.config))
    logs = np.array(score(rows)).reshape(len(examples), -1)
    times = since(began)
    shifted = np.exp(logs - logs.max(axis=1, keepdims=True))
    labels = [list(example.candidates)[place] for example, place in zip(examples, logs.argmax(axis=1), strict=True)]
    return {**times, "answers": labels,
            "probability": (shifted / shifted.sum(axis=1, keepdims=True)).tolist()}


def pipeline_scorer(model: Any, tokenizer: Any, batch_size: int) -> Callable[[Sequence[TokenizedExample]], list[float]]:
    """A pipeline of transformers that scores a continuation, batched by the pipeline itself (its default is 1)."""
    import torch
    from transformers import Pipeline

    class Likelihood(Pipeline):  # type: ignore[misc]
        _load_tokenizer = True

        def _sanitize_parameters(self, **_: Any) -> tuple[dict[str, Any], ...]:
            return {}, {}, {}

        def preprocess(self, inputs: dict[str, list[int]], **_: Any) -> dict[str, Any]:
            ids = torch.tensor([inputs["prompt"] + inputs["label"]])
            return {"input_ids": ids, "attention_mask": torch.ones_like(ids),
                    "first": torch.tensor([[len(inputs["prompt"])]]), "end": torch.tensor([[ids.shape[1]]])}

        def _forward(self, inputs: dict[str, Any], **_: Any) -> dict[str, Any]:
            first, end = inputs.pop("first"), inputs.pop("end")
            return {"logits": self.model(**inputs).logits, "input_ids": inputs["input_ids"], "first": first, "end": end}

        def postprocess(self, outputs: dict[str, Any], **_: Any) -> float:
            first, end = int(outputs["first"]), int(outputs["end"])
            logs = outputs["logits"][0, first - 1 : end - 1].float().log_softmax(-1)
            return float(logs.gather(-1, outputs["input_ids"][0, first:end, None]).sum())

    tokenizer.padding_side = "right"
    pipe = Likelihood(model=model, tokenizer=tokenizer, batch_size=batch_size)
    return lambda rows: pipe([{"prompt": row.prompt_ids.tolist(), "label": row.completion_ids.tolist()}
                              for row in rows])


def harness_scorer(
    model: Any, tokenizer: Any, batch_size: int, *, with_end: bool
) -> Callable[[Sequence[TokenizedExample]], list[float]]:
    """lm-evaluation-harness' log-likelihoods of token ids.

    Args:
        with_end: score label and end-of-text, as treetune does; False: its own form, the label alone, where labels of
            one token share a forward pass.
    """
    from lm_eval.models.huggingface import HFLM

    from treetune.models.load import window_of

    harness = HFLM(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=batch_size, device="cpu",
                   max_length=window_of(model.config))

    def score(rows: Sequence[TokenizedExample]) -> list[float]:
        requests = []
        for row in rows:
            label = row.completion_ids.tolist()
            requests.append((("", ""), row.prompt_ids.tolist(), label if with_end else label[:-1]))
        return [value for value, _ in harness._loglikelihood_tokens(requests, disable_tqdm=True)]

    return score


def generated(job: dict[str, Any], examples: Sequence[Example]) -> dict[str, Any]:
    """Answers by transformers' ``generate``: greedy, padded on the left, stopped at end-of-text."""
    import torch
    from transformers import AutoTokenizer

    from treetune.models.load import window_of
    from treetune.models.tokens import tokenize

    model, tokenizer = load_for_peer(job["model"]).eval(), AutoTokenizer.from_pretrained(job["model"])
    end = int(tokenizer.eos_token_id)
    _, *form, size = job["system"].split("-")
    began = clock()
    rows = tokenize(examples, tokenizer, window_of(model.config) - MAX_NEW_TOKENS, with_completion=False)
    order = list(range(len(rows)))
    if form == ["sorted"]:
        order.sort(key=lambda at: len(rows[at].prompt_ids))
    new: dict[int, list[int]] = {}
    for start in range(0, len(rows), int(size)):
        places = order[start : start + int(size)]
        longest = max(len(rows[place].prompt_ids) for place in places)
        ids = torch.full((len(places), longest), end)
        mask = torch.zeros_like(ids)
        for line, place in enumerate(places):
            ids[line, longest - len(rows[place].prompt_ids) :] = torch.from_numpy(rows[place].prompt_ids)
            mask[line, longest - len(rows[place].prompt_ids) :] = 1
        with torch.no_grad():
            out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=MAX_NEW_TOKENS, do_sample=False,
                                 num_beams=1, pad_token_id=end, eos_token_id=end)
        for place, tokens in zip(places, out[:, longest:].tolist(), strict=True):
            new[place] = tokens[: tokens.index(end)] if end in tokens else tokens
    texts = [tokenizer.decode(new[place], skip_special_tokens=False) for place in range(len(rows))]
    times = since(began)
    return {**times, "answers": texts, "texts": texts, "ids": [new[place] for place in range(len(rows))]}


def explain(job: dict[str, Any]) -> dict[str, Any]:
    """For each row that two systems continued differently: the first other token, and how close the model's call was.

    The gap is between the two largest logits behind the common beginning, computed alone and in float64.
    """
    import torch
    from transformers import AutoTokenizer

    from treetune.models.load import window_of
    from treetune.models.tokens import tokenize

    model, tokenizer = load_for_peer(job["model"]).double().eval(), AutoTokenizer.from_pretrained(job["model"])
    examples = examples_of(job["rows"], "validation")[0][: job["count"]]
    rows = tokenize(examples, tokenizer, window_of(model.config) - MAX_NEW_TOKENS, with_completion=False)
    found = []
    for place, text in job["ours"].items():
        ids = job["theirs"][place]
        same = next((length for length in range(len(ids) + 1)
                     if not text.startswith(tokenizer.decode(ids[: length + 1], skip_special_tokens=False))), len(ids))
        same = min(same, len(ids))
        with torch.no_grad():
            given = torch.tensor([rows[int(place)].prompt_ids.tolist() + ids[:same]])
            values, tokens = model(input_ids=given).logits[0, -1].topk(2)
        found.append({"row": int(place), "token": same + 1, "gap": float(values[0] - values[1]),
                      "candidates": tokenizer.convert_ids_to_tokens(tokens.tolist())})
    return {"differences": found}
