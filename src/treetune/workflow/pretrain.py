"""Pretraining: text -> tokenizer -> blocks -> loss -> checkpoint -> model, in one straight function."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treetune.core.errors import UsageError
from treetune.core.files import RunFolder, file_digest, write_json, write_text
from treetune.core.lock import run_lock
from treetune.core.records import TokenizedExample
from treetune.core.seeds import seed_of
from treetune.core.settings import PretrainSettings, reported_to, to_yaml
from treetune.models.family import ENCODER, family_of_model
from treetune.workflow.log import MetricsLog, OnEvent
from treetune.workflow.pretrain_masked import pretrain_masked
from treetune.workflow.pretraining_run import RECORD, fingerprint_of, kept_type, refuse_other_run, stages_before
from treetune.workflow.pretraining_text import asked, in_shares, split_source
from treetune.workflow.reporting import Reporting
from treetune.workflow.run import save_model
from treetune.workflow.trackers.contract import require

if TYPE_CHECKING:

    from treetune.models.gpt3 import GPT3Config, GPT3Tokenizer
    from treetune.models.load import LoadedModel

SHAPE = {"n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads",
         "vocab_size": "vocab_size", "attention_band": "attention_band"}


def pretrain(settings: PretrainSettings, on_event: OnEvent) -> dict[str, Any]:
    """Train a GPT-3-architecture model, or go on with any decoder, on raw text; the same call resumes in its folder.

    Returns:
        What was written to ``pretraining.json``: tokens by source, held-out bits per byte by source (of a model that
        was gone on from, before and after), settings.

    Raises:
        UsageError: E2071, E2072 settings that do not fit ``init_from``. ModelError: it cannot be loaded.
        RunError: E5010. DataError: a source cannot be read.
    """
    require(reported_to(settings))
    folder = RunFolder(Path(settings.output_dir))
    with (run_lock(folder.root, MetricsLog(folder.metrics, on_event)),
          Reporting(settings, folder, on_event) as told):
        return pretrain_folder(settings, folder, told)


def pretrain_folder(settings: PretrainSettings, folder: RunFolder, on_event: OnEvent) -> dict[str, Any]:
    """`pretrain` in a folder that is this process's to write."""
    import torch

    from treetune.models.batches import batches_of
    from treetune.models.exactness import prove
    from treetune.models.gpt3 import GPT3LMHeadModel
    from treetune.train.loop import fit

    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
    if settings.init_from and family_of_model(settings.init_from) == ENCODER:
        return pretrain_masked(settings, folder, on_event)
    start = starting_model(settings)
    fingerprint = fingerprint_of(settings, start)
    refuse_other_run(folder, fingerprint)
    write_text(folder.config, to_yaml(settings))
    log = MetricsLog(folder.metrics, on_event)

    texts = {source.path: split_source(source, settings) for source in settings.data}
    tokenizer = start.tokenizer if start else tokenizer_for(settings, texts, folder)
    tokenizer.model_max_length = 10**9  # documents longer than the window are cut into blocks
    training, counts = training_blocks(settings, texts, tokenizer)
    held_out = held_out_blocks(settings, texts, tokenizer)

    torch.manual_seed(seed_of(settings.seed, "init"))
    model = start.model if start else GPT3LMHeadModel(model_config(settings, tokenizer))
    make_batches = partial(batches_of, layout="padded", rows_per_pass=settings.per_device_train_batch_size,
                           max_tokens=settings.n_positions)
    validation = [block for each in held_out.values() for block in each[:8]]
    measure = partial(bits_by_source, model, held_out, tokenizer, make_batches)
    before = {"init_from": settings.init_from, "stages_before": stages_before(start),
              "held_out_bits_per_byte_before": measure()} if start else {}
    # the head in stretches, where that is exact
    log(prove(model, training[:4], "padded", settings.n_positions).event("padded"))
    state = fit(model, training, validation, settings, make_batches, folder, fingerprint, log)

    record = {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "tokens_seen": state.tokens, "training_tokens_by_source": counts, "seconds": state.seconds,
        **before, "held_out_bits_per_byte": measure(),
        "sources_sha256": {s.path: file_digest(Path(settings.data_root) / s.path) for s in settings.data},
    }
    tokenizer.model_max_length = start.window if start else settings.n_positions
    save_model(folder, model.to(kept_type(start)), tokenizer)
    write_json(folder.root / RECORD, record)
    return record


