"""A full record of a run, as `treetune.workflow.report` gathers it."""

from collections.abc import Iterator
from typing import Any

import pytest

from treetune.core.language import choose_language

ATTACK = "<script>alert(1)</script>"


def score(metric: str, value: float) -> dict[str, Any]:
    return {"metric": metric, "value": value, "low": value - 0.05, "high": value + 0.04, "level": 0.95, "count": 120,
            "signature": metric}


def split(rows: int, labels: dict[str, int]) -> dict[str, Any]:
    return {"num_rows": rows, "refused": {"E1103": 2}, "duplicate_rows": {"count": 1, "examples": [["a", "b"]]},
            "conflicting_labels": 0, "duplicate_ids": 0, "labels": labels, "texts": {}}


def steps(count: int) -> list[dict[str, Any]]:
    return [{"event": "step", "step": 10 * step, "of": 10 * count, "epoch": step / 9, "learning_rate": 5e-4 / step,
             "seconds": 0.5, "loss": 3.0 / step**0.5, "num_labels": 64, "grad_norm": 1.0, "tokens": 900,
             "row_tokens": 2400} for step in range(1, count + 1)]


def evaluations() -> list[dict[str, Any]]:
    return [{"event": "evaluation", "step": 100 * step, "loss": 2.0 / step, "best_loss": 2.0 / step,
             "best_step": 100 * step} for step in (1, 2, 3)]


def evaluation() -> dict[str, Any]:
    return {
        "scores": {name: [score("accuracy", value), score("macro_f1", value - 0.02)]
                   for name, value in (("tuned", 0.84), ("base", 0.41), ("majority", 0.36))},
        "reference_system": "base",
        "comparisons": {"tuned": [{**score("accuracy", 0.43), "p_value": 0.0004}],
                        "majority": [{**score("accuracy", -0.05), "p_value": 0.31}]},
        "labels": ["negative", "neutral", "positive"],
        "confusion": {"tuned": [[38, 1, 1, 0], [4, 33, 3, 0], [2, 5, 32, 1]],
                      "base": [[20, 10, 10, 0], [10, 20, 10, 0], [15, 15, 10, 0]]},
        "counts": {"rows": 120, "units": 120, "language:en": 100, "language:zh": 20}, "seed": 0,
        "num_resamples": 1000, "data": "/home/someone/test.jsonl.gz", "refused": 0, "unfinished": 1, "cut": 0,
        "perplexity": {"metric": "perplexity", "interval": {"value": 1.6, "low": 1.4, "high": 1.8, "level": 0.95}},
    }


@pytest.fixture
def record() -> dict[str, Any]:
    return {
        "task": "sentiment", "model": "gpt3", "created": "2025-01-31", "treetune_version": "0.1.0",
        "command": "treetune tune runs/a/config.yaml", "settings": {"seed": 7, "data": "train.jsonl"},
        "data": {"splits": {"train": split(900, {"positive": 500, "negative": 400}),
                            "validation": split(100, {"positive": 60, "negative": 40})},
                 "leaks": [{"earlier": "train", "later": "validation",
                            "overlap": {"count": 3, "examples": [["train:1", "validation:4"]]}}],
                 "token_lengths": None, "num_cut": None},
        "events": [{"event": "tokens", "cut": {"examples": 2, "tokens": 31}, "rows": 900},
                   {"event": "exactness", "layout": "tree", "difference": 1e-7, "used": "tree"},
                   *steps(30), *evaluations()],
        "evaluation": evaluation(),
        "examples": [{"input": f"Review {place}: {ATTACK}", "reference": "positive",
                      "answer": "positive" if place % 2 else ATTACK, "correct": bool(place % 2),
                      "probability": 0.9} for place in range(14)],
        "parameters": 4_300_000, "seconds": 754.2, "tokens": 1_200_000, "row_tokens": 3_000_000,
        "machine": "x86_64, 2 threads",
    }


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    choose_language("en")
    yield
    choose_language("")
