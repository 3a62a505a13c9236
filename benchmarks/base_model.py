"""What a base model has learnt, and what it has learnt by heart.

    python benchmarks/base_model.py [FOLDER] [--before FOLDER] [--results FILE.json]

FOLDER is a run folder of `treetune pretrain` or a model folder (default: the shipped base). Two tables, printed and
written beside each other as .json and .md:

1. Held-out bits per byte by source: the base, the base before, a byte n-gram model (byte_ngram.py) counted on all the
   text the base has read, and xz. All four are scored on the same bytes: those that the labels of the held-out blocks
   spell, the end of a document being one byte. (`pretraining.json` counts it as the 13 bytes of <|endoftext|>.)
2. The longest spans of its samples that stand word for word in the text it has read (copied_spans.py), beside the
   same figure for held-out text, which nobody copied.

The split and the training text are rebuilt from recipes/base.yaml by the functions of workflow/pretrain.py; whether
the token counts are those of the run is checked and said. Skips, saying so, where ../shared/data is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import math
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.convert_slow_tokenizer import bytes_to_unicode

from byte_ngram import ByteNgram
from copied_spans import Span, Symbols, characters, longest_spans
from treetune.core.records import TokenizedExample
from treetune.core.seeds import generator, seed_of
from treetune.core.settings import PretrainSettings, read_settings
from treetune.models.batches import batches_of
from treetune.models.embedded import folder as shipped
from treetune.models.load import LoadedModel, load_model
from treetune.train.loop import mean_loss
from treetune.workflow.pretrain import held_out_blocks, training_blocks
from treetune.workflow.pretraining_text import split_source

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
END = b"\0"  # the end of a document as one byte; no source holds it
ORDER = 5
XZ_PREFIX_BYTES = 400_000
ROWS_PER_PASS = 8
SAMPLES = {"temperature 1, no prompt": 60, "temperature 1, prompted": 140, "greedy, prompted": 60}
PROMPT_TOKENS = 128  # of the first half of a document, the last ones
NEW_TOKENS = 192
LEAST_CHARACTERS = 40  # of a document whose first half is a prompt
LONG_CHARACTERS = 50
WATTS = (20, 60)  # assumed, for two cores of a server
WORD = re.compile(r"[\u3400-\u9fff]|[^\s\u3400-\u9fff\0]+")  # a Chinese character counts as a word


@dataclass(frozen=True, slots=True)
class Corpus:
    """By source: held-out blocks, training blocks, and what training_blocks counted."""

    held_out: dict[str, list[TokenizedExample]]
    training: dict[str, list[TokenizedExample]]
    counts: dict[str, dict[str, float]]


def rebuilt(settings: PretrainSettings, tokenizer: Any) -> Corpus:
    """The split and the blocks of a pretraining run, by its own functions."""
    texts = {source.path: split_source(source, settings) for source in settings.data}
    held_out = held_out_blocks(settings, texts, tokenizer)
    training, counts = {}, {}
    for path in texts:  # sources without documents give no blocks, so this is one source's share of all
        alone = {each: pair if each == path else ([], []) for each, pair in texts.items()}
        training[path], found = training_blocks(settings, alone, tokenizer)
        counts[path] = found[path]
    return Corpus(held_out, training, counts)


class Spelling:
    """Token ids to bytes and back; end-of-text is `END`."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.end = int(tokenizer.eos_token_id)
        alphabet = {letter: byte for byte, letter in bytes_to_unicode().items()}
        vocabulary = tokenizer.get_vocab()
        self.bytes_of = [b""] * len(vocabulary)
        for token, number in vocabulary.items():
            self.bytes_of[number] = END if number == self.end else bytes(alphabet[letter] for letter in token)
        self.byte_ids = {alphabet[letter]: vocabulary[letter] for letter in alphabet}

    def text(self, ids: Iterable[int]) -> bytes:
        """The bytes that the tokens spell."""
        return b"".join(map(self.bytes_of.__getitem__, ids))

    def blocks(self, blocks: Iterable[TokenizedExample]) -> list[bytes]:
        """The bytes of whole blocks."""
        return [self.text([*block.prompt_ids.tolist(), *block.completion_ids.tolist()]) for block in blocks]

    def ids(self, text: bytes) -> list[int]:
        """Tokens of bytes that may begin or end inside a character; such pieces are spelt byte by byte."""
        found: list[int] = []
        for number, part in enumerate(text.split(END)):
            found += [self.end] if number else []
            begin, stop = whole_characters(part)
            found += [self.byte_ids[byte] for byte in part[:begin]]
            if begin < stop:
                found += self.tokenizer(part[begin:stop].decode(), add_special_tokens=False,
                                        split_special_tokens=True)["input_ids"]
            found += [self.byte_ids[byte] for byte in part[stop:]]
        return found


