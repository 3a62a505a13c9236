"""The claim: treetune trains on the same rows several times faster than the best setting of the best peer.

    python benchmarks/throughput.py --shape gpt2-82m --rows qa/squad_v11_dev --threads 2
    python benchmarks/throughput.py --lora 8 ...          LoRA instead of all weights
    python benchmarks/throughput.py --bf16 --shape gpt3-xl qwen3-0.6b --max-tokens 16384 ...    on a GPU

Tokens of the rows (not of padding) per second, peak memory, and the loss after the same rows. Every run is a process
of its own on the same saved weights, the same tokenized rows in the same steps and the same fused AdamW. The first
round runs every system; the rounds after it alternate treetune with the best setting of each peer. The first two
steps of a run are not counted: until the optimizer's state stands, which the first step ends with, memory still grows.
Peers that are not installed are named and left out.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import mean, median
from typing import Any

from children import UNCOUNTED, add_options, run_child, serve_child, take_turns
from machine import conditions, facts, has_peer, keep_results, processor, table
from rows import SETS, is_there
from shapes import SHAPES

OURS = ("treetune-tree", "treetune-packed", "treetune-padded")
PEERS = ("trainer-padded-8", "trainer-sorted-8", "trainer-grouped-8", "trainer-grouped-32", "trainer-flattened-8",
         "trainer-flattened-32", "trl-padded-8", "trl-sorted-8", "trl-grouped-8", "trl-flattened-8", "trl-packed-1")
ROWS = ("sentiment/sst3", "qa/squad_v11_dev", "translation/multi30k_en_de", "summarization/scitldr")
MODULES = {"trainer": "accelerate", "trl": "trl", "treetune": "treetune"}
SAME_STEPS = ("padded", "sorted", "flattened", "tree", "packed")
LOSS_TOLERANCE = {False: 1e-3, True: 3e-2}  # in float32, under bfloat16 autocast
PROOF = ("device", "layout", "engine", "difference", "refused", "proof_seconds")


def work(job: dict[str, Any]) -> dict[str, Any]:
    """What a child does: save the model and the rows, or train one system."""
    if job["do"] == "prepare":
        from rows import chosen_rows, describe, save_rows
        from shapes import save_shape

        save_shape(job["shape"], Path(job["model"]))
        rows = chosen_rows(job["rows"], job["model"], job["steps"] * job["rows_per_step"], 0, job["together"])
        save_rows(Path(job["rows_file"]), rows)
        return describe(rows[UNCOUNTED * job["rows_per_step"]:])
    if job["system"].startswith("treetune"):
        from ours import train_ours

        return {**train_ours(job), "bf16": job["bf16"]}
    from peers import train_peer

    return {**train_peer(job), "bf16": job["bf16"]}


def installed(systems: list[str]) -> list[str]:
    """Those whose package is here; says which are not."""
    missing = sorted({family for system in systems if not has_peer(MODULES[family := system.split("-")[0]])})
    for family in missing:
        print(f"{family}: left out, {MODULES[family]} is not installed", flush=True)
    return [system for system in systems if system.split("-")[0] not in missing]


def speed(run: dict[str, Any], clock: str = "seconds") -> float:
    """Tokens of the rows per second (of the wall, or of the processor: ``cpu_seconds``), in the counted steps."""
    return float(sum(run["tokens"][UNCOUNTED:]) / sum(run[clock][UNCOUNTED:]))


def finalists(runs: dict[str, list[dict[str, Any]]], per_family: int) -> list[str]:
    """treetune's layouts but plain padding, and the fastest settings of each peer that train what the rows say."""
    first = {system: done[0] for system, done in runs.items() if done and "error" not in done[0]}
    reference = reference_loss(first)
    usable = [system for system, done in first.items() if computes_the_same(system, done, reference)]
    found = [system for system in usable if system.startswith("treetune") and not system.endswith("padded")]
    for family in ("trainer", "trl"):
        own = [system for system in usable if system.startswith(family)]
        found += sorted(own, key=lambda system: -speed(runs[system][0]))[:per_family]
    return found


