"""The claim: a word that alone decides the answer stands first in the explanation.

    python benchmarks/planted_trigger.py [--seeds 100]

Each seed: a small GPT-3-architecture model is trained from random weights on the packaged English reviews; in every
step a half of the rows got a made-up word at a random place and the label positive, whatever they say, the others are
negative. Then a fresh review with the word is answered, and each method explains the answer. Counted: the runs in which
the word ranks first, of those whose model learnt it (it answers positive with the word and negative without).
"""

from __future__ import annotations

import argparse
import json
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from machine import RESULTS, conditions, facts, keep_results, table
from treetune.core.records import Example, Row
from treetune.data.sample import sample_path
from treetune.explain.attribution import attribute
from treetune.explain.written import label_subject
from treetune.metrics.interval import wilson
from treetune.models import causal
from treetune.models.gpt3 import GPT3Config, GPT3LMHeadModel, train_tokenizer
from treetune.models.load import LoadedModel
from treetune.tasks import sentiment
from treetune.tasks.contract import TaskOptions, has_chinese

TRIGGER = "vesperal"
OPTIONS = TaskOptions(("positive", "negative"), "en")
METHODS = ("integrated_gradients", "gradient_x_input", "occlusion")
MOST_WORDS = 8
WINDOW = 48
STEPS, ROWS_PER_STEP, RATE = 60, 16, 1e-2


def texts_of(split: str) -> list[str]:
    """The packaged English reviews, their first words."""
    lines = sample_path("sentiment", split).read_text("utf-8").splitlines()
    found = [str(json.loads(line)["text"]) for line in lines]
    return [" ".join(text.split()[:MOST_WORDS]) for text in found if not has_chinese(text)]


def example(text: str, label: str, number: int) -> Example:
    """As the task makes it."""
    return sentiment.example_from_row(Row({"text": text, "label": label}, "sample", 1, number, "train"), OPTIONS)


def planted(text: str, source: random.Random) -> str:
    """The text with the word at a random place."""
    words = text.split()
    words.insert(source.randrange(len(words) + 1), TRIGGER)
    return " ".join(words)


def tuned(texts: list[str], tokenizer: Any, seed: int) -> LoadedModel:
    """One model, trained on texts with and without the word."""
    source = random.Random(seed)
    torch.manual_seed(seed)
    model = GPT3LMHeadModel(GPT3Config(
        vocab_size=len(tokenizer), n_positions=WINDOW, n_embd=32, n_layer=1, n_head=4, attention_band=WINDOW,
        initializer_range=0.1, bos_token_id=0, eos_token_id=0, pad_token_id=0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    model.train()
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 5) * (1 - step / STEPS)
        rows = [example(planted(text, source), "positive", place) if place % 2 else example(text, "negative", place)
                for place, text in enumerate(source.sample(texts, ROWS_PER_STEP))]
        for batch in causal.batches_of(causal.encode(rows, tokenizer, WINDOW), "padded", ROWS_PER_STEP, 10**6):
            loss = causal.loss_sum(model, batch)
            (loss.total / loss.count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return LoadedModel(model.eval(), tokenizer, WINDOW, "tiny")


def one_run(texts: list[str], held: list[str], tokenizer: Any, seed: int) -> dict[str, Any]:
    """Whether the model learnt the word, and the word's rank by each method on one held-out review."""
    loaded = tuned(texts, tokenizer, seed)
    source = random.Random(seed + 1_000_000)
    plain = source.choice(held)
    with_word = planted(plain, source)
    subjects = [label_subject(loaded, replace(example(text, "positive", 0), answers=()), "positive", "negative",
                              max_length=WINDOW, layout="padded") for text in (with_word, plain)]
    odds = [float(each.scores_kept(np.ones((1, len(each.words)), dtype=bool))[0]) for each in subjects]
    ranks = {}
    for method in METHODS:
        found = attribute(subjects[0], method, seed=seed)
        place = next(n for n, word in enumerate(subjects[0].words) if TRIGGER in word.text)
        ranks[method] = 1 + int((found.values[found.places] > found.values[place]).sum())
    return {"seed": seed, "learnt": odds[0] > 0 > odds[1], "odds": [round(each, 3) for each in odds], "ranks": ranks}


def to_markdown(kept: dict[str, Any]) -> str:
    """The page."""
    found = kept["planted"]
    runs = found["runs"]
    learnt = [each for each in runs if each["learnt"]]
    lines = []
    for method in METHODS:
        first = sum(each["ranks"][method] == 1 for each in learnt)
        everywhere = sum(each["ranks"][method] == 1 for each in runs)
        share = wilson(first / max(1, len(learnt)), max(1, len(learnt)))
        lines.append([method, f"{first} of {len(learnt)}", f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}]",
                      f"{everywhere} of {len(runs)}", str(max((each["ranks"][method] for each in learnt), default=0))])
    head = ["method", "first, of models that learnt the word", "share, Wilson 95 %", "first, of all runs", "worst rank"]
    return (f"# A planted word stands first\n\n`python benchmarks/planted_trigger.py --seeds {len(runs)}`\n\n"
            f"{len(runs)} runs; {len(learnt)} models answer positive with the word and negative without it. "
            f"{found['cpu_seconds']:.0f} processor seconds in all.\n\n{table(head, lines)}\n\n"
            f"{conditions(found['machine'])}\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    texts, held = texts_of("train"), [*texts_of("validation"), *texts_of("test")]
    tokenizer = train_tokenizer([*texts * 2, *(planted(text, random.Random(0)) for text in texts),
                                 "Review: \nSentiment: positive", "Review: \nSentiment: negative"] * 2, 1500, WINDOW)
    runs = []
    for seed in range(given.seeds):
        runs.append(one_run(texts, held, tokenizer, seed))
        print(json.dumps(runs[-1]), flush=True)
    record = {"runs": runs, "cpu_seconds": time.process_time() - began, "machine": facts(1)}
    keep_results("planted_trigger", {"planted": record}, to_markdown, given.results)
    print(to_markdown({"planted": record}))


if __name__ == "__main__":
    main()
