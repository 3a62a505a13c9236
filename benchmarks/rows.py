"""Real rows through treetune's own prompts and tokenizer, cut as treetune cuts them, in one order for every system."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from treetune.core.records import Example, TokenizedExample

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
INSTRUCTIONS = {
    "instruction": "Is the review positive, negative or neutral? Answer with one word.",
    "alpaca": "Below stands an instruction that describes a task, and behind it an input that the task is about. "
              "Write a response that does what the instruction asks for.\n\n### Instruction:\nRead the movie review "
              "and classify its sentiment. Answer with one of three labels: positive, negative, neutral.\n\n"
              "### Input:\n",
}
"""What ``SET+NAME`` has in front of every row of SET: a plain sentence; the layout of Alpaca's prompts."""
SETS = {
    "sentiment/sst3": "sentiment", "sentiment/sst3+instruction": "sentiment", "sentiment/sst3+alpaca": "sentiment",
    "qa/squad_v11_dev": "question_answering",
    "translation/multi30k_en_de": "translation", "summarization/scitldr": "summarization",
    "sample/sentiment": "sentiment", "sample/sentiment+alpaca": "sentiment",
    "sample/question_answering": "question_answering",
}


def place_of(name: str, split: str = "train") -> Path:
    """The file of a set, whatever its instruction; ``sample/…`` are the rows in the package."""
    from treetune.data.sample import sample_path

    folder = name.partition("+")[0]
    return sample_path(SETS[name], split) if name.startswith("sample/") else DATA / folder / f"{split}.jsonl.gz"


def instruction_of(name: str) -> str:
    """What stands in front of every row of the set; "" where nothing does."""
    own = name.partition("+")[2]
    return INSTRUCTIONS[own] if own else ""


def is_there(name: str) -> bool:
    """Whether the set can be measured on this machine; says so if not."""
    found = place_of(name).is_file()
    if not found:
        print(f"{name}: skipped, its rows are not here", flush=True)
    return found


def examples_of(name: str, split: str = "train") -> tuple[list[Example], list[str]]:
    """All examples of a set, and what each belongs to (passage, document, source)."""
    from treetune.tasks.contract import TaskOptions, load_task
    from treetune.workflow.gather import group_of, read_for, to_examples

    task = load_task(SETS[name])
    read = read_for(task, str(place_of(name, split)), split, {})
    usable = to_examples(task, read, TaskOptions(), None, 0.05).rows
    options = replace(task.options_from_rows(usable, "auto"), instruction=instruction_of(name))
    gathered = to_examples(task, read, options, None, 0.05)
    group = group_of(task)
    return list(gathered.examples), [group(row) for row in gathered.rows]


def shuffled(groups: Sequence[str], seed: int, together: bool) -> list[int]:
    """Row numbers in the order of an epoch: groups shuffled and their rows side by side, or all rows shuffled."""
    chance = np.random.default_rng(seed)
    if not together:
        return [int(place) for place in chance.permutation(len(groups))]
    members: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    listed = list(members.values())
    return [row for place in chance.permutation(len(listed)) for row in listed[place]]


def chosen_rows(name: str, folder: str, count: int, seed: int, together: bool) -> list[TokenizedExample]:
    """The first ``count`` tokenized rows of the order; the order starts again where the set is smaller.

    Args:
        folder: a saved shape, whose tokenizer and window are used.
    """
    from treetune.models.load import load_tokenizer
    from treetune.models.tokens import tokenize

    examples, groups = examples_of(name)
    order = shuffled(groups, seed, together)
    picked = [examples[order[place % len(order)]] for place in range(count)]
    tokenizer, window = load_tokenizer(folder)
    return tokenize(picked, tokenizer, window)


def save_rows(path: Path, rows: Sequence[TokenizedExample]) -> None:
    """Ids and lengths as plain arrays."""
    np.savez(path, prompt=np.concatenate([row.prompt_ids for row in rows]),
             completion=np.concatenate([row.completion_ids for row in rows]),
             prompt_length=[len(row.prompt_ids) for row in rows],
             completion_length=[len(row.completion_ids) for row in rows], num_cut=[row.num_cut for row in rows],
             num_instruction=[row.num_instruction for row in rows])


def load_rows(path: str) -> list[TokenizedExample]:
    """What `save_rows` wrote."""
    with np.load(path) as saved:
        prompts = np.split(saved["prompt"], np.cumsum(saved["prompt_length"])[:-1])
        completions = np.split(saved["completion"], np.cumsum(saved["completion_length"])[:-1])
        counts = zip(saved["num_cut"].tolist(), saved["num_instruction"].tolist(), strict=True)
    return [TokenizedExample(number, 0, prompt.astype(np.int64), completion.astype(np.int64), *both)
            for number, (prompt, completion, both) in enumerate(zip(prompts, completions, counts, strict=True))]


def num_tokens(row: TokenizedExample) -> int:
    """Tokens of a row: what every peer reads of it, prompt and completion."""
    return len(row.prompt_ids) + len(row.completion_ids)


def describe(rows: Sequence[TokenizedExample]) -> dict[str, Any]:
    """Counts that a reader of the table needs."""
    from treetune.trees.build import build_tree

    tokens = [num_tokens(row) for row in rows]
    return {"rows": len(rows), "tokens": sum(tokens), "longest": max(tokens), "mean_length": sum(tokens) / len(rows),
            "labels": sum(len(row.completion_ids) for row in rows), "cut_rows": sum(row.num_cut > 0 for row in rows),
            "unique_tokens": len(build_tree(rows).input_ids)}
