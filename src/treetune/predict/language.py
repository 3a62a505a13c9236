"""The language model itself: next-token probabilities, probability of a text, continuation, masked words."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from treetune.core.errors import UsageError
from treetune.models.load import LoadedModel
from treetune.models.tokens import encode_texts, special_ids, start_ids


@dataclass(frozen=True, slots=True)
class NextToken:
    """One candidate for the next token. ``probability`` is over the whole vocabulary."""

    token: str
    id: int
    probability: float


@dataclass(frozen=True, slots=True)
class TextScore:
    """How likely a text is: natural-log probability in all, perplexity a token, bits a byte of UTF-8."""

    log_prob: float
    num_tokens: int
    num_bytes: int
    perplexity: float
    bits_per_byte: float


def text_ids(loaded: LoadedModel, text: str) -> list[int]:
    """Ids of a text behind the model's start of text.

    Raises:
        UsageError: E2020 the text is longer than the model's window.
    """
    own = loaded.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    ids = [*start_ids(loaded.tokenizer), *own]
    if len(ids) > loaded.window or not ids:
        raise UsageError("E2020", "the text does not fit into the model's window", found=f"{len(ids)} tokens",
                         allowed=f"1 to {loaded.window} tokens", do="shorten the text")
    return ids


@torch.no_grad()
def next_tokens(loaded: LoadedModel, text: str, top_k: int = 10) -> list[NextToken]:
    """The ``top_k`` likeliest next tokens, likeliest first; all probabilities of the vocabulary sum to 1."""
    ids = torch.tensor([text_ids(loaded, text)], device=loaded.model.device)
    probability = loaded.model(input_ids=ids, logits_to_keep=1).logits[0, -1].double().softmax(-1)
    values, tokens = probability.topk(min(top_k, len(probability)))
    return [NextToken(loaded.tokenizer.decode([token]), token, value)
            for value, token in zip(values.tolist(), tokens.tolist(), strict=True)]


@torch.no_grad()
def score_text(loaded: LoadedModel, text: str) -> TextScore:
    """Log-probability and perplexity of a text (its first token counted only where the model has a start of text)."""
    ids = torch.tensor([text_ids(loaded, text)], device=loaded.model.device)
    logs = loaded.model(input_ids=ids).logits[0, :-1].double().log_softmax(-1)
    total = float(logs.gather(-1, ids[0, 1:, None]).sum())
    count = ids.shape[1] - 1
    num_bytes = len(text.encode())
    return TextScore(total, count, num_bytes, math.exp(-total / max(1, count)),
                     -total / math.log(2) / max(1, num_bytes))


@torch.no_grad()
def continue_text(
    loaded: LoadedModel, text: str, *, max_new_tokens: int = 40, temperature: float = 0.0, top_p: float = 1.0,
    seed: int = 0,
) -> str:
    """What the model writes after ``text``: the likeliest token each time, or sampled at ``temperature`` > 0."""
    ids = torch.tensor([text_ids(loaded, text)], device=loaded.model.device)
    room = min(max_new_tokens, loaded.window - ids.shape[1])
    if room <= 0:
        return ""
    sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0} if temperature else {
        "do_sample": False}
    end = loaded.tokenizer.eos_token_id
    with torch.random.fork_rng(devices=[ids.device] if ids.is_cuda else []):
        torch.manual_seed(seed)
        output = loaded.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=room,
                                       pad_token_id=end, eos_token_id=end, **sampling)
    new = output[0, ids.shape[1] :].tolist()
    continuation: str = loaded.tokenizer.decode(new, skip_special_tokens=True)
    return continuation


@torch.no_grad()
def masked_words(loaded: LoadedModel, text: str, top_k: int = 10) -> list[list[NextToken]]:
    """What an encoder believes stands behind each mask of ``text``, likeliest first; one list a mask.

    Raises:
        UsageError: E2022 the text has no mask, E2020 it is longer than the model's window.
    """
    tokenizer = loaded.tokenizer
    pieces = text.split(tokenizer.mask_token) if tokenizer.mask_token else [text]
    if len(pieces) < 2:
        raise UsageError("E2022", "the text has no mask to fill in", found=text[:80],
                         allowed=tokenizer.mask_token or "", do="write the mask where the word is missing")
    own = encode_texts(tokenizer, pieces)
    before, after = special_ids(tokenizer)
    ids = [*before, *own[pieces[0]]]
    for piece in pieces[1:]:
        ids += [tokenizer.mask_token_id, *own[piece]]
    ids += after
    if len(ids) > loaded.window:
        raise UsageError("E2020", "the text does not fit into the model's window", found=f"{len(ids)} tokens",
                         allowed=f"1 to {loaded.window} tokens", do="shorten the text")
    given = torch.tensor([ids], device=loaded.model.device)
    probability = loaded.model(input_ids=given).logits[0, given[0] == tokenizer.mask_token_id].double().softmax(-1)
    values, tokens = probability.topk(min(top_k, probability.shape[-1]))
    return [
        [NextToken(tokenizer.decode([token]), token, value) for value, token in zip(*pair, strict=True)]
        for pair in zip(values.tolist(), tokens.tolist(), strict=True)
    ]
