"""One vector a row: what the model holds of it in its last layer, before anything is answered.

| head | position |
|---|---|
| decoder, labels | the last token of the prompt, where the label is read |
| decoder, text | mean over the prompt's tokens |
| encoder, labels or spans | mean over the row's tokens, of all its windows |
| encoder-decoder | mean over the source's tokens, in the encoder |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from treetune.core.records import Example, FloatArray, IntArray, OutputKind
from treetune.models import classes, spans
from treetune.models.batches import right_padded
from treetune.models.encoder import padded
from treetune.models.engine import core_model
from treetune.models.family import kind_of
from treetune.models.load import LoadedModel
from treetune.models.seq2seq import encode_sources
from treetune.models.tokens import tokenize, tokenize_candidates
from treetune.predict.engines.contract import Decoding
from treetune.tasks.contract import Task
from treetune.trees.passes import passes

ROWS_PER_PASS = 32


def position_of(head: str, task: Task) -> str:
    """Where the vector is taken, for the record."""
    label = kind_of(head, task) is OutputKind.LABEL
    return {"causal": "last prompt token" if label else "mean of prompt tokens", "classes": "mean of row tokens",
            "spans": "mean of row tokens", "seq2seq": "mean of source tokens in the encoder"}[head]


@torch.no_grad()
def hidden_states(loaded: LoadedModel, task: Task, examples: Sequence[Example], decoding: Decoding) -> FloatArray:
    """(N, D) in float64."""
    loaded.model.eval()
    core = core_model(loaded.model)
    if loaded.head in ("classes", "spans"):
        return _of_encoder(loaded, core.base_model, examples, decoding.max_length)
    if loaded.head == "seq2seq":
        ids = [own for own, _ in encode_sources(examples, loaded.tokenizer, decoding.max_length)]
        return _of_rows(core.get_encoder(), ids, decoding.max_length, {}, last=False)
    label = kind_of(loaded.head, task) is OutputKind.LABEL
    rows = ([each for each in tokenize_candidates(examples, loaded.tokenizer, decoding.max_length) if not each.choice]
            if label else tokenize(examples, loaded.tokenizer, decoding.max_length - decoding.max_new_tokens,
                                   with_completion=False))
    return _of_rows(core.base_model, [each.prompt_ids for each in rows], decoding.max_length, {"use_cache": False},
                    last=label)


def _of_rows(
    model: Any, rows: Sequence[IntArray], max_length: int, given: dict[str, Any], *, last: bool
) -> FloatArray:
    """Rows padded on the right; ``last``: the last token of each instead of the mean."""
    device = next(model.parameters()).device
    found: dict[int, FloatArray] = {}
    for run in passes([len(ids) for ids in rows], ROWS_PER_PASS, ROWS_PER_PASS * max_length):
        ids, mask = (torch.from_numpy(each).to(device) for each in right_padded([rows[place] for place in run]))
        lengths = mask.sum(1)
        states = model(input_ids=ids, attention_mask=mask, **given)[0].double()
        own = (states[torch.arange(len(run), device=device), lengths - 1] if last
               else (states * mask[..., None]).sum(1) / lengths[:, None])
        found |= dict(zip(run, own.cpu().numpy(), strict=True))
    return np.stack([found[place] for place in range(len(rows))])


def _of_encoder(loaded: LoadedModel, model: Any, examples: Sequence[Example], max_length: int) -> FloatArray:
    """A row's windows count by their tokens."""
    encode = classes.encode if loaded.head == "classes" else spans.encode
    rows = encode(examples, loaded.tokenizer, max_length)
    totals: list[Any] = [0.0 for _ in examples]
    counts = np.zeros(len(examples))
    for run in passes([row.num_tokens for row in rows], ROWS_PER_PASS, ROWS_PER_PASS * max_length):
        batch = padded([rows[place] for place in run], run).to(loaded.model.device)
        states = model(**batch.inputs())[0].double()
        sums = (states * batch.attention_mask[..., None]).sum(1).cpu().numpy()
        for place, own in zip(run, sums, strict=True):
            totals[rows[place].place] = totals[rows[place].place] + own
            counts[rows[place].place] += rows[place].num_tokens
    return np.stack(totals) / counts[:, None]
