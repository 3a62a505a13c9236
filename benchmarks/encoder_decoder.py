"""An encoder-decoder against a decoder, both from random weights, on English to German at one time budget.

    python benchmarks/encoder_decoder.py [--minutes M] [--threads N] [--only NAME] [--rows R] [--out FOLDER]

Claim of issue 4: chrF with its interval on real pairs (Multi30k, 1,014 validation rows) after 20 minutes each, of a
Marian-shaped encoder-decoder and of a decoder of the GPT-3 architecture with as many parameters (both about 10 million)
and the shipped base's tokenizer. Each one's speed is measured on its own first steps, and its schedule set to end when
the budget does; both use the loop, the batches and the greedy search that treetune always uses, the decoder with its
token trees. Skips, saying so, where ../shared/data is missing.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import torch

from machine import RESULTS, conditions, facts, keep_results, table
from treetune.core.settings import TuneSettings
from treetune.models.embedded import folder as shipped
from treetune.workflow.evaluate import evaluate
from treetune.workflow.path import tune

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data" / "translation" / "multi30k_en_de"
NAMES = ("encoder-decoder", "decoder")
COMMON: dict[str, Any] = {
    "task": "translation", "seed": 0, "optim": "adamw", "learning_rate": 1e-3, "warmup_ratio": 0.1,
    "lr_scheduler_type": "cosine", "per_device_train_batch_size": 32, "validation_share": 0.02, "max_new_tokens": 64,
    "max_tokens_per_pass": 2048, "random_init": True,
}
PROBE_STEPS = 20
OVERHEAD = 0.08  # of the budget: reading, the proof, evaluations


def make_model(name: str, folder: Path, seed: int = 0) -> Path:
    """A folder with the shape, the shipped tokenizer, and weights that the run replaces by its own random ones."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, MarianConfig

    from treetune.models.gpt3 import GPT3Config

    tokenizer = AutoTokenizer.from_pretrained(shipped())
    end, pad = int(tokenizer.eos_token_id), int(tokenizer.pad_token_id or tokenizer.eos_token_id)
    torch.manual_seed(seed)
    if name == "decoder":
        config: Any = GPT3Config(vocab_size=len(tokenizer), n_positions=256, n_embd=256, n_layer=10, n_head=4,
                                 attention_band=128, bos_token_id=end, eos_token_id=end, pad_token_id=pad)
        model = AutoModelForCausalLM.from_config(config)
    else:
        config = MarianConfig(
            vocab_size=len(tokenizer), d_model=256, encoder_layers=4, decoder_layers=4, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=1024, decoder_ffn_dim=1024, max_position_embeddings=256,
            dropout=0.1, pad_token_id=pad, eos_token_id=end, bos_token_id=end, decoder_start_token_id=pad,
            forced_eos_token_id=None)
        model = AutoModelForSeq2SeqLM.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def watch(event: dict[str, Any]) -> None:
    """Evaluations, and a step now and then."""
    kind = event["event"]
    if kind in ("evaluation", "exactness", "layout") or (kind == "step" and event["step"] % 50 == 0):
        print(json.dumps(event), file=sys.stderr, flush=True)


def head_of(path: Path, count: int, folder: Path) -> str:
    """The file, or a copy of its first ``count`` rows."""
    if not count:
        return str(path)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / path.name.removesuffix(".gz")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        target.write_text("".join(line for line, _ in zip(lines, range(count), strict=False)), "utf-8")
    return str(target)


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Speed from the first steps, then a run whose schedule ends with the budget, then chrF and BLEU."""
    found = facts(options.threads)
    base = make_model(name, options.runs / "shapes" / name)
    data = head_of(DATA / "train.jsonl.gz", options.rows, options.runs / "rows")
    common = {**COMMON, "model": str(base), "data": data, "torch_threads": options.threads}
    probe = tune(TuneSettings(**common, max_steps=PROBE_STEPS, eval_steps=10**6,
                              output_dir=str(options.runs / f"{name}-probe")), watch)
    steps = max(PROBE_STEPS, int(options.minutes * 60 * (1 - OVERHEAD) * PROBE_STEPS / probe["seconds"]))
    began = time.perf_counter()
    known = tune(TuneSettings(**common, max_steps=steps, eval_steps=max(1, steps // 4),
                              output_dir=str(options.runs / name)), watch)
    seconds = time.perf_counter() - began
    rows = head_of(DATA / "validation.jsonl.gz", options.rows, options.runs / "rows")
    record = evaluate(str(options.runs / name), rows, watch, split="validation", compare_base=False)
    return {
        "parameters": known["parameters"], "steps": steps, "best_step": known["best_step"], "layout": known["layout"],
        "tuning_seconds": round(seconds), "row_tokens": known["row_tokens"], "rows": record["counts"]["rows"],
        "systems": record["scores"], "perplexity": record["perplexity"]["interval"]["value"],
        "answering_seconds": record["seconds"],
        "command": shlex.join(["python", "benchmarks/encoder_decoder.py", *sys.argv[1:]]), "facts": found,
    }


def page(kept: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = []
    for name, result in kept.items():
        for system, scores in result["systems"].items():
            shown = [f"{each['value']:.1f} [{each['low']:.1f}, {each['high']:.1f}]" if each["value"] > 1.5 else
                     f"{each['value']:.3f} [{each['low']:.3f}, {each['high']:.3f}]" for each in scores]
            own = system == "tuned"
            size = f"{result['parameters'] / 1e6:.1f} M" if own else ""
            lines.append([name if own else f"{system} ({name} run)", size,
                          " · ".join(f"{each['metric']} {value}" for each, value in zip(scores, shown, strict=True)),
                          str(result["steps"]) if own else "", str(result["tuning_seconds"]) if own else ""])
    head = ["system", "parameters", "scores, 95 % interval", "steps", "tuning, s"]
    how = [f"- {name}: `{each['command']}`; {each['layout']} rows; {conditions(each['facts'])}"
           for name, each in kept.items()]
    return "\n".join(["# Encoder-decoder and decoder from random weights, English to German", "",
                      table(head, lines), "", *how, ""])


def main() -> None:
    """Measure, print, and keep the results beside those of earlier calls."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", action="append", choices=NAMES)
    parser.add_argument("--rows", type=int, default=0, help="rows of each split; 0: all")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "encoder_decoder")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not DATA.is_dir():
        print(f"skipped: {DATA} is not there")
        return
    torch.set_num_threads(options.threads)
    for name in options.only or NAMES:
        result = measure(name, options)
        print(keep_results("encoder_decoder", {name: result}, page, options.out)[1].read_text("utf-8"), flush=True)


if __name__ == "__main__":
    main()
