"""How many tokens a run will compute, counted by laying its own rows out: without torch, and before it is loaded."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from treetune.core.errors import ModelError
from treetune.core.records import Example, TokenizedExample
from treetune.core.settings import TuneSettings
from treetune.models.family import first_position
from treetune.models.tokens import encode_texts, special_ids, tokenize
from treetune.plan.workload import LEAST_PROOF, Pass, Workload
from treetune.train.order import groups_of, row_chooser, steps_per_epoch, total_steps
from treetune.trees import pack
from treetune.trees.blocks import are_short, sized_blocks
from treetune.trees.passes import packed_passes, passes, source_passes

SAMPLED_ROWS = 4000
SAMPLED_STEPS = 40

OVERLAP = 128
SPAN_LENGTH = 384


@dataclass(frozen=True, slots=True)
class RowLength:
    """A row of an encoder: what it reads."""

    num_tokens: int


Rows = Sequence[Any]
Layout = Callable[[Rows], Iterator[Pass]]


class PlainTokenizer:
    """A ``tokenizer.json`` without transformers: as much of its interface as `treetune.models.tokens` uses."""

    def __init__(self, folder: Path) -> None:
        """Raises: ModelError E3007 where the folder has no ``tokenizer.json``."""
        from tokenizers import Tokenizer

        try:
            self.core = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # tokenizers raises Exception itself
            raise ModelError("E3007", "the folder has no tokenizer that can be read without transformers",
                             where=str(folder), found=str(error)[:200], allowed="tokenizer.json",
                             do="plan without --data, or take a model with a fast tokenizer") from error
        self.core.no_truncation()
        self.core.no_padding()
        named = self._names(folder / "tokenizer_config.json")
        self.bos_token_id, self.eos_token_id = (self._id(named.get(name)) for name in ("bos_token", "eos_token"))
        self.bare = "marian" in str(named.get("tokenizer_class", "")).lower()

    @staticmethod
    def _names(path: Path) -> dict[str, Any]:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}

    def _id(self, name: Any) -> int | None:
        text = name.get("content") if isinstance(name, dict) else name
        found = self.core.token_to_id(text) if text else None
        return None if found is None else int(found)

    def __call__(
        self, texts: str | list[str], *, add_special_tokens: bool = True, split_special_tokens: bool = False,
        return_special_tokens_mask: bool = False,
    ) -> dict[str, Any]:
        """``input_ids`` of one text or of several."""
        self.core.encode_special_tokens = split_special_tokens
        if isinstance(texts, str):
            one = self.core.encode(texts, add_special_tokens=add_special_tokens)
            return {"input_ids": one.ids, "special_tokens_mask": one.special_tokens_mask}
        many = self.core.encode_batch(list(texts), add_special_tokens=add_special_tokens)
        return {"input_ids": [each.ids for each in many]}


def rows_of(examples: Sequence[Example], tokenizer: Any, head: str, max_length: int) -> Rows:
    """What a head of that name trains on, as lengths: see the ``encode`` of each head in `treetune.models`."""
    if not examples:
        return []
    if head in ("causal",):
        return tokenize(examples, tokenizer, max_length)
    if head == "seq2seq":
        return _pairs(examples, tokenizer, max_length)
    if head == "spans":
        return _windows(examples, tokenizer, max_length)
    texts = encode_texts(tokenizer, [example.source for example in examples])
    extra = sum(map(len, special_ids(tokenizer)))
    return [RowLength(min(max_length, len(texts[example.source]) + extra)) for example in examples]


def _pairs(examples: Sequence[Example], tokenizer: Any, max_length: int) -> list[TokenizedExample]:
    bare = getattr(tokenizer, "bare", False)
    sources = [example.source if bare else example.prompt_text for example in examples]
    ids = encode_texts(tokenizer, [*sources, *(example.completion.strip() for example in examples)])
    before, after = special_ids(tokenizer)
    result = []
    for number, (example, source) in enumerate(zip(examples, sources, strict=True)):
        read = [*before, *ids[source], *after][-max_length:]
        written = [*ids[example.completion.strip()], *after]
        result.append(TokenizedExample(number, 0, np.array(read, dtype=np.int64), np.array(written, dtype=np.int64),
                                       0))
    return result


def _windows(examples: Sequence[Example], tokenizer: Any, max_length: int) -> list[RowLength]:
    """Every window of every context beside its question, overlapping as `treetune.models.spans` has them."""
    ids = encode_texts(tokenizer, [text for example in examples for text in (example.question, example.source)])
    extra = tokenizer.core.num_special_tokens_to_add(is_pair=True) if isinstance(tokenizer, PlainTokenizer) else (
        tokenizer.num_special_tokens_to_add(pair=True))
    asked = [len(ids[example.question]) + extra for example in examples]
    overlap = min(OVERLAP, (max_length - max(asked)) // 2)
    rows = []
    for example, question in zip(examples, asked, strict=True):
        room, left = max_length - question, len(ids[example.source])
        while True:
            rows.append(RowLength(question + min(room, left)))
            if left <= room or room <= overlap:
                break
            left -= room - overlap
    return rows


def layout_of(head: str, settings: TuneSettings, layout: str | None = None) -> Layout:
    """The passes that rows of a step are laid out in, as the head's ``batches_of`` makes them; counted, not made."""
    per_pass, limit = settings.per_device_train_batch_size, settings.max_tokens_per_pass
    chosen = layout or settings.layout

    def causal(rows: Rows) -> Iterator[Pass]:
        for start in range(0, len(rows), per_pass):
            part = rows[start : start + per_pass]
            if chosen == "padded":
                yield _padded(part)
                continue
            for tree in pack(part, limit, share=chosen == "tree"):
                blocks = sized_blocks(tree.depth, tree.branch_end)
                short = are_short(blocks)
                keys = sum(each.allowed.shape[1] for each in blocks if len(each.ranges) > 1)
                yield Pass(len(tree.input_ids), len(np.unique(tree.label_example)), int(tree.depth.max()) + 1,
                           len(np.unique(tree.label_index)), keys=0 if short else keys,
                           pairs=sum(each.allowed.size for each in blocks) if short else 0)

    def encoding(rows: Rows) -> Iterator[Pass]:
        lengths = [row.num_tokens for row in rows]
        for run in (passes if chosen == "padded" else packed_passes)(lengths, per_pass, limit):
            longest = max(lengths[place] for place in run)
            tokens = len(run) * longest if chosen == "padded" else sum(lengths[place] for place in run)
            yield Pass(tokens, len(run), longest, 0)

    def translating(rows: Rows) -> Iterator[Pass]:
        for run in source_passes(rows, per_pass, limit):
            yield _pair([rows[place] for place in run])

    return {"causal": causal, "seq2seq": translating}.get(head, encoding)


