"""The folder of a pretraining: whose it is, and in which type its weights are kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from treetune.core.errors import RunError
from treetune.core.files import RunFolder, model_digest, read_json, value_digest, write_json
from treetune.core.settings import PretrainSettings

if TYPE_CHECKING:
    import torch

    from treetune.models.load import LoadedModel

RECORD = "pretraining.json"
MAY_DIFFER = {"output_dir", "data_root", "on_bad_loss", "bad_loss_factor", "max_memory_gb", "report_to"}


def fingerprint_of(settings: PretrainSettings, start: LoadedModel | None) -> dict[str, Any]:
    """What must be the same for a run to be resumed; a model that is gone on from by what its files hold."""
    if start is None:
        return {"settings": value_digest(settings.model_dump(exclude=MAY_DIFFER | {"init_from"}))}
    return {"settings": value_digest(settings.model_dump(exclude=MAY_DIFFER)), "from": model_digest(Path(start.place))}


def kept_type(start: LoadedModel | None) -> torch.dtype:
    """The type the weights are saved in: that of the model gone on from, bfloat16 for a new one."""
    import torch
    from transformers import AutoConfig

    own = AutoConfig.from_pretrained(start.place).dtype if start else torch.bfloat16
    return own if isinstance(own, torch.dtype) else torch.float32


def refuse_other_run(folder: RunFolder, fingerprint: dict[str, Any]) -> None:
    """A folder that holds a run with other settings is not resumed.

    Raises:
        RunError: E5010.
    """
    mark = folder.root / "fingerprint.json"
    if mark.exists() and read_json(mark) != fingerprint:
        raise RunError("E5010", "the folder holds a run with other settings", where=str(folder.root),
                       do="choose another --output-dir, or give the settings of that run to resume it")
    write_json(mark, fingerprint)


def stages_before(start: LoadedModel | None) -> list[dict[str, Any]]:
    """What the model that is gone on from was pretrained on, oldest first, where its folder or run says so.

    Returns:
        ``tokens_seen``, ``seconds`` and ``training_tokens_by_source`` of each stage.
    """
    places = [Path(start.place), Path(start.place).parent] if start else []
    for place in places:
        if (place / RECORD).is_file():
            known = read_json(place / RECORD)
            own = {name: known[name] for name in ("tokens_seen", "seconds", "training_tokens_by_source")}
            return [*known.get("stages_before", []), own]
    return []