def whole_characters(part: bytes) -> tuple[int, int]:
    """(begin, stop) of the whole UTF-8 characters of a piece."""
    begin = next((place for place, byte in enumerate(part) if byte & 0xC0 != 0x80), len(part))
    try:
        part[begin:].decode()
    except UnicodeDecodeError as error:
        return begin, begin + error.start
    return begin, len(part)


def respelt(block: TokenizedExample, before: Spelling, after: Spelling, window: int) -> list[TokenizedExample]:
    """The block in the tokens of another model: the same labelled bytes behind the same ones that are not scored.

    Where they need more than ``window`` tokens the rest is a further example behind the last token of the first.
    """
    ids = after.ids(before.text(block.prompt_ids))
    num_prompt = len(ids)
    ids += after.ids(before.text(block.completion_ids))
    found = []
    while len(ids) > num_prompt:
        part = np.array(ids[: window + 1], dtype=np.int64)
        found.append(TokenizedExample(row=0, choice=0, prompt_ids=part[:num_prompt], completion_ids=part[num_prompt:],
                                      num_cut=0))
        ids, num_prompt = ids[window:], 1
    return found


def bits(loaded: LoadedModel, examples: Sequence[TokenizedExample]) -> float:
    """Bits that the model needs for all labels."""
    make = partial(batches_of, layout="padded", rows_per_pass=ROWS_PER_PASS, max_tokens=loaded.window)
    labels = sum(len(each.completion_ids) for each in examples)
    return mean_loss(loaded.model, examples, make) * labels / math.log(2)


def ngram_bits(model: ByteNgram, spelling: Spelling, blocks: Sequence[TokenizedExample]) -> float:
    """Bits of the labelled bytes, with no context from outside the block."""
    texts, places, scored = [], [], []
    for block in blocks:
        prompt, label = spelling.text(block.prompt_ids), spelling.text(block.completion_ids)
        texts.append(prompt + label)
        places.append(np.arange(len(prompt) + len(label)))
        scored.append(places[-1] >= len(prompt))
    chances = model.probabilities(b"".join(texts), np.concatenate(places))
    return float(-np.log2(chances[np.concatenate(scored)]).sum())


def xz_bits(text: bytes, prefix: bytes = b"") -> int:
    """Bits that ``text`` adds to a compressed file of ``prefix``; the whole file without one."""
    size = partial(lzma.compress, preset=9 | lzma.PRESET_EXTREME)
    return 8 * (len(size(prefix + text)) - (len(size(prefix)) if prefix else 0))