def _padded(rows: Rows) -> Pass:
    longest = max(row.num_tokens - 1 for row in rows)
    labels = sum(len(row.completion_ids) for row in rows)
    return Pass(len(rows) * longest, len(rows), longest, labels)


def _pair(rows: Rows) -> Pass:
    sources = {row.prompt_ids.tobytes() for row in rows}
    written = max(len(row.completion_ids) for row in rows)
    labels = sum(len(row.completion_ids) for row in rows)
    return Pass(len(rows) * written, len(rows), written, labels, len(sources),
                max(len(row.prompt_ids) for row in rows))


def count_workload(
    training: Rows, validation: Rows, settings: TuneSettings, head: str, *, num_rows: int = 0, num_validation: int = 0,
    sources: Sequence[str] | None = None, layout: str | None = None,
) -> Workload:
    """The workload of a run over these rows.

    Args:
        training, validation: as `rows_of` or the head's own ``encode`` gives them.
        num_rows, num_validation: of the whole files, where the rows are a sample of them; 0: the rows are all.
        sources: of the training rows, where rows with one source may follow one another.
    """
    whole, held = num_rows or len(training), num_validation or len(validation)
    rows_per_step = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    steps = total_steps(whole, rows_per_step, settings.num_train_epochs, settings.max_steps)
    groups = groups_of(sources) if sources is not None and settings.row_order != "shuffled" and (
        len(sources) == len(training)) else None
    lay_out = layout_of(head, settings, layout)
    last = min(steps, steps_per_epoch(len(training), rows_per_step)) - 1
    chosen = np.unique(np.linspace(0, last, SAMPLED_STEPS).astype(int)).tolist()
    passes: list[Pass] = []
    shown = row_tokens = 0
    rows_of = row_chooser(len(training), rows_per_step, settings.seed, groups)
    for step in chosen:
        rows = [training[place] for place in rows_of(step)]
        shown += len(rows)
        row_tokens += sum(_row_tokens(row) for row in rows)
        passes += lay_out(rows)
    full, rest = divmod(steps, steps_per_epoch(whole, rows_per_step))
    rows_shown = full * whole + rest * min(rows_per_step, whole)
    factor = rows_shown / shown
    tokens = sum(_tokens(each) for each in passes)
    checked = list(lay_out(validation)) if len(validation) <= SAMPLED_ROWS else []
    once = sum(map(_tokens, checked)) * (held / max(1, len(validation)))
    per_epoch = steps_per_epoch(whole, rows_per_step)
    every = settings.eval_steps or per_epoch
    evaluations = math.ceil(steps / every) if held else 0
    largest = max(passes, key=_weight)
    return Workload(
        rows=whole, shown=rows_shown, steps=steps, passes=round(len(passes) * factor),
        row_tokens=round(row_tokens * factor), tokens=round(tokens * factor),
        labels=round(sum(each.labels for each in passes) * factor),
        context=_context(passes, head), largest=largest, evaluation_rows=held, evaluation_tokens=round(once),
        evaluation_passes=round(len(checked) * held / max(1, len(validation))), evaluations=evaluations,
        saves=max(evaluations, math.ceil(steps / (settings.save_steps or every))),
        proof=_proof(training, settings.max_tokens_per_pass) if head == "causal" else None, sampled=len(training),
    )


