"""A finished run, ready to answer: its model, its task, and the settings that must stay as they were."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from treetune.core.errors import UsageError
from treetune.core.files import RunFolder, disk_error, read_json, sync_files, write_json
from treetune.core.lock import refuse_lost
from treetune.models.adapters import ADAPTER_CONFIG, save_adapter
from treetune.tasks.contract import Task, TaskOptions, load_task

if TYPE_CHECKING:
    from treetune.models.load import LoadedModel
    from treetune.predict.engines.contract import Decoding


@dataclass(frozen=True, slots=True)
class Run:
    """A tuned model with everything its prompts and answers depend on."""

    folder: RunFolder
    loaded: LoadedModel
    task: Task
    options: TaskOptions
    facts: dict[str, Any]

    @property
    def max_length(self) -> int:
        return int(self.facts["max_length"])

    @property
    def max_new_tokens(self) -> int:
        return int(self.facts["max_new_tokens"])

    @property
    def no_repeat_ngram_size(self) -> int:
        return int(self.facts.get("no_repeat_ngram_size", 0))

    @property
    def answers_from(self) -> str:
        return str(self.facts.get("answers_from", "anything"))  # what runs did before they could do otherwise

    @property
    def layout(self) -> str:
        return str(self.facts["layout"])


def decoding_of(run: Run) -> Decoding:
    """How the run answers."""
    from treetune.predict.engines.contract import Decoding

    return Decoding(run.max_length, run.max_new_tokens, run.layout, run.answers_from, run.no_repeat_ngram_size)


def save_model(folder: RunFolder, model: Any, tokenizer: Any, base: str = "", place: str = "") -> None:
    """The model and its tokenizer in Hugging Face layout.

    Args:
        base: of adapters, the model they sit on as the user named it. place: the folder it was read from.

    Raises:
        RunError: E5001 no space, E5002 no permission, E5003 other failure of the disk, E5012 another process took the
            run over.
    """
    from treetune.models.load import quiet_transformers

    refuse_lost(folder.root)
    try:
        with quiet_transformers():
            if base:
                save_adapter(model, base, place, folder.model)
            else:
                model.save_pretrained(folder.model)
        tokenizer.save_pretrained(folder.model)
        sync_files(folder.model)
    except OSError as error:
        raise disk_error(error, folder.model) from error
    except SafetensorError as error:  # safetensors gives the system's number in its text only
        number = re.search(r"os error (\d+)", str(error))
        raise disk_error(OSError(int(number[1]) if number else 0, str(error)), folder.model) from error


def save_facts(folder: RunFolder, facts: dict[str, Any]) -> None:
    """Written last: a model folder without it is not a finished run."""
    write_json(folder.model / "treetune.json", facts)


def open_run(path: str | Path) -> Run:
    """Load a finished run.

    Raises:
        UsageError: E2030 no such run, E2031 its training is not finished.
    """
    run = unloaded_run(path)
    return replace(run, loaded=load_run_model(run.folder, run.facts))


def unloaded_run(path: str | Path) -> Run:
    """A finished run without its model, for who only reads rows and decides; errors as `open_run`."""
    folder = finished_folder(path)
    facts = read_facts(folder)
    nothing: Any = None
    return Run(folder, nothing, load_task(facts["task"]), options_of(facts), facts)


def facts_of_options(options: TaskOptions) -> dict[str, Any]:
    """What is written down of a run's options; an instruction only where there is one, as in runs of before."""
    more = {"instruction": options.instruction} if options.instruction else {}
    return {"labels": list(options.labels), "prompt_language": options.prompt_language, **more}


def options_of(facts: Mapping[str, Any]) -> TaskOptions:
    """The options a run was tuned with."""
    return TaskOptions(tuple(facts["labels"]), facts["prompt_language"], facts.get("instruction", ""))


def read_facts(folder: RunFolder) -> dict[str, Any]:
    """What was written down when the run was finished."""
    return dict(read_json(folder.model / "treetune.json"))


def finished_folder(path: str | Path) -> RunFolder:
    """The folder of a finished run.

    Raises:
        UsageError: E2030 no such run, E2031 its training is not finished.
    """
    folder = RunFolder(Path(path))
    if not folder.root.is_dir():
        siblings = [each.name for each in folder.root.parent.glob("*") if each.is_dir()]
        near = difflib.get_close_matches(folder.root.name, siblings, n=1)
        raise UsageError("E2030", "there is no run {name!r}", name=str(path), found=str(path),
                         allowed=near[0] if near else "a folder that treetune tune wrote", do="check the path")
    if not folder.is_complete():
        raise UsageError("E2031", "the run {name!r} is not finished", name=str(path), where=str(path),
                         do="run its treetune tune command again to finish it")
    return folder


def load_run_model(folder: RunFolder, facts: dict[str, Any], adapter: str = "default") -> LoadedModel:
    """The run's model; adapters go onto the base they were trained on: its revision, or its random weights.

    Args:
        adapter: the name to give its adapter, see `treetune.workflow.shared_base`.
    """
    from treetune.models.load import load_model

    head, labels = facts.get("head", "causal"), facts["labels"]
    if not (folder.model / ADAPTER_CONFIG).is_file():
        return ready(load_model(str(folder.model), head=head, labels=labels), facts)
    loaded = load_model(str(folder.model), revision=facts["fingerprint"]["revision"],
                        random_init=facts["random_init"], seed=facts["seed"], head=head, labels=labels,
                        load_in=facts.get("load_in", ""), adapter_name=adapter)
    return ready(loaded, facts)


def ready(loaded: LoadedModel, facts: dict[str, Any]) -> LoadedModel:
    """A model of the run's kind, set up for the engine that was proved exact before its training."""
    from treetune.models.engine import Engine, set_up

    set_up(loaded.model, Engine(**facts.get("engine", {})))
    loaded.model.config.update(facts.get("settled", {}))
    return loaded
