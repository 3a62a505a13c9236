"""Pretraining: text -> tokenizer -> blocks -> loss -> checkpoint -> model, in one straight function."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treetune.core.errors import RunError, UsageError
from treetune.core.files import RunFolder, file_digest, model_digest, read_json, value_digest, write_json, write_text
from treetune.core.lock import run_lock
from treetune.core.records import TokenizedExample
from treetune.core.seeds import generator, seed_of
from treetune.core.settings import PretrainSettings, TextSource, to_yaml
from treetune.data.cloze import with_questions
from treetune.data.text import documents
from treetune.models.family import ENCODER, family_of_model
from treetune.workflow.log import MetricsLog, OnEvent
from treetune.workflow.run import save_model

if TYPE_CHECKING:
    import torch

    from treetune.models.gpt3 import GPT3Config, GPT3Tokenizer
    from treetune.models.load import LoadedModel

MAY_DIFFER = {"output_dir", "data_root", "on_bad_loss", "bad_loss_factor", "max_memory_gb"}
SHAPE = {"n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads",
         "vocab_size": "vocab_size", "attention_band": "attention_band"}
CHARACTERS_TO_READ = 8000
CHARACTERS_TO_ASK_ABOUT = 800  # short enough that a passage and its questions fit one window


def pretrain(settings: PretrainSettings, on_event: OnEvent) -> dict[str, Any]:
    """Train a GPT-3-architecture model, or go on with any decoder, on raw text; the same call resumes in its folder.

    Returns:
        What was written to ``pretraining.json``: tokens by source, held-out bits per byte by source (of a model that
        was gone on from, before and after), settings.

    Raises:
        UsageError: E2071, E2072 settings that do not fit ``init_from``. ModelError: it cannot be loaded.
        RunError: E5010. DataError: a source cannot be read.
    """
    folder = RunFolder(Path(settings.output_dir))
    with run_lock(folder.root, MetricsLog(folder.metrics, on_event)):
        return pretrain_folder(settings, folder, on_event)


def pretrain_folder(settings: PretrainSettings, folder: RunFolder, on_event: OnEvent) -> dict[str, Any]:
    """`pretrain` in a folder that is this process's to write."""
    import torch

    from treetune.models.batches import batches_of
    from treetune.models.gpt3 import GPT3LMHeadModel
    from treetune.train.loop import fit

    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
    if settings.init_from and family_of_model(settings.init_from) == ENCODER:
        from treetune.workflow.pretrain_masked import pretrain_masked

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
    before = {"init_from": settings.init_from, "held_out_bits_per_byte_before": measure()} if start else {}
    state = fit(model, training, validation, settings, make_batches, folder, fingerprint, log)

    record = {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "tokens_seen": state.tokens, "training_tokens_by_source": counts, "seconds": state.seconds,
        **before, "held_out_bits_per_byte": measure(),
        "sources_sha256": {s.path: file_digest(Path(settings.data_root) / s.path) for s in settings.data},
    }
    tokenizer.model_max_length = start.window if start else settings.n_positions
    save_model(folder, model.to(kept_type(start)), tokenizer)
    write_json(folder.root / "pretraining.json", record)
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


def fingerprint_of(settings: PretrainSettings, start: LoadedModel | None) -> dict[str, Any]:
    """What must be the same for a run to be resumed; a model that is gone on from by what its files hold."""
    if start is None:
        return {"settings": value_digest(settings.model_dump(exclude=MAY_DIFFER | {"init_from"}))}
    return {"settings": value_digest(settings.model_dump(exclude=MAY_DIFFER)), "from": model_digest(Path(start.place))}


def kept_type(start: LoadedModel | None) -> torch.dtype:
    """The type the weights are saved in: that of the model gone on from, bfloat16 for a new one."""
    import torch
    from transformers import AutoConfig

    own = AutoConfig.from_pretrained(start.place).dtype if start else torch.bfloat16
    return own if isinstance(own, torch.dtype) else torch.float32


def refuse_other_run(folder: RunFolder, fingerprint: dict[str, Any]) -> None:
    """A folder that holds a run with other settings is not resumed.

    Raises:
        RunError: E5010.
    """
    mark = folder.root / "fingerprint.json"
    if mark.exists() and read_json(mark) != fingerprint:
        raise RunError("E5010", "the folder holds a run with other settings", where=str(folder.root),
                       do="choose another --output-dir, or give the settings of that run to resume it")
    write_json(mark, fingerprint)


def split_source(source: TextSource, settings: PretrainSettings) -> tuple[list[str], list[str]]:
    """(training, held out) documents of a source, in an order given by the seed.

    A source whose documents are lines of running text (novels) keeps its order within pieces of some lines.
    """
    from treetune.models.corpus import shuffled, split_documents

    texts = list(documents(source, Path(settings.data_root)))
    if source.document == "file":
        length = CHARACTERS_TO_ASK_ABOUT if source.cloze else CHARACTERS_TO_READ
        texts = [piece for text in texts for piece in pieces_of_lines(text.split("\n"), length)]
    mixed = shuffled(texts, settings.seed, source.path)
    return split_documents(mixed, lambda text: max(1, len(text) // 4), settings.held_out_tokens)


def pieces_of_lines(lines: Sequence[str], num_characters: int) -> list[str]:
    """Running text cut between lines into pieces of about ``num_characters``."""
    pieces: list[str] = []
    part: list[str] = []
    size = 0
    for line in lines:
        part.append(line)
        size += len(line)
        if size >= num_characters:
            pieces.append("\n".join(part))
            part, size = [], 0
    return [*pieces, "\n".join(part)] if part else pieces


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


def in_shares(
    settings: PretrainSettings, texts: dict[str, tuple[list[str], list[str]]],
    read: Callable[[Iterator[str], int, str], tuple[list[Any], int]],
) -> tuple[list[Any], dict[str, dict[str, float]]]:
    """Training rows of all sources in their shares; a source too small for its share is repeated, and that is counted.

    Args:
        read: (texts, tokens wanted at most, name of the stream of chance) -> rows of the first of them, their tokens.
    """
    total = sum(source.share for source in settings.data)
    result: list[Any] = []
    counts: dict[str, dict[str, float]] = {}
    for source in settings.data:
        wanted = int(settings.total_tokens * source.share / total)
        documents = texts[source.path][0]
        size, unique, turn = 0, 0, 0
        while documents and size < wanted:
            told = asked(source, documents, settings.seed, turn)
            rows, more = read(told, wanted - size, f"{source.path} {turn}")
            if not more:
                break
            result += rows
            size += more
            unique, turn = unique or size, turn + 1
        counts[source.path] = {"tokens": size, "passes": round(size / max(1, unique), 2) if turn > 1 else 1}
    return result, counts


def asked(source: TextSource, documents: Sequence[str], seed: int, turn: int) -> Iterator[str]:
    """The documents, with other questions made from them in every pass where the source wants questions."""
    draw = generator(seed, "cloze", source.path, turn)
    return (with_questions(each, source.cloze, draw) if source.cloze else each for each in documents)


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
