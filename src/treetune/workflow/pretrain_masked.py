"""Going on with an encoder on raw text: text -> rows -> hidden tokens -> loss -> checkpoint -> model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from treetune.core.errors import DataError
from treetune.core.files import RunFolder, file_digest, write_json, write_text
from treetune.core.settings import PretrainSettings, to_yaml
from treetune.workflow.log import MetricsLog, OnEvent
from treetune.workflow.pretraining_run import RECORD, fingerprint_of, kept_type, refuse_other_run
from treetune.workflow.pretraining_text import in_shares, split_source
from treetune.workflow.run import save_model

HELD_OUT = "held out"


def pretrain_masked(settings: PretrainSettings, folder: RunFolder, on_event: OnEvent) -> dict[str, Any]:
    """Train an encoder to find hidden words; the same call on the same folder resumes.

    Returns:
        What was written to ``pretraining.json``: tokens by source, and by source the held-out loss of the hidden
        tokens (the same ones) before and after, in nats a token, with its exponential.

    Raises:
        RunError: E5010. DataError: E1406 no text. ModelError: E3009 a model without a head for masked words.
    """
    import torch

    from treetune.models import masked
    from treetune.models.encoder import TOLERANCE, prove_packed, spread_of
    from treetune.models.load import load_model
    from treetune.train.loop import fit

    start = load_model(str(settings.init_from), head="masked")
    fingerprint = fingerprint_of(settings, start)
    refuse_other_run(folder, fingerprint)
    write_text(folder.config, to_yaml(settings))
    log = MetricsLog(folder.metrics, on_event)
    texts = {source.path: split_source(source, settings) for source in settings.data}
    length = min(settings.n_positions, start.window)
    training, counts = training_rows(settings, texts, start.tokenizer, length)
    held_out = {path: rows_of(kept, start.tokenizer, length, settings.held_out_tokens, settings.seed, HELD_OUT)
                for path, (_, kept) in texts.items()}
    if not training:
        raise DataError("E1406", "there is no text to train on", where=", ".join(texts)[:200], do="add text")
    max_tokens = length * settings.per_device_train_batch_size
    layout, difference, reason = prove_packed(start.model, masked, spread_of(training, length * 4), max_tokens)
    log({"event": "exactness", "layout": "packed", "tolerance": TOLERANCE, "used": layout, "engine": "rows",
         "difference": str(difference) if reason else difference, "where": reason, "refused": []})
    make_batches = partial(masked.batches_of, layout=layout, rows_per_pass=settings.per_device_train_batch_size,
                           max_tokens=max_tokens)
    measure = partial(masked_loss_by_source, start.model, held_out, make_batches)
    before = measure()
    validation = [row for rows in held_out.values() for row in rows[:64]]
    state = fit(start.model, training, validation, settings, make_batches, folder, fingerprint, log,
                loss_of=masked.loss_sum)
    record = {
        "parameters": sum(weight.numel() for weight in start.model.parameters()), "init_from": settings.init_from,
        "tokens_seen": state.tokens, "training_tokens_by_source": counts, "seconds": state.seconds,
        "row_tokens": length, "layout": layout, "held_out_masked_before": before, "held_out_masked": measure(),
        "sources_sha256": {s.path: file_digest(Path(settings.data_root) / s.path) for s in settings.data},
    }
    start.tokenizer.model_max_length = start.window
    kept: torch.dtype = kept_type(start)
    save_model(folder, start.model.to(kept), start.tokenizer)
    write_json(folder.root / RECORD, record)
    return record


def training_rows(
    settings: PretrainSettings, texts: dict[str, tuple[list[str], list[str]]], tokenizer: Any, length: int
) -> tuple[list[Any], dict[str, dict[str, float]]]:
    """Rows of all sources in their shares; a source read again has other tokens hidden."""
    def read(told: Iterator[str], num_tokens: int, stream: str) -> tuple[list[Any], int]:
        rows = rows_of(list(told), tokenizer, length, num_tokens, settings.seed, stream)
        return rows, sum(row.num_tokens for row in rows)

    return in_shares(settings, texts, read)


def rows_of(
    texts: list[str], tokenizer: Any, length: int, num_tokens: int, seed: int, stream: str
) -> list[Any]:
    """The first texts that hold ``num_tokens``, in pieces of ``length`` tokens, special ones included, some hidden."""
    import numpy as np

    from treetune.models.masked import hide
    from treetune.models.tokens import special_ids

    before, after = special_ids(tokenizer)
    room = length - len(before) - len(after)
    rows: list[Any] = []
    size = 0
    for first in range(0, len(texts), 1000):
        part = texts[first : first + 1000]
        for ids in tokenizer(part, add_special_tokens=False, split_special_tokens=True)["input_ids"]:
            for start in range(0, len(ids), room):
                if size >= num_tokens:
                    return rows
                piece = np.array([*before, *ids[start : start + room], *after], dtype=np.int64)
                rows.append(hide(piece, len(rows), tokenizer, seed, stream))
                size += len(piece)
    return rows


def masked_loss_by_source(
    model: Any, held_out: dict[str, list[Any]], make_batches: Any
) -> dict[str, dict[str, float]]:
    """Nats a hidden token of each source that has held-out text, with its exponential."""
    from treetune.models.masked import loss_sum
    from treetune.train.loop import mean_loss

    losses = {path: mean_loss(model, rows, make_batches, loss_sum) for path, rows in held_out.items() if rows}
    return {path: {"loss": loss, "perplexity": math.exp(loss), "tokens": sum(len(row.label_ids) for row in
                                                                            held_out[path])}
            for path, loss in losses.items()}
