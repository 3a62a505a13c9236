"""Plan against actual: time and peak memory of real runs, as planned without and with a probe, beside two estimators.

``python benchmarks/plan_actual.py`` takes about twenty minutes on two quiet cores. On a machine that others use too,
``--cpu-clock --threads 1`` counts the run's own processor seconds instead of the wall clock's (plan, probe and actual
alike). ``--only`` names settings. ``--calibrate`` runs those that the constants of `treetune.plan.duration` may be
fitted on; no figure that is kept is of them.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from children import run_child, serve_child
from machine import RESULTS, conditions, facts, keep_results, table

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
SETS = {"sentiment": "sentiment/sst3", "question_answering": "qa/squad_v11_dev",
        "summarization": "summarization/scitldr", "translation": "translation/multi30k_en_de"}
TARGETS = {"time with probe": 10, "memory with probe": 10, "time without": 40, "memory without": 15}
VALIDATION_ROWS = 48
CPU_CLOCK = "import time; time.monotonic = time.perf_counter = time.process_time; "
COMMAND = "from treetune.cli.app import main; main()"


@dataclass(frozen=True)
class Setting:
    """One run: task x family and size x full or LoRA x rows of a pass x tokens of a row."""

    task: str
    shape: str
    lora: int
    batch: int
    length: int

    @property
    def name(self) -> str:
        return f"{self.task[:4]} {self.shape} {'lora' if self.lora else 'full'} b{self.batch} l{self.length}"


SETTINGS = [
    Setting("sentiment", "gpt3", 0, 32, 512), Setting("sentiment", "gpt3", 8, 8, 512),
    Setting("sentiment", "gpt2-4x256", 0, 16, 256), Setting("sentiment", "gpt2-4x256", 8, 32, 256),
    Setting("sentiment", "gpt2-6x320", 0, 8, 128), Setting("sentiment", "llama-5x256", 0, 8, 256),
    Setting("sentiment", "llama-5x256", 8, 32, 128), Setting("sentiment", "bert-4x192", 0, 32, 128),
    Setting("sentiment", "bert-4x192", 8, 8, 256), Setting("sentiment", "bert-6x320", 0, 16, 128),
    Setting("sentiment", "bert-6x320", 8, 32, 64), Setting("sentiment", "t5-2x256", 0, 16, 128),
    Setting("sentiment", "t5-2x256", 8, 8, 128),
    Setting("question_answering", "gpt3", 0, 16, 512), Setting("question_answering", "gpt3", 8, 8, 384),
    Setting("question_answering", "gpt2-4x256", 0, 8, 384), Setting("question_answering", "llama-5x256", 8, 8, 384),
    Setting("question_answering", "bert-4x192", 0, 8, 256), Setting("question_answering", "bert-6x320", 0, 4, 128),
    Setting("question_answering", "t5-2x256", 0, 8, 384), Setting("question_answering", "bart-2x256", 8, 8, 384),
    Setting("summarization", "gpt3", 0, 4, 384), Setting("summarization", "gpt2-4x256", 8, 4, 256),
    Setting("summarization", "t5-2x256", 0, 4, 384), Setting("summarization", "bart-2x256", 0, 8, 256),
    Setting("translation", "gpt3", 8, 32, 256), Setting("translation", "gpt2-6x320", 0, 8, 128),
    Setting("translation", "t5-2x256", 8, 32, 128), Setting("translation", "bart-2x256", 0, 32, 128),
]
CALIBRATION = [
    Setting("sentiment", "gpt2-2x128", 0, 32, 256), Setting("sentiment", "llama-3x384", 8, 8, 256),
    Setting("sentiment", "bert-3x128", 0, 16, 128), Setting("question_answering", "gpt2-3x384", 0, 8, 256),
    Setting("translation", "t5-3x128", 0, 16, 128), Setting("summarization", "bart-3x192", 0, 4, 256),
    Setting("translation", "llama-6x192", 0, 16, 128), Setting("sentiment", "gpt2-3x384", 8, 8, 256),
]

def main() -> None:
    """Run all, print the tables, write benchmarks/results/plan_actual.md and .json."""
    given = arguments()
    if not DATA.is_dir():
        raise SystemExit(f"the shared data is not beside the repository: {DATA}")
    found: dict[str, Any] = {"machine": facts(given.threads), "steps": given.steps, "cpu_clock": given.cpu_clock}
    chosen = CALIBRATION if given.calibrate else SETTINGS
    lines = []
    work = Path(tempfile.mkdtemp(prefix="plan-actual-", dir=given.folder))
    progress = Path(given.progress) if given.progress else work / "lines.jsonl"
    text = progress.read_text("utf-8") if progress.exists() else ""
    kept = {line["name"]: line for line in map(json.loads, text.splitlines())}
    for setting in chosen:
        if given.only and not any(word in setting.name for word in given.only):
            continue
        if setting.name in kept:
            line = kept[setting.name]
        else:
            line = measure(setting, work, given)
            with open(progress, "a", encoding="utf-8") as handle:
                handle.write(json.dumps(line) + "\n")
        print(one_line(line), flush=True)
        lines.append(line)
    if given.peers:
        add_accelerate(given.peers, lines)
    shutil.rmtree(work, ignore_errors=True)
    found |= {"lines": lines, "command": "python benchmarks/plan_actual.py " + " ".join(sys.argv[1:])}
    print(report(found))
    if not given.only and not given.calibrate:
        keep_results("plan_actual", found, report, RESULTS)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40, help="of every run; the probe sees the first 20")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu-clock", action="store_true", help="count the run's own processor seconds")
    parser.add_argument("--only", action="append", help="settings whose name holds this")
    parser.add_argument("--calibrate", action="store_true", help="run the settings the constants may be fitted on")
    parser.add_argument("--folder", default=None, help="for models and runs")
    parser.add_argument("--progress", default="", help="file that keeps finished settings; given again, they are taken")
    parser.add_argument("--peers", default="", help="a Python with accelerate, for its estimator")
    return parser.parse_args()


def measure(setting: Setting, work: Path, given: argparse.Namespace) -> dict[str, Any]:
    """One run of the command line in a process of its own, its plan, and what the formulas say of it."""
    run = work / "run"
    shutil.rmtree(run, ignore_errors=True)
    made = run_child(__file__, {"shape": setting.shape, "work": str(work), "threads": given.threads})
    if "error" in made:
        return {"name": setting.name, "error": made["error"]}
    rows = write_rows(setting, work, given.steps)
    words = ["tune", "--task", setting.task, "--model", made["folder"], "--data", rows[0], "--validation-data", rows[1],
             "--output-dir", run, "--max-steps", given.steps, "--per-device-train-batch-size", setting.batch,
             "--max-length", setting.length, "--lora-r", setting.lora, "--torch-threads", given.threads, "--seed", 1,
             "--learning-rate", 1e-4, "--prompt-language", "en", "--max-refused-share", 1.0]
    done = subprocess.run([sys.executable, "-c", CPU_CLOCK * given.cpu_clock + COMMAND, *map(str, words)],
                          capture_output=True, text=True, env=environment(given.threads), timeout=3600, check=False)
    if done.returncode:
        return {"name": setting.name, "error": " ".join(done.stderr.split())[-300:]}
    account = json.loads((run / "account.json").read_text("utf-8"))
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    elapsed = next(event for event in events if event["event"] == "account")["first_steps"]["elapsed"]
    actual, planned, probe = account["actual"], account["planned"], account["probe"]
    return {
        "name": setting.name, "setting": asdict(setting), "config": made["config"],
        "seconds": actual["seconds"], "planned_seconds": planned["seconds"]["expected"],
        "probe_seconds": probe.get("seconds", {}).get("expected"), "probe_unknown": probe.get("unknown_share"),
        "remaining": {"actual": actual["seconds"] - elapsed,
                      "planned": probe["seconds"]["expected"] - elapsed} if probe else None,
        "within": planned["seconds"]["low"] <= actual["seconds"] <= planned["seconds"]["high"],
        "probe_within": bool(probe) and probe["seconds"]["low"] <= actual["seconds"] <= probe["seconds"]["high"],
        "peak": actual["peak_bytes"], "planned_peak": planned["peak_bytes"]["expected"],
        "probe_peak": probe.get("peak_bytes"), "phases": planned["memory_phases"], "parts": planned["memory_parts"],
        "time_parts": planned["parts"], "step_seconds": actual["step_seconds"],
        "evaluation_seconds": actual["evaluation_seconds"], "save_seconds": actual["save_seconds"],
        "tokens": [planned["tokens"], actual["tokens"]], "flops": planned["flops"]["run"],
        "matmul": account["machine"]["matmul_flops"], "bandwidth": account["machine"]["copy_bytes_a_second"],
        "peers": {"eleuther": eleuther(made["config"], account["model"]["parameters"], setting)},
    }


def environment(threads: int) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))}


def child(job: dict[str, Any]) -> dict[str, Any]:
    """Make a model, so that making it is no part of what is measured."""
    folder = save_model(job["shape"], Path(job["work"]))
    return {"folder": str(folder), "config": json.loads((folder / "config.json").read_text("utf-8"))}


def write_rows(setting: Setting, work: Path, steps: int) -> tuple[Path, Path]:
    """As many real rows as the steps show once, at most 1200, and some for validation."""
    wanted = (min(1200, steps * setting.batch), VALIDATION_ROWS)
    paths = (work / "train.jsonl", work / "held.jsonl")
    source = DATA / SETS[setting.task] / "train.jsonl.gz"
    with gzip.open(source, "rt", encoding="utf-8") as handle:
        lines = iter([*itertools.islice(handle, sum(wanted))])
        for path, count in zip(paths, wanted, strict=True):
            path.write_text("".join(itertools.islice(lines, count)), "utf-8")
    return paths


def save_model(shape: str, work: Path) -> Path:
    """A model of random weights with a tokenizer of its kind, made once; ``gpt3`` is the shipped base."""
    from treetune.models.embedded import folder

    if shape == "gpt3":
        return folder()
    target = work / "models" / shape
    if target.is_dir():
        return target
    import torch
    import transformers
    from transformers import AutoTokenizer

    torch.manual_seed(0)
    kind = shape.split("-")[0]
    tokenizer = AutoTokenizer.from_pretrained(folder())
    if kind in ("t5", "bart", "bert"):
        tokenizer = closing_tokenizer(kind)
    config = config_of(shape, len(tokenizer), tokenizer)
    auto = {"gpt2": "AutoModelForCausalLM", "llama": "AutoModelForCausalLM", "bert": "AutoModelForMaskedLM",
            "t5": "AutoModelForSeq2SeqLM", "bart": "AutoModelForSeq2SeqLM"}[kind]
    getattr(transformers, auto).from_config(config).save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


def closing_tokenizer(kind: str) -> Any:
    """The shipped vocabulary with padding, and the special tokens that an encoder or an encoder-decoder puts around."""
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    from treetune.models.embedded import folder

    core = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    core.add_special_tokens(["<pad>", "<s>", "</s>", "<mask>"])
    start, end = ("<s>", core.token_to_id("<s>")), ("</s>", core.token_to_id("</s>"))
    one, two = ("$A </s>", "$A </s> $B </s>") if kind == "t5" else ("<s> $A </s>", "<s> $A </s> $B </s>")
    core.post_processor = processors.TemplateProcessing(single=one, pair=two, special_tokens=[start, end])
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
                                   cls_token="<s>", sep_token="</s>", mask_token="<mask>", unk_token="<pad>",
                                   model_input_names=["input_ids", "attention_mask"], model_max_length=512)


def config_of(shape: str, vocabulary: int, tokenizer: Any) -> Any:
    """``kind-LAYERSxWIDTH``; dropout as each kind has it by default."""
    import transformers

    layers, width = map(int, shape.split("-")[1].split("x"))
    entries = 60 * width  # the wider model knows more entries, as with the published ones
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    vocabulary = max(vocabulary, entries)
    heads = width // 64
    kind = shape.split("-")[0]
    if kind == "gpt2":
        return transformers.GPT2Config(vocab_size=vocabulary, n_positions=512, n_embd=width, n_layer=layers,
                                       n_head=heads, **ids)
    if kind == "llama":
        return transformers.LlamaConfig(
            vocab_size=vocabulary, hidden_size=width, intermediate_size=width * 8 // 3, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=max(1, heads // 2), max_position_embeddings=512,
            tie_word_embeddings=True, **ids)
    if kind == "bert":
        return transformers.BertConfig(vocab_size=vocabulary, hidden_size=width, num_hidden_layers=layers,
                                       num_attention_heads=heads, intermediate_size=4 * width, **ids)
    if kind == "t5":
        return transformers.T5Config(vocab_size=vocabulary, d_model=width, d_ff=4 * width, d_kv=64, num_layers=layers,
                                     num_heads=heads, decoder_start_token_id=ids["pad_token_id"], **ids)
    return transformers.BartConfig(
        vocab_size=vocabulary, d_model=width, encoder_ffn_dim=4 * width, decoder_ffn_dim=4 * width,
        encoder_layers=layers, decoder_layers=layers, encoder_attention_heads=heads, decoder_attention_heads=heads,
        max_position_embeddings=512, decoder_start_token_id=ids["eos_token_id"], forced_eos_token_id=None, **ids)


def eleuther(config: dict[str, Any], parameters: int, setting: Setting) -> float:
    """Bytes by the formulas of EleutherAI's "Transformer Math 101" (2023), for float32 and full AdamW.

    Weights 4, gradients 4, optimizer 12 bytes a parameter; activations without recomputation
    s b h L (10 + 24 + 5 a s / h) at two bytes a value, hence twice that here. They know neither adapters nor logits.
    """
    width = config.get("n_embd") or config.get("hidden_size") or config["d_model"]
    layers = config.get("n_layer") or config.get("num_hidden_layers") or (
        config.get("num_layers") or config["encoder_layers"]) * 2
    heads = config.get("n_head") or config.get("num_attention_heads") or (
        config.get("num_heads") or config["encoder_attention_heads"])
    length = setting.length
    activations = 2 * length * setting.batch * width * layers * (34 + 5 * heads * length / width)
    return 20.0 * parameters + activations


def add_accelerate(python: str, lines: list[dict[str, Any]]) -> None:
    """Bytes that accelerate's estimator gives for training with Adam in float32: four times the weights.

    One process for all models; GPT-3 is no kind it knows, so the shipped base is read as the GPT-2 of its sizes.
    """
    script = (
        "import json, sys\n"
        "from transformers import AutoConfig, AutoModel\n"
        "from accelerate import init_empty_weights\n"
        "from accelerate.utils import calculate_maximum_sizes\n"
        "found = {}\n"
        "for name, config in json.load(sys.stdin).items():\n"
        "    kind = config.pop('model_type').replace('gpt3', 'gpt2')\n"
        "    with init_empty_weights():\n"
        "        model = AutoModel.from_config(AutoConfig.for_model(kind, **config))\n"
        "    found[name] = 4 * calculate_maximum_sizes(model)[0]\n"
        "print(json.dumps(found))\n"
    )
    configs = {line["setting"]["shape"]: line["config"] for line in _ran(lines)}
    done = subprocess.run([python, "-c", script], input=json.dumps(configs), capture_output=True, text=True,
                          timeout=600, check=False)
    if done.returncode:
        print(f"accelerate: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return
    estimates = json.loads(done.stdout.splitlines()[-1])
    for line in _ran(lines):
        line["peers"]["accelerate"] = estimates[line["setting"]["shape"]]


def error_of(planned: float | None, actual: float) -> float | None:
    """Relative error in per cent; None where there was no plan."""
    return None if planned is None else 100 * (planned - actual) / actual


def errors(lines: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Signed errors of each kind over all settings that ran."""
    pairs = {"time with probe": ("probe_seconds", "seconds"), "memory with probe": ("probe_peak", "peak"),
             "time without": ("planned_seconds", "seconds"), "memory without": ("planned_peak", "peak")}
    found: dict[str, list[float]] = {}
    for name, (planned, actual) in pairs.items():
        values = [error_of(line[planned], line[actual]) for line in _ran(lines)]
        found[name] = [value for value in values if value is not None]
    ran = list(_ran(lines))
    found["remaining time with probe"] = [
        100 * (line["remaining"]["planned"] - line["remaining"]["actual"]) / line["remaining"]["actual"]
        for line in ran if line["remaining"] and line["remaining"]["actual"] > 0]
    found["memory without, above the bare process"] = [
        100 * (line["planned_peak"] - line["peak"]) / (line["peak"] - line["parts"]["process"]) for line in ran]
    for peer in ("eleuther", "accelerate"):
        found[f"memory, {peer}"] = [100 * (line["peers"][peer] - line["peak"]) / line["peak"] for line in ran
                                    if line["peers"].get(peer)]
        found[f"memory, {peer} + bare process"] = [
            100 * (line["peers"][peer] + line["parts"]["process"] - line["peak"]) / line["peak"] for line in ran
            if line["peers"].get(peer)]
    return found


