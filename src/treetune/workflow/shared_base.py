"""Several tuned adapters on one base in memory: which one answers is chosen call by call."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from treetune.core.errors import UsageError
from treetune.core.files import RunFolder, read_json
from treetune.models.adapters import ADAPTER_CONFIG, BASE_FILE, base_of
from treetune.tasks.contract import load_task
from treetune.workflow.run import Run, finished_folder, load_run_model, options_of, read_facts, ready


class SharedBase:
    """Runs that were tuned with adapters on the same base, which is held once.

    Attributes:
        model: the base with all adapters. runs: by name; answer with one only inside `using`.
    """

    def __init__(self, model: Any, runs: Mapping[str, Run]) -> None:
        self.model = model
        self.runs = dict(runs)
        self._turn = threading.RLock()

    @contextmanager
    def using(self, name: str) -> Iterator[Run]:
        """The run of that name, its adapter switched on; other threads wait their turn."""
        from treetune.models.load import name_labels

        run = self.runs[name]
        with self._turn:
            self.model.set_adapter(name)
            self.model.requires_grad_(False)  # switching on is meant for training
            name_labels(self.model.config, run.options.labels)
            ready(run.loaded, run.facts)
            yield run


def open_shared(paths: Mapping[str, str | Path]) -> SharedBase:
    """Load the base once and every run's adapter onto it.

    Args:
        paths: name -> run folder.

    Raises:
        UsageError: E2030, E2031 as `open_run`; E2032 runs that cannot share a base, and in what they differ.
    """
    folders = {name: finished_folder(path) for name, path in paths.items()}
    facts = {name: read_facts(folder) for name, folder in folders.items()}
    refuse_apart({name: what_is_shared(folders[name], facts[name]) for name in folders})
    first, *others = folders
    loaded = load_run_model(folders[first], facts[first], adapter=first)
    for name in others:
        loaded.model.load_adapter(str(folders[name].model), adapter_name=name, is_trainable=False)
    runs = {
        name: Run(folder, replace(loaded, name=str(folder.model)), load_task(facts[name]["task"]),
                  options_of(facts[name]), facts[name])
        for name, folder in folders.items()
    }
    return SharedBase(loaded.model.eval(), runs)


def what_is_shared(folder: RunFolder, facts: Mapping[str, Any]) -> dict[str, Any]:
    """All that must be equal of two runs for their adapters to sit on one model."""
    if not (folder.model / ADAPTER_CONFIG).is_file():
        raise UsageError("E2032", "the runs cannot share a base model", where=str(folder.root),
                         found="no adapter", do="share runs that were tuned with --lora-r on the same base")
    noted = folder.model / BASE_FILE
    return {
        "base model": read_json(noted)["digest"] if noted.is_file() else base_of(folder.model),
        "head": facts.get("head", "causal"), "number of labels": len(facts["labels"]) if facts.get("head") == "classes"
        else 0, "load_in": facts.get("load_in", ""),
    }


def refuse_apart(shared: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises:
    UsageError: E2032 names the first run that differs from the first one, and in what.
    """
    (first, wanted), *others = shared.items()
    for name, own in others:
        for key in wanted:
            if own[key] != wanted[key]:
                raise UsageError("E2032", "the runs cannot share a base model", where=f"{name}: {key}",
                                 found=str(own[key])[:40], allowed=f"{first}: {str(wanted[key])[:40]}",
                                 do="share runs that were tuned with --lora-r on the same base")