def held_out_table(
    corpus: Corpus, read: dict[str, bytes], base: LoadedModel, before: LoadedModel | None, spelling: Spelling,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """A row a source: bytes scored and bits per byte of each model."""
    ngram = ByteNgram(END.join(read.values()), ORDER)
    say(f"n-gram counted on {sum(map(len, read.values())):,} bytes")
    older = Spelling(before.tokenizer) if before else None
    rows = []
    for path, blocks in corpus.held_out.items():
        labelled = b"".join(spelling.text(block.completion_ids) for block in blocks)
        spent = {"base": bits(base, blocks)}
        if before and older:
            spent["before"] = bits(before, [each for block in blocks
                                            for each in respelt(block, spelling, older, before.window)])
        spent["ngram"] = ngram_bits(ngram, spelling, blocks)
        spent["xz_alone"] = xz_bits(labelled)
        spent["xz_after_text"] = xz_bits(labelled, read[path][:XZ_PREFIX_BYTES])
        as_recorded = sum(len(base.tokenizer.decode(block.completion_ids).encode()) for block in blocks)
        rows.append({"source": path, "bytes": len(labelled), "bits": spent,
                     "bits_per_byte": {name: value / len(labelled) for name, value in spent.items()},
                     "base_as_pretraining_counts": spent["base"] / as_recorded})
        say(f"{path}: " + "  ".join(f"{name} {value:.3f}" for name, value in rows[-1]["bits_per_byte"].items()))
    return rows


def in_all(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Bits per byte over the bytes of all sources together."""
    size = sum(row["bytes"] for row in rows)
    return {name: sum(row["bits"][name] for row in rows) / size for name in rows[0]["bits"]}


@dataclass(frozen=True, slots=True)
class Passage:
    """A document or piece of one as a block holds it."""

    source: str
    text: str


def passages(blocks: dict[str, list[TokenizedExample]], spelling: Spelling, draw: np.random.Generator, count: int
             ) -> list[Passage]:
    """``count`` passages of some length: any block is as likely as another, then any passage of it."""
    every = [(path, block) for path, each in blocks.items() for block in each]
    found: list[Passage] = []
    while len(found) < count:
        path, block = every[int(draw.integers(len(every)))]
        parts = spelling.text(block.completion_ids).split(END)
        text = parts[int(draw.integers(len(parts)))].decode(errors="ignore")
        if len(text) >= LEAST_CHARACTERS:
            found.append(Passage(path, text))
    return found


@torch.no_grad()
def continuations(loaded: LoadedModel, prompts: Sequence[list[int]], greedy: bool) -> list[list[int]]:
    """New tokens behind each prompt, up to end-of-text or `NEW_TOKENS`. Draws from torch's generator."""
    end = int(loaded.tokenizer.eos_token_id)
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), end)
    mask = torch.zeros((len(prompts), longest), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    choice: dict[str, Any] = {"do_sample": False} if greedy else {
        "do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    output = loaded.model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=NEW_TOKENS, pad_token_id=end,
                                   eos_token_id=end, use_cache=True, **choice)
    new = [row[longest:].tolist() for row in output]
    return [each[: each.index(end)] if end in each else each for each in new]


def samples(loaded: LoadedModel, spelling: Spelling, corpus: Corpus, seed: int) -> dict[str, list[str]]:
    """Texts by kind: what the model wrote, and held-out text of the same sources and lengths."""
    draw = generator(seed, "samples")
    torch.manual_seed(seed_of(seed, "samples"))
    read = passages(corpus.training, spelling, draw, SAMPLES["temperature 1, prompted"])
    prompts = [[spelling.end, *spelling.ids(each.text[: len(each.text) // 2].encode())[-PROMPT_TOKENS:]]
               for each in read]
    starts = [[spelling.end]] * SAMPLES["temperature 1, no prompt"]
    wanted = {"temperature 1, no prompt": starts, "temperature 1, prompted": prompts,
              "greedy, prompted": prompts[: SAMPLES["greedy, prompted"]]}
    found = {name: [spelling.text(each).decode(errors="ignore")
                    for each in continuations(loaded, each_prompt, name.startswith("greedy"))]
             for name, each_prompt in wanted.items()}
    unread = passages(corpus.held_out, spelling, draw, 20 * len(read))
    for name, sources, half in (
        ("temperature 1, no prompt", [each.source for each in passages(corpus.training, spelling, draw, len(starts))],
         False),
        ("temperature 1, prompted", [each.source for each in read], True),
    ):
        found[f"held-out text as long as: {name}"] = [
            as_long(unread, source, len(text), half, draw) for source, text in zip(sources, found[name], strict=True)
        ]
    return found


def as_long(unread: Sequence[Passage], source: str, length: int, half: bool, draw: np.random.Generator) -> str:
    """``length`` characters of held-out text of ``source``, fewer where no passage has them; the whole or 2nd half."""
    texts = [each.text[len(each.text) // 2 if half else 0 :] for each in unread if each.source == source]
    texts = [text for text in texts if len(text) >= length] or sorted(texts, key=len)[-1:]
    return texts[int(draw.integers(len(texts)))][:length] if texts else ""


def words(texts: Sequence[str], numbers: dict[str, int]) -> list[Symbols]:
    """Words as numbers; new ones are added to ``numbers``."""
    return [np.array([numbers.setdefault(word, len(numbers)) for word in WORD.findall(text)], np.uint32)
            for text in texts]


def copied_table(found: dict[str, list[str]], read: str, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """A row a kind of text: how long its longest spans are that stand in ``read``."""
    texts = [text for each in found.values() for text in each]
    spans = longest_spans([characters(text) for text in texts], characters(read))
    say(f"spans in characters found, {len(read):,} characters searched")
    numbers: dict[str, int] = {}
    in_words = longest_spans(words(texts, numbers), words([read], numbers)[0], (4, 1))
    say("spans in words found")
    rows, start = [], 0
    for name, each in found.items():
        part = slice(start, start + len(each))
        rows.append(summary(name, each, spans[part], in_words[part]))
        start += len(each)
    return rows


def summary(name: str, texts: Sequence[str], spans: Sequence[Span], in_words: Sequence[Span]) -> dict[str, Any]:
    """The distribution of the longest span of each text."""
    lengths = np.array([span.length for span in spans])
    whole = sum(span.length == len(text) for span, text in zip(spans, texts, strict=True))
    top = sorted(zip(spans, texts, strict=True), key=lambda pair: -pair[0].length)[:3]
    return {
        "kind": name, "texts": len(texts), "median_text_characters": float(np.median([len(text) for text in texts])),
        "characters": {"median": float(np.median(lengths)), "p90": float(np.quantile(lengths, 0.9)),
                       "max": int(lengths.max())},
        "words": {"median": float(np.median([span.length for span in in_words])),
                  "max": max(span.length for span in in_words)},
        f"share_over_{LONG_CHARACTERS}_characters": float((lengths > LONG_CHARACTERS).mean()),
        "share_found_whole": whole / len(texts),
        "longest": [text[span.start : span.start + span.length] for span, text in top],
    }


def compute(record: dict[str, Any] | None, config: Any) -> dict[str, Any] | None:
    """FLOPs and energy of all stages; attention is counted as if every layer were dense and every row full."""
    if record is None:
        return None
    stages = [*record.get("stages_before", []), record]
    size, tokens = record["parameters"], sum(stage["tokens_seen"] for stage in stages)
    hours = sum(stage["seconds"] for stage in stages) / 3600
    dense = 6 * size * tokens
    return {"parameters": size, "tokens": tokens, "flops_6nd": dense,
            "flops_with_attention": dense + 12 * config.n_layer * config.n_embd * config.n_positions * tokens,
            "hours": hours, "assumed_watts": WATTS, "kwh": [watts * hours / 1000 for watts in WATTS]}


def table(result: dict[str, Any]) -> str:
    """Both tables as Markdown."""
    names = {"base": "this base", "before": "base before", "ngram": f"order-{ORDER} byte n-gram",
             "xz_alone": "xz alone", "xz_after_text": "xz after text of the source"}
    used = [name for name in names if name in result["all"]]
    lines = ["| held-out source | bytes | " + " | ".join(names[name] for name in used) + " |",
             "|---|---:|" + "---:|" * len(used)]
    together = {"source": "all bytes together", "bytes": sum(row["bytes"] for row in result["sources"]),
                "bits_per_byte": result["all"]}
    for row in [*result["sources"], together]:
        cells = " | ".join(f"{row['bits_per_byte'][name]:.3f}" for name in used)
        lines.append(f"| {row['source']} | {row['bytes']:,} | {cells} |")
    lines += ["", "| text | count | longest span that stands in the text read: median | 90 % | max | in words: median |"
              f" max | over {LONG_CHARACTERS} characters | found whole |", "|---|" + "---:|" * 8]
    for row in result["memorisation"]["rows"]:
        size, in_words = row["characters"], row["words"]
        lines.append(f"| {row['kind']} | {row['texts']} | {size['median']:.0f} | {size['p90']:.0f} | {size['max']} | "
                     f"{in_words['median']:.0f} | {in_words['max']} | "
                     f"{row[f'share_over_{LONG_CHARACTERS}_characters']:.1%} | {row['share_found_whole']:.1%} |")
    return "\n".join([*lines, "", *(f"- {note}" for note in result["notes"])]) + "\n"


def notes(result: dict[str, Any], has_before: bool, same_split: bool) -> list[str]:
    """What a reader of the tables has to know."""
    found = [
        "Bits per byte of the same bytes in every column; the end of a document is one byte.",
        f"The n-gram model has seen the {result['ngram_bytes']:,} bytes that the base has read (repeats too), no "
        "context from outside a block; xz 'after text' is what the held-out bytes add behind the first "
        f"{XZ_PREFIX_BYTES:,} bytes of training text of the same source, at preset 9e.",
        "Spans: of the continuation alone, not of the prompt; samples end at end-of-text or "
        f"{NEW_TOKENS} tokens. The rows on held-out text show what is found in text that nobody copied.",
        "The text read is that of the run: the token counts are equal." if result["same_text_as_run"] else
        "The text read is rebuilt from the recipe and is NOT that of this base's run (no record, or other counts).",
    ]
    if has_before:
        found.append("The base before is the stage that this one went on from; it read with the same split."
                     if same_split else
                     "The base before had another split: it may have read some of these held-out documents.")
    return found


def measure(folder: Path, before_folder: Path | None, recipe: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Everything, as the results file holds it."""
    place = folder / "model" if (folder / "model").is_dir() else folder
    record_file = folder / "pretraining.json"
    record = json.loads(record_file.read_text(encoding="utf-8")) if record_file.is_file() else None
    base = load_model(str(place))
    before = load_model(str(before_folder)) if before_folder else None
    settings = read_settings(PretrainSettings, recipe, {"data_root": str(DATA)})
    corpus, spelling = rebuilt(settings, base.tokenizer), Spelling(base.tokenizer)
    say("split and training text rebuilt")
    read = {path: END.join(spelling.blocks(blocks)) for path, blocks in corpus.training.items()}
    rows = held_out_table(corpus, read, base, before, spelling, say)
    written = samples(base, spelling, corpus, settings.seed)
    say("samples written")
    result = {
        "weights_sha256": hashlib.sha256((place / "model.safetensors").read_bytes()).hexdigest(),
        "recipe_sha256": hashlib.sha256(recipe.read_bytes()).hexdigest(),
        "sources": rows, "all": in_all(rows), "ngram_order": ORDER,
        "ngram_bytes": sum(map(len, read.values())),
        "same_text_as_run": record is not None and all(
            record["training_tokens_by_source"].get(path, {}).get("tokens") == count["tokens"]
            for path, count in corpus.counts.items()),
        "passes": {path: count["passes"] for path, count in corpus.counts.items()},
        "compute": compute(record, base.model.config),
        "memorisation": {"prompt_tokens": PROMPT_TOKENS, "new_tokens": NEW_TOKENS, "seed": settings.seed,
                         "rows": copied_table(written, END.join(read.values()).decode(errors="replace"), say)},
    }
    return {**result, "notes": notes(result, before is not None, bool((record or {}).get("stages_before")))}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=shipped())
    parser.add_argument("--before", type=Path)
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "base.yaml")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "base_model.json")
    options = parser.parse_args()
    if not DATA.is_dir():
        print(f"skipped: {DATA} is not there")
        return
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    began = time.perf_counter()

    def say(what: str) -> None:
        print(f"{time.perf_counter() - began:6.0f} s  {what}", file=sys.stderr, flush=True)

    result = measure(options.folder, options.before, options.recipe, say)
    result["measured"] = {"date": time.strftime("%Y-%m-%d"), "machine": platform.machine(),
                          "python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__,
                          "threads": torch.get_num_threads(), "seconds": round(time.perf_counter() - began)}
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(result, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    options.results.with_suffix(".md").write_text(table(result), encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
