"""What a gate is bound to: digests of the weights in memory, the tokenizer, the settings of answering, the prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from treetune.core.files import file_digest, value_digest
from treetune.core.language import say
from treetune.core.records import Row
from treetune.tasks.contract import Task, TaskOptions
from treetune.workflow.run import Run

TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges*", "special_tokens*", "added_tokens*", "*.model", "chat_template*")
SETTING_FILES = ("config.json", "generation_config.json", "adapter_config.json")
ANSWERING = ("task", "head", "labels", "prompt_language", "instruction", "max_length", "max_new_tokens", "answers_from",
             "no_repeat_ngram_size", "settled")
ENGINE = "transformers"  # what answers where nothing else is named, and what every gate from before engines is bound to
PROBES = ("a short text", "一段短文")


def scope_of(run: Run, engine: str = ENGINE) -> dict[str, str]:
    """Digest by name, of ``engine`` its identity; how rows are laid out is not in it, because it is proved not to
    matter.
    """
    settings = {name: run.facts[name] for name in ANSWERING if name in run.facts}  # a gate outlives settings to come
    return {
        "weights": weights_digest(run.loaded.model), "tokenizer": files_digest(run.folder.model, TOKENIZER_FILES),
        "settings": value_digest([settings, files_digest(run.folder.model, SETTING_FILES)]),
        "prompt": prompt_digest(run.task, run.options), "engine": engine,
    }


def changes(scope: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Names of what is not as a gate's scope says, in the language in force."""
    return [name_of(name) for name in parts_changed(scope, now)]


def parts_changed(scope: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Names of the parts that are not as a gate's scope says."""
    return [name for name in now if scope.get(name, ENGINE if name == "engine" else None) != now[name]]


def name_of(part: str) -> str:
    """A part of the scope as a person calls it."""
    return {"weights": say("the model's weights"), "tokenizer": say("the tokenizer"),
            "settings": say("the settings"), "prompt": say("the prompt"), "engine": say("the engine"),
            "agreement": say("how answers are drawn"), "near_training": say("the file of distances"),
            "entailment": say("the entailment model"), "quality": say("the quality model")}.get(part, part)


def weights_digest(model: Any) -> str:
    """sha256 over name, type, shape and bytes of every tensor: also sees a rounded, quantised or merged copy."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}\x1f{tensor.dtype}\x1f{tuple(tensor.shape)}\x1e".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def files_digest(folder: Path, patterns: tuple[str, ...]) -> str:
    """sha256 over the files of a folder whose name fits one of the patterns."""
    files = {path.name: path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return value_digest({name: file_digest(path) for name, path in sorted(files.items())})


def prompt_digest(task: Task, options: TaskOptions) -> str:
    """Of the prompts and candidates that the task makes of two fixed rows, one a script."""
    made: list[Any] = []
    for text in PROBES:
        values = {column.name: text for column in task.COLUMNS
                  if column.required and column.name not in task.ANSWER_COLUMNS}
        example = task.example_from_row(Row(values, "probe", 1, 0, "test"), options, with_answer=False)
        made.append([[[part.text, part.cuttable] for part in example.pieces], dict(example.candidates)])
    return value_digest(made)