def _ran(lines: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (line for line in lines if "error" not in line)


def one_line(line: dict[str, Any]) -> str:
    if "error" in line:
        return f"{line['name']:44s} {line['error']}"
    shown = [error_of(line[planned], line[actual]) for planned, actual in (
        ("planned_seconds", "seconds"), ("probe_seconds", "seconds"), ("planned_peak", "peak"),
        ("probe_peak", "peak"))]
    return f"{line['name']:44s} {line['seconds']:7.1f} s {line['peak'] / 1e6:7.0f} MB   " + "  ".join(
        "   –  " if value is None else f"{value:+6.1f}%" for value in shown)


def report(found: dict[str, Any]) -> str:
    """Markdown: medians against their targets, the two estimators, every setting, the worst case."""
    lines = found["lines"]
    kinds = errors(lines)
    medians = [
        [name, str(len(values)), f"{statistics.median(map(abs, values)):.1f} %",
         f"at most {TARGETS[name]} %" if name in TARGETS else "–", f"{max(values, key=abs):+.0f} %"]
        for name, values in kinds.items() if values
    ]
    clock = "the run's own processor seconds" if found["cpu_clock"] else "wall clock"
    each = [[line["name"], line.get("error", "")] if "error" in line else [
        line["name"], f"{line['seconds']:.1f}", f"{line['planned_seconds']:.1f}",
        f"{line['probe_seconds']:.1f}" if line["probe_seconds"] else "–", f"{line['peak'] / 1e6:.0f}",
        f"{line['planned_peak'] / 1e6:.0f}", f"{(line['probe_peak'] or 0) / 1e6:.0f}",
        f"{line['peers']['eleuther'] / 1e6:.0f}",
        f"{line['peers']['accelerate'] / 1e6:.0f}" if line["peers"].get("accelerate") else "–"] for line in lines]
    within = [line["within"] for line in _ran(lines)]
    probed = [line["probe_within"] for line in _ran(lines) if line["probe_seconds"]]
    bounds = (f"Time lay within the plan's bounds in {sum(within)} of {len(within)} runs, within those after the "
              f"probe in {sum(probed)} of {len(probed)}.")
    return "\n\n".join([
        "# Plan against actual", f"`{found['command']}`. Time: {clock}; {found['steps']} steps a run, 20 of them "
        "seen by the probe. Time and memory are of the whole run from its first row to its saved model.",
        table(["error", "runs", "median of |error|", "target", "worst"], medians), bounds,
        table(["setting", "s", "planned", "after probe", "MB", "planned", "after probe", "EleutherAI", "accelerate"],
              each),
        conditions(found["machine"])]) + "\n"


if __name__ == "__main__":
    if "--child" in sys.argv:
        serve_child(child)
    else:
        main()
