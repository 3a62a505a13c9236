"""Gathers what a run folder holds and has the report and the model card written from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treetune import __version__
from treetune.core.files import RunFolder, read_json, write_text
from treetune.core.settings import read_yaml
from treetune.decide.wording import guarantee, limits, outcome
from treetune.report.card import model_card
from treetune.report.page import render_report
from treetune.workflow.log import read_events


def write_report(folder: RunFolder, examples: Sequence[dict[str, Any]] = ()) -> None:
    """``report.html`` and ``README.md`` of a run."""
    facts = read_json(folder.model / "treetune.json")
    settings = read_yaml(folder.config)
    events = read_events(folder.metrics)
    record = {
        "task": facts["task"], "model": facts["base_model"], "family": facts.get("family", "decoder"),
        "head": facts.get("head", "causal"), "created": facts["created"],
        "treetune_version": __version__, "settings": settings,
        "command": f"treetune tune {folder.config}",
        "data": read_json(folder.data)["check"], "events": events,
        "evaluation": read_json(folder.evaluation) if folder.evaluation.exists() else {},
        "gate": gate_words(read_json(folder.gate)) if folder.gate.exists() else {},
        "examples": list(examples), "parameters": facts["parameters"], "seconds": facts["seconds"],
        "tokens": facts["computed_tokens"], "row_tokens": facts["row_tokens"],
        "machine": f"{facts['machine']}, {facts['threads']} threads",
    }
    write_text(folder.report, render_report(record))
    write_text(folder.card, model_card(record))


def gate_words(record: dict[str, Any]) -> dict[str, Any]:
    """A gate's record with what it promises in the language in force."""
    return {**record, "sentence": guarantee(record), "outcome": outcome(record), "limits": limits(record)}