def measure(options: argparse.Namespace, shape: str, rows: str, systems: list[str], folder: Path) -> dict[str, Any]:
    """All rounds of one table."""
    job = {"do": "prepare", "shape": shape, "rows": rows, "model": str(folder / "model"), "lora": options.lora,
           "rows_file": str(folder / "rows.npz"), "steps": options.steps, "rows_per_step": options.rows_per_step,
           "threads": options.threads, "together": options.order == "together", "max_tokens": options.max_tokens,
           "learning_rate": 1e-4, "bf16": options.bf16}
    found = facts(options.threads)
    described = run_child(__file__, job)
    if "error" in described:
        return {"error": described["error"]}

    def run(system: str) -> dict[str, Any]:
        done = run_child(__file__, {**job, "do": "train", "system": system, "flops": system == "treetune-tree",
                                    "memory_limit": options.memory_limit}, options.timeout)
        said = done.get("error") or (f"{speed(done):8.0f} tokens/s {speed(done, 'cpu_seconds'):8.0f} tokens/CPU-s "
                                     f"{done['peak_memory']:6.0f} MiB")
        print(f"  {shape} {rows} {system:22s} {said}", flush=True)
        return done

    runs = take_turns(systems, options.repeats, lambda done: finalists(done, options.finalists), run)
    return {"conditions": found, "shape": shape, "rows": rows, "described": described, "lora": options.lora,
            "steps": options.steps, "rows_per_step": options.rows_per_step, "order": options.order,
            "systems": {system: summary(done, options.rows_per_step) for system, done in runs.items()}, "runs": runs}


def summary(runs: list[dict[str, Any]], rows_per_step: int) -> dict[str, Any]:
    """Medians over the runs of one system; an error if any run failed."""
    for run in runs:
        if "error" in run:
            return {"error": run["error"]}
    speeds = sorted(speed(run) for run in runs)
    result = {"tokens_per_second": median(speeds), "low": speeds[0], "high": speeds[-1], "runs": len(runs),
              "tokens_per_cpu_second": median(speed(run, "cpu_seconds") for run in runs),
              "rows_per_second": median(rows_per_step / mean(run["seconds"][UNCOUNTED:]) for run in runs),
              "peak_memory": median(run["peak_memory"] for run in runs),
              "memory_at_start": median(run["memory_at_start"] for run in runs), "loss": runs[0]["loss"],
              "bf16": runs[0].get("bf16", False),
              **{name: runs[0][name] for name in PROOF if name in runs[0]}}
    if "flops" in runs[0]:
        used = median(sum(run["flops"][UNCOUNTED:]) / sum(run["seconds"][UNCOUNTED:]) for run in runs)
        peak = max(run["peak_flops"] for run in runs)
        result |= {"useful_flops": used, "peak_flops": peak, "useful_share": used / peak}
    return result


def loss_difference(system: str, found: dict[str, Any], reference: list[float]) -> float | None:
    """Largest difference of a step's loss from the reference's; None where the setting puts other rows into a step."""
    if system.split("-")[1] not in SAME_STEPS or system.startswith("trl-packed"):
        return None
    return max(abs(one - other) for one, other in zip(found["loss"], reference, strict=False))


def computes_the_same(system: str, found: dict[str, Any], reference: list[float]) -> bool:
    """Whether the setting's losses do not show that it computes something else; such a speed is no peer's."""
    difference = loss_difference(system, found, reference)
    return difference is None or difference <= LOSS_TOLERANCE[found.get("bf16", False)]


def loss_note(system: str, found: dict[str, Any], reference: list[float]) -> str:
    """Largest difference of the loss of a step from the reference's; ``other steps`` where rows a step differ."""
    difference = loss_difference(system, found, reference)
    if difference is None:
        return "other steps"
    return f"{difference:.1e}" + ("" if computes_the_same(system, found, reference) else " **differs**")


def reference_loss(systems: dict[str, Any]) -> list[float]:
    """Of the plainest system there is: padded rows of a peer, else treetune's."""
    for start in ("trainer-padded", "trainer-sorted", "trl-padded", "trl-sorted", "treetune-padded", ""):
        for system, found in systems.items():
            if system.startswith(start) and "loss" in found:
                return list(found["loss"])
    return []


def proof_lines(systems: dict[str, Any]) -> list[str]:
    """How treetune ran: the layout that the exactness check allowed, and the difference it saw."""
    text = []
    for name, found in systems.items():
        if "engine" in found:
            parts = [part for part, used in found["engine"].items() if used] or ["mask"]
            text += ["", f"{name}: ran {found['layout']} with {', '.join(parts)}; gradients off by "
                     f"{found['difference']:.1e} in the check of {found['proof_seconds']:.1f} s before the first step"
                     + (f", on {found['device']}." if found.get("device") else ".")]
    return text


