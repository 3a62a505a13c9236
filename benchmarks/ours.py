"""treetune's own steps, measured: the loop's `train_step` on the given rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from children import forget_peak, memory_now
from machine import device_name, matmul_peak, wait_for_device
from rows import load_rows, num_tokens
from shapes import with_lora
from treetune.core.records import TokenizedExample
from work import dimensions_of, needed_flops


def proved(model: Any, rows: Sequence[TokenizedExample], layout: str, max_tokens: int) -> dict[str, Any]:
    """Set the model up as `workflow.path` does: for the fastest way that is exact on some of the rows.

    Returns:
        ``layout`` and ``engine`` in use, the gradients' relative ``difference``, ``refused`` ways, and what the proof
        cost: ``proof_seconds`` and ``peak_of_proof`` in MiB. A tuning pays that once, so no step counts it.
    """
    from treetune.models.exactness import prove, rows_to_prove

    began = time.perf_counter()
    proof = prove(model, rows_to_prove(rows), layout, max_tokens)
    return {"layout": proof.layout, "engine": asdict(proof.engine), "difference": proof.difference,
            "refused": [str(each) for each in proof.refused], "proof_seconds": time.perf_counter() - began,
            "peak_of_proof": memory_now()}


def train_ours(job: dict[str, Any]) -> dict[str, Any]:
    """``job["steps"]`` optimizer steps in one layout (``treetune-tree``, ``-packed`` or ``-padded``).

    Returns:
        seconds (of the wall, and of the processor), tokens (of the rows) and loss of each step; peak memory in MiB.
        With ``job["flops"]``: needed FLOPs of each step, and the matrix-multiply peak of this very process.
    """
    from treetune.core.settings import LoopSettings, TuneSettings
    from treetune.models.batches import batches_of
    from treetune.models.load import load_model
    from treetune.train.loop import train_step
    from treetune.train.memory import keep_freed_memory
    from treetune.train.optimizers import build_optimizers, start_state

    rows = load_rows(job["rows_file"])
    model = with_lora(load_model(job["model"]).model, job["lora"])
    flops: dict[str, Any] = {"peak_flops": matmul_peak(bf16=job["bf16"])} if job.get("flops") else {}
    budget = job.get("max_tokens") or TuneSettings.model_fields["max_tokens_per_pass"].default
    proof = proved(model, rows, job["system"].split("-")[1], budget)
    make_batches = partial(batches_of, layout=proof["layout"], rows_per_pass=job["rows_per_step"], max_tokens=budget)
    settings = LoopSettings(output_dir="unused", per_device_train_batch_size=job["rows_per_step"], bf16=job["bf16"])
    keep_freed_memory()  # this and the next two lines as the loop has them
    optimizers = build_optimizers(model, "adamw", job["learning_rate"], 0.0)
    start_state(optimizers)
    result: dict[str, Any] = {"seconds": [], "cpu_seconds": [], "tokens": [], "loss": [], "computed_tokens": [],
                              "memory_at_start": memory_now("VmRSS"), "device": device_name(), **proof}
    forget_peak()
    for step in range(job["steps"]):
        part = rows[step * job["rows_per_step"] : (step + 1) * job["rows_per_step"]]
        began, cpu = time.perf_counter(), time.process_time()
        done = train_step(model, optimizers, part, make_batches, settings, step)
        wait_for_device()
        result["seconds"].append(time.perf_counter() - began)
        result["cpu_seconds"].append(time.process_time() - cpu)
        result["tokens"].append(sum(map(num_tokens, part)))
        result["loss"].append(done.loss)
        result["computed_tokens"].append(done.tokens)
    memory_of_steps = memory_now()
    if flops:
        shape = dimensions_of(model)
        flops["peak_flops"] = max(flops["peak_flops"], matmul_peak(bf16=job["bf16"]))
        flops["flops"] = [
            needed_flops(shape, rows[step * job["rows_per_step"] : (step + 1) * job["rows_per_step"]],
                         all_weights=not job["lora"])
            for step in range(job["steps"])
        ]
    return {**result, **flops, "peak_memory": max(proof["peak_of_proof"], memory_of_steps)}
