"""transformers' Trainer and TRL's SFTTrainer on the same rows, model and optimizer, measured from step end to step end.

A system's name is ``family-form-rows``: how the rows of a step are laid out, and rows of one forward pass; where
that is less than the rows of a step, the peer accumulates gradients.

=========== =========================================================================================================
padded      rows padded to the longest of their pass, in the order given
sorted      the same rows in each step, by length within the step (what length grouping can do without changing steps)
grouped     the measured rows as a whole by length, as transformers' ``group_by_length`` orders them: other rows a step
flattened   padding-free: DataCollatorWithFlattening; TRL's ``padding_free``
packed      TRL's ``packing`` (best fit decreasing) to the model's window, about as many rows a step
=========== =========================================================================================================
"""

from __future__ import annotations

import math
import tempfile
import time
import warnings
from collections.abc import Sequence
from typing import Any

import torch._dynamo  # this and the next two whole, as in a peer's own program, before treetune defers them
import torch.fx.experimental.symbolic_shapes  # noqa: F401
import transformers.loss.loss_utils  # noqa: F401

from children import UNCOUNTED, memory_now
from machine import wait_for_device
from rows import load_rows, num_tokens
from shapes import load_for_peer, with_lora
from treetune.core.records import TokenizedExample

IGNORED = -100


def order_of(form: str, rows: Sequence[TokenizedExample], per_step: int) -> list[int]:
    """Row numbers as the peer gets them; the first two steps' rows stay first, since these are not counted."""
    order = list(range(len(rows)))
    uncounted = UNCOUNTED * per_step
    first, rest = order[:uncounted], order[uncounted:]
    if form == "sorted":
        return sorted(order, key=lambda at: (at // per_step, -num_tokens(rows[at])))
    if form == "grouped":
        return first + sorted(rest, key=lambda at: -num_tokens(rows[at]))
    return order


def record_of(row: TokenizedExample) -> dict[str, list[int]]:
    """Input ids and labels, the prompt without loss."""
    prompt, completion = row.prompt_ids.tolist(), row.completion_ids.tolist()
    return {"input_ids": prompt + completion, "labels": [IGNORED] * len(prompt) + completion}


def train_peer(job: dict[str, Any]) -> dict[str, Any]:
    """``job["steps"]`` optimizer steps of one system.

    Returns:
        seconds (of the wall, and of the processor), tokens (of the rows, without padding) and loss of each step; peak
        memory in MiB.
    """
    warnings.simplefilter("ignore")
    family, form, named = job["system"].split("-")
    per_pass = min(int(named), job["rows_per_step"])
    rows = load_rows(job["rows_file"])
    records = [record_of(rows[place]) for place in order_of(form, rows, job["rows_per_step"])]
    model = with_lora(load_for_peer(job["model"]), job["lora"])
    with tempfile.TemporaryDirectory() as folder:
        trainer = (trl_trainer if family == "trl" else hf_trainer)(model, records, form, per_pass, job, folder)
        trainer.notes["memory_at_start"] = memory_now("VmRSS")
        trainer.train()
    return {**trainer.notes, "peak_memory": memory_now()}


def arguments(job: dict[str, Any], per_pass: int, folder: str) -> dict[str, Any]:
    """What both trainers are told: constant rate, clipping at 1 (as treetune), nothing saved, nothing logged."""
    import torch

    return {
        "output_dir": folder, "per_device_train_batch_size": per_pass,
        "gradient_accumulation_steps": max(1, job["rows_per_step"] // per_pass), "max_steps": job["steps"],
        "learning_rate": job["learning_rate"], "lr_scheduler_type": "constant", "max_grad_norm": 1.0,
        "train_sampling_strategy": "sequential", "save_strategy": "no", "logging_strategy": "no", "report_to": "none",
        "disable_tqdm": True, "use_cpu": not torch.cuda.is_available(), "dataloader_pin_memory": False,
        "bf16": job["bf16"], "gradient_checkpointing": False, "seed": 0,
    }


def optimizer_of(model: Any, job: dict[str, Any]) -> Any:
    """The very optimizer that treetune uses: fused AdamW without decay."""
    from treetune.train.optimizers import build_optimizers

    return build_optimizers(model, "adamw", job["learning_rate"], 0.0)[0]


def tokenizer_of(job: dict[str, Any]) -> Any:
    """The saved tokenizer, padding on the right."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    tokenizer.padding_side = "right"
    return tokenizer


def measured(kind: type) -> type:
    """A trainer that notes when its steps end, their loss (summed over passes) and the tokens of their rows."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self, notes: dict[str, Any]) -> None:
            self.notes = notes
            self.last = self.last_cpu = 0.0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.last, self.last_cpu = time.perf_counter(), time.process_time()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            wait_for_device()
            now, cpu = time.perf_counter(), time.process_time()
            self.notes["seconds"].append(now - self.last)
            self.notes["cpu_seconds"].append(cpu - self.last_cpu)
            self.last, self.last_cpu = now, cpu

    class Measured(kind):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.notes: dict[str, Any] = {"seconds": [], "cpu_seconds": [], "tokens": [], "loss": []}
            super().__init__(*args, **kwargs)
            self.add_callback(Clock(self.notes))

        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            mask = inputs.get("attention_mask")
            tokens = inputs["input_ids"].numel() if mask is None else int(mask.sum())
            loss = super().training_step(model, inputs, *args, **kwargs)
            if len(self.notes["loss"]) == len(self.notes["seconds"]):
                self.notes["loss"].append(0.0)
                self.notes["tokens"].append(0)
            self.notes["loss"][-1] += float(loss)
            self.notes["tokens"][-1] += tokens
            return loss

    return Measured


def hf_trainer(
    model: Any, records: list[dict[str, list[int]]], form: str, per_pass: int, job: dict[str, Any], folder: str
) -> Any:
    """transformers' Trainer."""
    from transformers import DataCollatorForSeq2Seq, DataCollatorWithFlattening, Trainer, TrainingArguments

    if form == "flattened":
        collator: Any = DataCollatorWithFlattening()
    else:
        collator = DataCollatorForSeq2Seq(tokenizer_of(job), label_pad_token_id=IGNORED)
    return measured(Trainer)(
        model=model, args=TrainingArguments(**arguments(job, per_pass, folder)), train_dataset=records,
        data_collator=collator, optimizers=(optimizer_of(model, job), None),
    )


def trl_trainer(
    model: Any, records: list[dict[str, list[int]]], form: str, per_pass: int, job: dict[str, Any], folder: str
) -> Any:
    """TRL's SFTTrainer with its default loss, which is the chunked one."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    given = arguments(job, per_pass, folder)
    given |= {"max_length": None, "padding_free": form == "flattened"}
    if form == "packed":
        window = model.config.max_position_embeddings
        per_block = len(records) / num_blocks([len(record["input_ids"]) for record in records], window)
        blocks = max(1, round(job["rows_per_step"] / per_block))
        given |= {"packing": True, "max_length": window, "per_device_train_batch_size": per_pass,
                  "gradient_accumulation_steps": max(1, blocks // per_pass)}
    return measured(SFTTrainer)(
        model=model, args=SFTConfig(**given), train_dataset=Dataset.from_list(records),
        processing_class=tokenizer_of(job), optimizers=(optimizer_of(model, job), None),
    )


def num_blocks(lengths: Sequence[int], window: int) -> int:
    """How many windows the rows fill at least."""
    return math.ceil(sum(lengths) / window)
