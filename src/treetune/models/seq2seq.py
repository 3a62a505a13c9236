"""Encoder-decoders (T5, BART, Marian): the source is read in both directions, the answer written word by word.

All rows of a step with the same source share one pass of the encoder; logits are taken at labels only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers.modeling_outputs import BaseModelOutput

from treetune.core.errors import DataError
from treetune.core.records import Example, IntArray, TokenizedExample
from treetune.models.batches import right_padded
from treetune.models.decoder import LossSum
from treetune.models.engine import core_model
from treetune.models.label_loss import at_least_float32
from treetune.models.tokens import encode_texts, fit_prompt, special_ids
from treetune.trees.passes import source_passes

AUTO_CLASS = "AutoModelForSeq2SeqLM"
PEFT_TASK = "SEQ_2_SEQ_LM"
BRANCHES = False
PACKS = False
MAX_LENGTH = 0
NO_LABEL = -100


@dataclass(frozen=True, slots=True)
class Seq2SeqBatch:
    """Tensors of one forward pass. U sources, S source tokens, R rows, T answer tokens, K labels.

    Attributes:
        source_ids: (U, S). source_mask: (U, S) with 0 at padding. source_of: (R,) the source of each row.
        labels: (R, T), -100 at padding. label_index: (K,) into the R*T tokens. label_example: (K,) which example of
        the step a label belongs to. num_tokens: tokens computed. num_row_tokens: tokens of the separate rows.
    """

    source_ids: torch.Tensor
    source_mask: torch.Tensor
    source_of: torch.Tensor
    labels: torch.Tensor
    label_index: torch.Tensor
    label_example: torch.Tensor
    num_tokens: int
    num_row_tokens: int

    def to(self, device: torch.device) -> Seq2SeqBatch:
        """The same batch on ``device``."""
        names = ("source_ids", "source_mask", "source_of", "labels", "label_index", "label_example")
        moved: dict[str, Any] = {name: getattr(self, name).to(device) for name in names}
        return replace(self, **moved)


def encode(examples: Sequence[Example], tokenizer: Any, max_length: int) -> list[TokenizedExample]:
    """Source and answer ids of each example, with the special tokens the tokenizer gives both.

    Raises:
        DataError: E1301 a source that does not fit even when cut, E1303 an answer longer than the model can write.
    """
    sources = encode_sources(examples, tokenizer, max_length)
    answers = encode_answers([example.completion for example in examples], tokenizer)
    return [_row(example, 0, source, answers[example.completion], num_cut, max_length)
            for example, (source, num_cut) in zip(examples, sources, strict=True)]


def encode_candidates(examples: Sequence[Example], tokenizer: Any, max_length: int) -> list[TokenizedExample]:
    """One row for every candidate answer of every example, all with the same source ids."""
    sources = encode_sources(examples, tokenizer, max_length)
    answers = encode_answers([text for example in examples for text in example.candidates.values()], tokenizer)
    return [
        _row(example, choice, source, answers[text], num_cut, max_length)
        for example, (source, num_cut) in zip(examples, sources, strict=True)
        for choice, text in enumerate(example.candidates.values())
    ]


def _row(
    example: Example, choice: int, source: IntArray, answer: IntArray, num_cut: int, max_length: int
) -> TokenizedExample:
    if len(answer) > max_length:
        raise DataError("E1303", "the answer is longer than the model can write",
                        where=f"{example.split} row {example.row_id}", found=f"{len(answer)} tokens",
                        allowed=f"{max_length} tokens", do="shorten the answer or choose a model with a longer window")
    return TokenizedExample(example.row, choice, source, answer, num_cut)


def encode_sources(examples: Sequence[Example], tokenizer: Any, max_length: int) -> list[tuple[IntArray, int]]:
    """(ids, tokens cut off) of what the encoder reads: the prompt, or the bare source for Marian.

    A Marian model translates one pair of languages and never saw an instruction.
    """
    bare = "marian" in type(tokenizer).__name__.lower()
    texts = [example.source if bare else example.prompt_text for example in examples]
    distinct = list(dict.fromkeys(texts))
    if not distinct:
        return []
    whole = dict(zip(distinct, tokenizer(distinct, split_special_tokens=True)["input_ids"], strict=True))
    long = [place for place, text in enumerate(texts) if len(whole[text]) > max_length]
    before, after = special_ids(tokenizer)
    parts = encode_texts(tokenizer, [part.text for place in long for part in examples[place].pieces])
    result = [(np.array(whole[text], dtype=np.int64), 0) for text in texts]
    for place in long:
        if bare:
            kept = [*whole[texts[place]][: max_length - len(after)], *after]
            result[place] = (np.array(kept, dtype=np.int64), len(whole[texts[place]]) - len(kept))
            continue
        ids, num_cut = fit_prompt(examples[place], parts, before, max_length - len(after))
        result[place] = (np.concatenate([ids, np.array(after, dtype=np.int64)]), num_cut)
    return result


def encode_answers(texts: Iterable[str], tokenizer: Any) -> dict[str, IntArray]:
    """Ids of each distinct answer as the decoder is to write it, end-of-text last."""
    distinct = list(dict.fromkeys(texts))
    if not distinct:
        return {}
    ids = tokenizer(text_target=[text.strip() for text in distinct], split_special_tokens=True)["input_ids"]
    end = int(tokenizer.eos_token_id)
    closed = [each if each and each[-1] == end else [*each, end] for each in ids]
    return {text: np.array(each, dtype=np.int64) for text, each in zip(distinct, closed, strict=True)}


def batches_of(
    rows: Sequence[TokenizedExample], layout: str, rows_per_pass: int, max_tokens: int
) -> Iterator[Seq2SeqBatch]:
    """The forward passes of one step: rows of one source side by side, sources of like length together.

    Args:
        layout: ``padded``. max_tokens: padded source and answer tokens of a pass; a single row may have more.
    """
    for run in source_passes(rows, rows_per_pass, max_tokens):
        yield padded([rows[each] for each in run], run)


def padded(rows: Sequence[TokenizedExample], places: Sequence[int]) -> Seq2SeqBatch:
    """Each distinct source once, each row's answer; both padded on the right."""
    numbers: dict[bytes, int] = {}
    owner = [numbers.setdefault(row.prompt_ids.tobytes(), len(numbers)) for row in rows]
    sources = [rows[owner.index(number)].prompt_ids for number in range(len(numbers))]
    ids, mask = right_padded(sources)
    labels = np.full((len(rows), max(len(row.completion_ids) for row in rows)), NO_LABEL, dtype=np.int64)
    for number, row in enumerate(rows):
        labels[number, : len(row.completion_ids)] = row.completion_ids
    index = np.flatnonzero(labels.reshape(-1) != NO_LABEL)
    examples = np.array(places, dtype=np.int64)[index // labels.shape[1]]
    return Seq2SeqBatch(
        source_ids=torch.from_numpy(ids), source_mask=torch.from_numpy(mask), source_of=torch.tensor(owner),
        labels=torch.from_numpy(labels), label_index=torch.from_numpy(index),
        label_example=torch.from_numpy(examples), num_tokens=ids.size + labels.size,
        num_row_tokens=sum(len(row.prompt_ids) + len(row.completion_ids) for row in rows),
    )


def loss_sum(model: torch.nn.Module, batch: Seq2SeqBatch) -> LossSum:
    """Negative log-likelihood of the answers' tokens in nats, each given the source and the tokens before it."""
    logs = label_log_probs(model, batch)
    return LossSum(-logs.sum(), float(len(logs)))


def label_log_probs(model: torch.nn.Module, batch: Seq2SeqBatch) -> torch.Tensor:
    """(K,) natural-log probability of every label, in float32 (float64 for float64 models)."""
    core = core_model(model)
    states = core.get_encoder()(input_ids=batch.source_ids, attention_mask=batch.source_mask)[0]
    with labels_only(core.get_output_embeddings(), batch.label_index):
        logits: torch.Tensor = core(
            attention_mask=batch.source_mask[batch.source_of],
            encoder_outputs=BaseModelOutput(last_hidden_state=states[batch.source_of]),
            decoder_input_ids=shifted(core, batch.labels), use_cache=False,
        ).logits[0]
    wanted = batch.labels.reshape(-1)[batch.label_index]
    logs = at_least_float32(logits).log_softmax(-1)
    return logs.gather(-1, wanted[:, None])[:, 0]


@contextmanager
def labels_only(head: torch.nn.Module, index: torch.Tensor) -> Iterator[None]:
    """While open, ``head`` reads only the states at ``index`` of the (R*T) tokens and gives (1, K, V).

    What the model does to states before its head (T5 scales them) and to logits behind it (BART and Marian add a
    bias) stays as it is.
    """
    def select(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        return (inputs[0].flatten(0, 1).index_select(0, index)[None],)

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def shifted(core: Any, labels: torch.Tensor) -> torch.Tensor:
    """What the decoder reads to write ``labels``: its start token, then all but the last, as the model does it."""
    if hasattr(core, "prepare_decoder_input_ids_from_labels"):
        own: torch.Tensor = core.prepare_decoder_input_ids_from_labels(labels=labels)
        return own
    result = torch.full_like(labels, int(core.config.decoder_start_token_id))
    result[:, 1:] = labels[:, :-1]
    return result.masked_fill(result == NO_LABEL, int(core.config.pad_token_id or 0))


def settle(examples: Sequence[Example]) -> dict[str, Any]:
    """Nothing: the prompts say it all."""
    return {}
