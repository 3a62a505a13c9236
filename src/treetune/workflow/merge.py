"""A tuned run's adapter merged into its base: a plain model folder that any tool opens, and that can be tuned again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from treetune.workflow.run import finished_folder, read_facts


def merge_run(path: str | Path, target: str | Path) -> dict[str, Any]:
    """Write the merged model of a run with adapters into ``target``.

    Returns:
        ``difference`` of the logits before and after, relative to the largest, and the ``tolerance`` it is within.

    Raises:
        UsageError: E2030, E2031 as `open_run`. ModelError: E3008 the run has no adapter, E3019 the merged model answers
            otherwise; nothing is written then.
    """
    from treetune.models.merge import merge_adapter

    folder = finished_folder(path)
    facts = read_facts(folder)
    merged = merge_adapter(folder.model, head=facts.get("head", "causal"), labels=facts["labels"],
                           load_in=facts.get("load_in", ""), revision=facts["fingerprint"]["revision"])
    merged.loaded.model.config.update(facts.get("settled", {}))
    merged.save(Path(target))
    return {"difference": merged.difference, "tolerance": merged.tolerance}