def _row_tokens(row: Any) -> int:
    """Tokens a row has when it stands alone; the last one of an answer is never read by a decoder."""
    return int(row.num_tokens)


def _tokens(one: Pass) -> int:
    return one.tokens + one.source_tokens


def _weight(one: Pass) -> int:
    return _tokens(one) + one.keys // 4 + one.pairs // 1000


def _context(passes: Sequence[Pass], head: str) -> float:
    """Tokens that a token sees, in the mean: half of a row's for a decoder, all of it for an encoder."""
    total = sum(each.tokens for each in passes)
    mean = sum(each.tokens * (each.source_longest or each.longest) for each in passes) / total if total else 0.0
    return mean / 2 if head == "causal" else mean


def _proof(rows: Rows, limit: int) -> Pass:
    """The rows on which a decoder's layout is proved exact: its longest and as many others as fill a pack.

    See `treetune.models.exactness.rows_to_prove`.
    """
    from treetune.trees.build import sorted_order

    lengths = [row.num_tokens - 1 for row in rows]
    order = sorted_order([row.prompt_ids for row in rows])
    chosen = dict.fromkeys(sorted(range(len(rows)), key=lambda place: lengths[place], reverse=True)[:8])
    size, budget = sum(lengths[place] for place in chosen), max(limit, LEAST_PROOF)
    for place in order:
        if size >= budget:
            break
        if place not in chosen:
            chosen[place] = None
            size += lengths[place]
    longest = max(lengths[place] for place in chosen)
    return Pass(size, len(chosen), longest, sum(len(rows[place].completion_ids) for place in chosen))


def window_of(config: Mapping[str, Any], positions: int) -> int:
    """Tokens a row may have; see `treetune.models.load.window_of`."""
    return positions - first_position(str(config.get("model_type", "")), config.get("pad_token_id"))
