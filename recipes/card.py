"""Puts a pretrained base into the package: its model files, pretraining.json, and the model card written from records.

    python recipes/card.py RUN_FOLDER --into src/treetune/models/embedded/gpt3 [--results FILE] [--search FILE]

RUN_FOLDER is what `treetune pretrain recipes/base_more.yaml` left: model/, config.yaml, pretraining.json. The results
(default: benchmarks/results/base_model.json) are what `python benchmarks/base_model.py RUN_FOLDER` measured of the same
weights (the digests are compared); the search (default: benchmarks/results/size_search.json) is what
`python benchmarks/size_search.py` found, left out where it looked at a base of another size or text. Every number of
the card comes from these files; only the licences and the words stand here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import textwrap
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
LICENCES = {
    "pretrain/eltec_en.txt.xz": "public domain texts, markup CC BY 4.0 (ELTeC)",
    "pretrain/sgd_dialogues_en.txt.xz": "CC BY-SA 4.0 (Schema-Guided Dialogue)",
    "pretrain/taskmaster4_en.txt.xz": "CC BY 4.0 (Taskmaster-4)",
    "pretrain/gsm8k_train_en.txt.xz": "MIT (GSM8K, training part)",
    "pretrain/wikisplit_en.txt.xz": "CC BY-SA 4.0 (WikiSplit)",
    "pretrain/common_voice_en.txt.xz": "CC0 (Common Voice sentences)",
    "pretrain/eltec_de.txt.xz": "public domain texts, markup CC BY 4.0 (ELTeC)",
    "pretrain/common_voice_de.txt.xz": "CC0 (Common Voice sentences)",
    "pretrain/common_voice_fr.txt.xz": "CC0 (Common Voice sentences)",
    "pretrain/common_voice_zh.txt.xz": "CC0 (Common Voice sentences)",
    "sentiment/goemotions3/train.jsonl.gz": "Apache-2.0 (GoEmotions)",
    "qa/qamr/train.jsonl.gz": "MIT (QAMR)",
    "qa/squad_v11_dev/train.jsonl.gz": "CC BY-SA 4.0 (SQuAD 1.1 development set, training part)",
    "qa/cmrc2018/train.jsonl.gz": "CC BY-SA 4.0 (CMRC 2018)",
    "qa/drcd/train.jsonl.gz": "CC BY-SA 3.0 (DRCD)",
    "summarization/scitldr/train.jsonl.gz": "Apache-2.0 (SciTLDR)",
    "summarization/qmsum_spans/train.jsonl.gz": "MIT (QMSum)",
    "translation/tatoeba_en_zh/train.jsonl.gz": "CC BY 2.0 FR (Tatoeba)",
}
OPTIMIZERS = {"muon": "Muon for matrices, AdamW for the rest"}
HEAD = """\
---
license: cc-by-sa-4.0
language: [en, de, zh, fr]
library_name: treetune
pipeline_tag: text-generation
---
# gpt3: the base model that ships with treetune

A small decoder of the GPT-3 architecture (Brown et al. 2020): pre-norm, learned positions, GELU, alternating dense and
locally banded attention. OpenAI never published GPT-3's weights; these are treetune's own, trained by
`treetune pretrain` with `recipes/base.yaml` and then, on the same split and going on from its weights, with
`recipes/base_more.yaml`, on the CPU. `recipes/card.py` wrote this card from the records of these runs and of
`benchmarks/base_model.py`.
"""
DATA = """\
## Data

Only sources whose licence is stated by their repositories. Of task sets, training parts only, read as plain text:

- **with their answers and labels**: GoEmotions, QAMR, CMRC 2018, DRCD, SciTLDR, QMSum, Tatoeba. A score on those
  training rows says nothing; this base has also seen the form of sentiment, question answering, summarization and
  translation rows.
- **SQuAD: its passages, not its own questions and answers.** The questions read with them were made from the passages
  by hiding spans (src/treetune/data/cloze.py); so were those behind pieces of the English novels and behind WikiSplit's
  sentences.
- **no row of the validation or test part of any set**, in the parts that treetune's data folder lays out. Those
  training parts of QAMR, CMRC 2018, DRCD and SQuAD were themselves cut from the official development or trial parts,
  and WikiSplit's sentences are those of its tune, validation and test parts, as the official training files were not to
  be had: do not measure this base on those official parts.
"""
AFTER_DATA = """\
Held-out text is split off each source by document, at most {held_out:,} tokens or 5 %; other texts of one article or
novel can stand on both sides. Bits per byte count the end of a document as one byte.

