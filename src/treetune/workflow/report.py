"""Gathers what a run folder holds and has the report and the model card written from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treetune.audit.wording import in_words
from treetune.core.errors import TreetuneError
from treetune.core.files import RunFolder, model_digest, read_json, write_json, write_text
from treetune.core.language import say
from treetune.core.settings import read_yaml
from treetune.core.version import __version__
from treetune.decide.wording import guarantee, limits, outcome, void_guarantee
from treetune.report.card import model_card
from treetune.report.page import render_report
from treetune.workflow.account import before_account
from treetune.workflow.log import read_events

EXAMPLES = "examples.json"


def write_report(folder: RunFolder, examples: Sequence[dict[str, Any]] | None = None) -> None:
    """``report.html`` and ``README.md`` of a run.

    Args:
        examples: rows with their answers to show, kept for later reports; None: those of the last evaluation.
    """
    if examples is not None:
        write_json(folder.root / EXAMPLES, list(examples))
    record = report_record(folder)
    write_text(folder.report, render_report(record))
    write_text(folder.card, model_card(record))


def report_record(folder: RunFolder) -> dict[str, Any]:
    """Everything that report and card are written from."""
    kept = folder.root / EXAMPLES
    facts = read_json(folder.model / "treetune.json")
    return {
        "task": facts["task"], "model": facts["base_model"], "family": facts.get("family", "decoder"),
        "head": facts.get("head", "causal"), "created": facts["created"],
        "treetune_version": __version__, "settings": read_yaml(folder.config),
        "command": f"treetune tune {folder.config}",
        "data": read_json(folder.data)["check"], "events": read_events(folder.metrics),
        "evaluation": read_json(folder.evaluation) if folder.evaluation.exists() else {},
        "gate": gate_words(folder, read_json(folder.gate)) if folder.gate.exists() else {},
        "fairness": in_words(read_json(folder.fairness)) if folder.fairness.exists() else {},
        "explanations": read_json(explained) if (explained := folder.root / "explain.json").exists() else {},
        "account": before_account(folder),
        "examples": read_json(kept) if kept.exists() else [], "parameters": facts["parameters"],
        "seconds": facts["seconds"], "tokens": facts["computed_tokens"], "row_tokens": facts["row_tokens"],
        "machine": f"{facts['machine']}, {facts['threads']} threads",
    }


def gate_words(folder: RunFolder, record: dict[str, Any]) -> dict[str, Any]:
    """A gate's record with what it promises in the language in force, or that the promise is void, and its drift."""
    from treetune.decide.validators.contract import measured
    from treetune.decide.wording import drift_lines
    from treetune.workflow.decider import drift_state, drifted

    try:
        drift: dict[str, Any] = drift_state(folder, record)
    except (TreetuneError, ValueError, KeyError, TypeError):  # a gate of before, or one that was edited
        drift, changed = {}, [folder.gate.name]
    else:
        changed = [say("the model's files")] if record["files"] != model_digest(folder.model) else []
        changed += [drifted()] if drift["alarm"] else []
    return {**record, "sentence": void_guarantee(changed) if changed else guarantee(record), "void": bool(changed),
            "outcome": outcome(record), "limits": limits(record), "drift": drift,
            "drift_lines": drift_lines(drift) if drift else [], "planted": measured()}
