"""How likely the model finds given answers: log-probabilities of the references, token by token or label by label."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from treetune.core.records import Example, TokenizedExample
from treetune.models import classes, spans
from treetune.models.batches import batches_of
from treetune.models.decoder import label_log_probs
from treetune.models.load import LoadedModel
from treetune.models.tokens import tokenize
from treetune.predict import seq2seq
from treetune.predict.labels import MAX_TOKENS


@torch.no_grad()
def completion_log_probs(
    loaded: LoadedModel, examples: Sequence[TokenizedExample], layout: str, rows_per_pass: int = 32,
    max_tokens: int = MAX_TOKENS,
) -> list[list[float]]:
    """Natural-log probability of each completion token (end-of-text included), one list an example."""
    loaded.model.eval()
    result: list[list[float]] = [[] for _ in examples]
    for start in range(0, len(examples), rows_per_pass):
        for batch in batches_of(examples[start : start + rows_per_pass], layout, rows_per_pass, max_tokens):
            values = label_log_probs(loaded.model, batch.to(loaded.model.device)).cpu().tolist()
            for owner, value in zip(batch.label_example.tolist(), values, strict=True):
                result[start + owner].append(value)
    return result


def reference_log_probs(
    loaded: LoadedModel, examples: Sequence[Example], max_length: int, layout: str
) -> list[list[float]]:
    """Natural-log probabilities of each example's first reference: of its tokens, its label, or its span's two ends."""
    return REFERENCES[loaded.head](loaded, examples, max_length, layout)


def _completions(
    loaded: LoadedModel, examples: Sequence[Example], max_length: int, layout: str
) -> list[list[float]]:
    return completion_log_probs(loaded, tokenize(examples, loaded.tokenizer, max_length), layout)


REFERENCES = {
    "causal": _completions,
    "classes": classes.reference_log_probs,
    "spans": spans.reference_log_probs,
    "seq2seq": seq2seq.reference_log_probs,
}