def section_to_markdown(key: str, section: dict[str, Any]) -> str:
    """One table, and what was compared."""
    if "error" in section:
        return f"## {key}\n\nfailed: {section['error']}\n"
    systems, reference = section["systems"], reference_loss(section["systems"])
    best = max((found["tokens_per_second"] for name, found in systems.items()
                if not name.startswith("treetune") and "error" not in found
                and computes_the_same(name, found, reference)), default=0.0)
    lines = []
    for name, found in systems.items():
        if "error" in found:
            lines.append([name, "failed", found["error"].replace("|", "/")[:90], "", "", ""])
            continue
        ratio = f"{found['tokens_per_second'] / best:.2f}" if best else ""
        spread = f"{found['low']:.0f} to {found['high']:.0f} ({found['runs']})"
        lines.append([name, f"{found['tokens_per_second']:.0f}", spread, ratio, f"{found['peak_memory']:.0f}",
                      loss_note(name, found, reference)])
    about = section["described"]
    head = ["system", "tokens/s", "range (runs)", "× best peer", "peak MiB", "loss differs by"]
    text = [f"## {key}", "", table(head, lines), "",
            f"{about['rows']} measured rows, {section['rows_per_step']} a step: {about['tokens']} tokens, "
            f"{about['unique_tokens']} of them unique, {about['labels']} labels; longest row {about['longest']} "
            f"tokens, {about['cut_rows']} rows cut. Order: {section['order']}."]
    tree = systems.get("treetune-tree", {})
    if "useful_share" in tree:
        text += ["", f"Useful work of the tree step: {tree['useful_flops'] / 1e9:.0f} GFLOP/s, "
                 f"{tree['useful_share']:.0%} of this process's matrix-multiply peak "
                 f"({tree['peak_flops'] / 1e9:.0f} GFLOP/s)."]
    return "\n".join([*text, *proof_lines(systems), "", conditions(section["conditions"]), ""])


def to_markdown(sections: dict[str, Any]) -> str:
    """The results page."""
    head = ["# Training throughput", "", __doc__.split("\n\n")[0], "",
            "tokens/s: tokens of the rows, without padding; medians. × best peer: against the fastest setting of any "
            "peer in the table whose loss shows no other computation. Peak MiB: most resident memory of the whole "
            "process. Loss: largest difference of a "
            "step's mean loss from that of padded rows; ``other steps``: the setting puts other rows into a step.", ""]
    return "\n".join([*head, *(section_to_markdown(key, sections[key]) for key in sorted(sections))])


def parse(about: str | None = __doc__) -> argparse.Namespace:
    """Options."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=["gpt2-82m", "gpt3-base", "llama-0.1b"])
    parser.add_argument("--rows", nargs="+", choices=list(SETS), default=list(ROWS))
    parser.add_argument("--systems", nargs="+", default=[*OURS, *PEERS],
                        help="treetune-LAYOUT or FAMILY-FORM-ROWS, see peers.py")
    parser.add_argument("--finalists", type=int, default=1, help="settings of each peer in the rounds after the first")
    parser.add_argument("--steps", type=int, default=5, help="optimizer steps of a run; the first two are not counted")
    parser.add_argument("--rows-per-step", type=int, default=32)
    parser.add_argument("--lora", type=int, default=0, help="rank of LoRA adapters; 0: all weights")
    parser.add_argument("--max-tokens", type=int, default=0, help="unique tokens of a pass; 0: treetune's default")
    parser.add_argument("--order", choices=["together", "plain"], default="together",
                        help="rows of one passage side by side, or all rows shuffled")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast for every system")
    parser.add_argument("--memory-limit", type=float, default=0, help="GiB of address space of a run; 0: none")
    add_options(parser, timeout=900)
    return parser.parse_args()


def main() -> None:
    """Measure, print, keep."""
    options = parse()
    if options.child:
        serve_child(work)
        return
    systems = installed(options.systems)
    for shape in options.shape:
        for rows in filter(is_there, options.rows):
            began = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                section = measure(options, shape, rows, systems, Path(folder))
            key = " · ".join([shape, rows, f"LoRA {options.lora}" if options.lora else "all weights",
                              *(["bf16"] if options.bf16 else []),
                              *(["plain order"] if options.order == "plain" else []), processor()])
            print(section_to_markdown(key, section), flush=True)
            print(f"({time.perf_counter() - began:.0f} s)", flush=True)
            keep_results("throughput", {key: section}, to_markdown, options.results)


if __name__ == "__main__":
    main()