The weights carry CC BY-SA 4.0 because of the share-alike sources (SGD, WikiSplit, SQuAD, CMRC 2018, DRCD); the program
is Apache-2.0.
"""
LIMITS = """\
## What to expect

Grammar in short stretches of English, some German and Chinese, hardly any knowledge, no dependable answers. It is there
so that every command works offline and tuning has something better than random weights to start from. It reads {window}
tokens at most. Novels of 1840 to 1920, social-media comments and crowd-written questions bring their prejudices and
rude language along; no fairness audit of the untuned base has been made. Do not rest a decision on its answers.
"""


def tokens_of_stages(record: dict[str, Any]) -> list[int]:
    """Tokens read in each stage of pretraining, the last one last."""
    return [stage["tokens_seen"] for stage in [*record.get("stages_before", []), record]]


def facts(record: dict[str, Any], settings: dict[str, Any], config: dict[str, Any], result: dict[str, Any]) -> str:
    """The table of size, compute and settings."""
    spent = result["compute"]
    cores = "one CPU core" if settings["torch_threads"] == 1 else "two shared CPU cores"
    seen = tokens_of_stages(record)
    low, high = spent["assumed_watts"]
    rows = {
        "parameters": f"{record['parameters']:,} (embeddings counted once)",
        "shape": f"{config['n_layer']} layers, width {config['n_embd']}, {config['n_head']} heads, window "
                 f"{config['n_positions']}, band {config['attention_band']}",
        "vocabulary": f"byte-level BPE, {config['vocab_size']:,} entries; any text can be written",
        "training tokens": f"{sum(seen):,} ({' + '.join(f'{each:,}' for each in seen)}, a stage each; the blocks below "
                           "are the last stage's)",
        "compute": f"{spent['flops_6nd']:.2e} FLOPs by 6ND, {spent['flops_with_attention']:.2e} with attention; "
                   f"{spent['hours']:.2f} hours on {cores}",
        "energy": f"not measured; at an assumed {low} to {high} W for two cores of a server {spent['kwh'][0]:.3f} to "
                  f"{spent['kwh'][1]:.3f} kWh",
        "optimizer": f"last stage: {OPTIMIZERS.get(settings['optim'], settings['optim'])}, peak learning rate "
                     f"{settings['learning_rate']:g}, {settings['lr_scheduler_type']} decay, seed {settings['seed']}",
        "weights": "safetensors, bfloat16",
    }
    return "| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows.items())


def sources(record: dict[str, Any], result: dict[str, Any]) -> str:
    """A row a source."""
    measured = {row["source"]: row["bits_per_byte"]["base"] for row in result["sources"]}
    lines = ["| source | tokens | passes | held-out bits per byte | licence | sha256 |", "|---|---:|---:|---:|---|---|"]
    for path, count in record["training_tokens_by_source"].items():
        bits = f"{measured[path]:.3f}" if path in measured else "none held out"
        lines.append(f"| `{path}` | {count['tokens']:,} | {count['passes']:g} | {bits} | {LICENCES[path]} | "
                     f"`{record['sources_sha256'][path][:12]}` |")
    return "\n".join(lines) + "\n"


def against(result: dict[str, Any]) -> str:
    """Bits per byte of all held-out bytes beside other models."""
    names = {"base": "this base", "before": "the base that shipped before",
             "ngram": f"an order-{result['ngram_order']} byte n-gram model (modified Kneser-Ney) of the text read",
             "xz_after_text": "xz -9e behind text of the same source", "xz_alone": "xz -9e alone"}
    size = sum(row["bytes"] for row in result["sources"])
    rows = "".join(f"| {names[name]} | {result['all'][name]:.3f} |\n" for name in names if name in result["all"])
    notes = "".join(f"- {note}\n" for note in result["notes"])
    return (f"## Held-out text beside other models\n\n| all sources, {size:,} bytes | bits per byte |\n|---|---:|\n"
            f"{rows}\nBy source: `benchmarks/results/base_model.md`.\n\n{notes}")


def by_heart(result: dict[str, Any]) -> str:
    """The memorisation check."""
    check = result["memorisation"]
    lines = ["## Memorisation check", "",
             "How long is the longest span of a text that stands word for word in the text read? Prompts: none, or the",
             f"end ({check['prompt_tokens']} tokens at most) of the first half of a document that was read; up to "
             f"{check['new_tokens']} new tokens; the", "prompt itself is not counted.", "",
             "| text | count | median characters | max | median words | max | over 50 characters |",
             "|---|---:|---:|---:|---:|---:|---:|"]
    for row in check["rows"]:
        lines.append(f"| {row['kind']} | {row['texts']} | {row['characters']['median']:.0f} | "
                     f"{row['characters']['max']} | {row['words']['median']:.0f} | {row['words']['max']} | "
                     f"{row['share_over_50_characters']:.1%} |")
    return "\n".join(lines) + "\n"


def millions(value: float) -> str:
    """In millions, three digits."""
    return f"{value / 1e6:.3g}"


def size(search: dict[str, Any] | None, record: dict[str, Any]) -> str:
    """What the size search says of this size; "" without one, or where it was of a base of another size or text."""
    tokens = sum(tokens_of_stages(record))
    if not search or "fit" not in search or (
            search["shipped"]["parameters"], search["shipped"]["tokens"]) != (record["parameters"], tokens):
        return ""
    shipped, fits = search["shipped"], search["fit"]["fits"]
    runs = [run["parameters"] for run in search["runs"].values()]
    best = [each for fit in fits.values() for each in fit["budgets"] if each["flops"] == shipped["flops"]]
    low, high = min(each["size"] for each in best), max(each["size"] for each in best)
    ends = [end for each in best for end in each["size_interval"]]
    errors = [100 * (fit["bases"]["first_stage"]["predicted"] / search["first_stage"]["bits_per_byte"] - 1)
              for key, fit in fits.items() if key != "with_first_stage" and "first_stage" in fit["bases"]]
    missed = (" Those not fitted to this base's first stage miss its loss by "
              + " and ".join(f"{error:+.1f} %" for error in errors) + ".") if errors else ""
    above = " None puts it above this base's own." if high < shipped["parameters"] else ""
    return "## Size\n\n" + textwrap.fill(
        f"Laws of loss over size and text, fitted to {len(runs)} short runs of {millions(min(runs))} to "
        f"{millions(max(runs))} million parameters on these sources, put the best size for this base's compute at "
        f"{millions(low)} to {millions(high)} million parameters, according to which learning rates and runs are taken "
        f"in (90 % intervals: {millions(min(ends))} to {millions(max(ends))}).{above}{missed} This base has "
        f"{best[0]['beyond']:.0f} times the compute of the largest of these: they do not settle its size. Runs, check "
        "and plot: `benchmarks/results/size_search.md` (`python benchmarks/size_search.py`).",
        120, break_long_words=False, break_on_hyphens=False) + "\n"


def card(
    record: dict[str, Any], settings: dict[str, Any], config: dict[str, Any], result: dict[str, Any],
    search: dict[str, Any] | None = None,
) -> str:
    """The whole README.md."""
    of_size = size(search, record)
    return "\n".join([
        HEAD, facts(record, settings, config, result), DATA, sources(record, result),
        AFTER_DATA.format(held_out=settings["held_out_tokens"]), against(result),
        *([of_size] if of_size else []), by_heart(result),
        LIMITS.format(window=config["n_positions"]),
    ])


def refuse(record: dict[str, Any], result: dict[str, Any], weights: Path) -> str | None:
    """Why no card can be written, or None."""
    missing = [path for path in record["training_tokens_by_source"] if path not in LICENCES]
    if missing:
        return f"no licence is known here for: {', '.join(missing)}"
    if result["weights_sha256"] != hashlib.sha256(weights.read_bytes()).hexdigest():
        return "the results are those of other weights: run benchmarks/base_model.py on this folder first"
    if result["compute"] is None:
        return "the results hold no compute: run benchmarks/base_model.py on the run folder, not on its model/"
    return None


def main() -> None:
    """Check, copy, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "base_model.json")
    parser.add_argument("--search", type=Path, default=ROOT / "benchmarks" / "results" / "size_search.json")
    options = parser.parse_args()
    model = options.folder / "model"
    record, result, config = (json.loads(path.read_text(encoding="utf-8")) for path in (
        options.folder / "pretraining.json", options.results, model / "config.json"))
    settings = yaml.safe_load((options.folder / "config.yaml").read_text(encoding="utf-8"))
    reason = refuse(record, result, model / "model.safetensors")
    if reason:
        raise SystemExit(f"nothing was written: {reason}")
    search = json.loads(options.search.read_text(encoding="utf-8")) if options.search.is_file() else None
    text = card(record, settings, config, result, search)
    options.into.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(model / name, options.into / name)
    shutil.copyfile(options.folder / "pretraining.json", options.into / "pretraining.json")
    (options.into / "README.md").write_text(text, encoding="utf-8")
    print(f"{len(FILES)} model files, pretraining.json and README.md written into {options.into}")


if __name__ == "__main__":
    main()