def starting_model(settings: PretrainSettings) -> LoadedModel | None:
    """The model of ``init_from``, looked at against the other settings; None where there is none.

    Raises:
        UsageError: E2071 another shape or tokenizer was asked for, E2072 blocks longer than the model's window.
    """
    from treetune.models.load import load_model

    if settings.init_from is None:
        return None
    loaded = load_model(settings.init_from)
    fields = PretrainSettings.model_fields
    asked_for = {name: getattr(settings, name) for name in SHAPE if getattr(settings, name) != fields[name].default}
    has = {name: getattr(loaded.model.config, SHAPE[name], None) for name in SHAPE}
    other = {name: value for name, value in asked_for.items() if value != has[name]}
    other |= {"tokenizer": settings.tokenizer} if settings.tokenizer else {}
    if other:
        name, value = next(iter(other.items()))
        raise UsageError("E2071", "a model that is gone on from keeps its shape and its tokenizer", where=name,
                         found=str(value), allowed=str(has.get(name, settings.init_from)),
                         do="leave the setting away, or leave --init-from away")
    if settings.n_positions > loaded.window:
        raise UsageError("E2072", "the blocks of text are longer than the model's window", where="n_positions",
                         found=str(settings.n_positions), allowed=str(loaded.window), do="lower --n-positions")
    return loaded


def tokenizer_for(
    settings: PretrainSettings, texts: dict[str, tuple[list[str], list[str]]], folder: RunFolder
) -> GPT3Tokenizer:
    """The tokenizer of the settings or of the folder, else one trained on the sources in their shares."""
    from treetune.models.gpt3 import GPT3Tokenizer, train_tokenizer

    place = Path(settings.tokenizer) if settings.tokenizer else folder.root / "tokenizer"
    if (place / "tokenizer.json").is_file():
        kept: GPT3Tokenizer = GPT3Tokenizer.from_pretrained(place)
        return kept
    total = sum(source.share for source in settings.data)
    sample: list[str] = []
    for source in settings.data:
        budget = settings.tokenizer_bytes * source.share / total
        for text in asked(source, texts[source.path][0], settings.seed, 0):
            if budget <= 0:
                break
            sample.append(text)
            budget -= len(text.encode())
    tokenizer = train_tokenizer(sample, settings.vocab_size, settings.n_positions)
    tokenizer.save_pretrained(place)
    return tokenizer


def training_blocks(
    settings: PretrainSettings, texts: dict[str, tuple[list[str], list[str]]], tokenizer: GPT3Tokenizer
) -> tuple[list[TokenizedExample], dict[str, dict[str, float]]]:
    """Blocks of all sources in their shares, and what `in_shares` counts."""
    from treetune.models.corpus import blocks, document_ids

    def read(told: Iterator[str], num_tokens: int, _stream: str) -> tuple[list[TokenizedExample], int]:
        ids = document_ids(told, tokenizer, num_tokens)
        return blocks(ids, settings.n_positions), sum(map(len, ids))

    return in_shares(settings, texts, read)


def held_out_blocks(
    settings: PretrainSettings, texts: dict[str, tuple[list[str], list[str]]], tokenizer: GPT3Tokenizer
) -> dict[str, list[TokenizedExample]]:
    """Blocks of text that training never sees, by source."""
    from treetune.models.corpus import blocks, document_ids

    return {
        path: blocks(document_ids(held_out, tokenizer, settings.held_out_tokens), settings.n_positions)
        for path, (_, held_out) in texts.items()
    }


def model_config(settings: PretrainSettings, tokenizer: GPT3Tokenizer) -> GPT3Config:
    """The shape asked for."""
    from treetune.models.gpt3 import GPT3Config

    return GPT3Config(
        vocab_size=len(tokenizer), n_positions=settings.n_positions, n_embd=settings.n_embd,
        n_layer=settings.n_layer, n_head=settings.n_head, attention_band=settings.attention_band,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def bits_by_source(
    model: Any, held_out: dict[str, list[TokenizedExample]], tokenizer: Any, make_batches: Any
) -> dict[str, float]:
    """`bits_per_byte` of each source that has held-out text."""
    return {path: bits_per_byte(model, each, tokenizer, make_batches) for path, each in held_out.items() if each}


def bits_per_byte(
    model: Any, examples: Sequence[TokenizedExample], tokenizer: Any, make_batches: Any
) -> float:
    """Held-out loss in bits for each byte of the text that the labels spell; the end of a document is one byte."""
    from treetune.train.loop import mean_loss

    nats = mean_loss(model, examples, make_batches) * sum(len(each.completion_ids) for each in examples)
    num_bytes = sum(
        len(tokenizer.decode(each.completion_ids, skip_special_tokens=True).encode())
        + int((each.completion_ids == tokenizer.eos_token_id).sum()) for each in examples
    )
    return nats / math.log(2) / num_bytes
