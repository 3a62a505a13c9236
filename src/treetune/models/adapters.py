"""Low-rank adapters through peft: LoRA (Hu et al. 2022, arXiv 2106.09685), DoRA (Liu et al. 2024, arXiv 2402.09353),
rank-stabilised LoRA (Kalajdzievski 2023, arXiv 2312.03732). And the base they sit on, named so that folders may move.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from treetune.core.errors import ModelError
from treetune.core.files import model_digest, write_json

ADAPTER_CONFIG = "adapter_config.json"
BASE_FILE = "base.json"


def add_lora(
    model: Any, rank: int, alpha: int, dropout: float, task: str = "CAUSAL_LM", *, dora: bool = False,
    rank_stabilised: bool = False, fresh: Sequence[str] = (),
) -> Any:
    """The model with fresh adapters on all its linear layers but the head; only they are trainable.

    Args:
        dora: learn the size of each weight's columns beside its direction. rank_stabilised: scale by the root of the
            rank. fresh: weights that the base's files lack; their modules are trained and saved whole, because
            nothing could bring them back.
    """
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    transposed = any(isinstance(module, Conv1D) for module in model.modules())  # GPT-2 keeps its matrices that way
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules="all-linear",
                        task_type=task, fan_in_fan_out=transposed, use_dora=dora, use_rslora=rank_stabilised,
                        modules_to_save=fresh_modules(model, fresh) or None)
    with quiet_peft():
        return get_peft_model(model, config)


def fresh_modules(model: Any, fresh: Sequence[str]) -> list[str]:
    """The outermost modules all of whose weights are ``fresh``, by name."""
    weights, found = set(fresh), set[str]()
    for name, module in model.named_modules():
        own = {f"{name}.{each}" for each, _ in module.named_parameters()}
        if name and own and own <= weights and not any(name.startswith(f"{each}.") for each in found):
            found.add(name)
    return sorted(found)


@contextmanager
def quiet_peft() -> Iterator[None]:
    """peft 0.21 asks transformers 5.23 for a name it is about to lose; nothing a user can do about."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        yield


def attach_adapter(model: Any, folder: Path, name: str = "default") -> Any:
    """The model with the adapter saved in ``folder``.

    Raises:
        ModelError: E3008 the adapter does not fit.
    """
    from peft import PeftModel

    try:
        with quiet_peft():
            return PeftModel.from_pretrained(model, str(folder), adapter_name=name)
    except (ValueError, RuntimeError, OSError) as error:
        raise ModelError("E3008", "the adapter does not fit its base model", where=str(folder),
                         found=" ".join(str(error).split())[:300], do="name the base it was trained on") from error


def name_base(model: Any, name: str, place: str, folder: Path) -> None:
    """Write the base's name and digest beside an adapter that is about to be saved in ``folder``.

    Short names and hub names stay as they are; a folder is named by the way to it from ``folder``, so that both can
    be moved together, and be on another machine.

    Args:
        model: with adapters. name: as the user gave it. place: the folder it was loaded from.
    """
    shown = os.path.relpath(Path(name).resolve(), folder.resolve()) if Path(name).is_dir() else name
    model.peft_config["default"].base_model_name_or_path = shown
    write_json(folder / BASE_FILE, {"name": shown, "digest": model_digest(Path(place))})


def base_of(folder: Path) -> str:
    """The name of the base of the adapter in ``folder``, as `treetune.models.load` takes it; "" when none is named."""
    try:
        name = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        return ""
    if not isinstance(name, str) or not name:
        return ""
    beside = folder / name
    return str(beside.resolve()) if beside.is_dir() else name


def refuse_other_base(folder: Path, place: Path) -> None:
    """An adapter means nothing on weights it was not trained on.

    Raises:
        ModelError: E3018 the files of the base are not those the adapter was trained on.
    """
    if not (folder / BASE_FILE).is_file():  # written by another tool, or an older version
        return
    try:
        noted = str(json.loads((folder / BASE_FILE).read_text(encoding="utf-8"))["digest"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError("E3005", "a file of the model is broken", where=str(folder / BASE_FILE), found=str(error),
                         do="fetch the model again") from error
    now = model_digest(place)
    if noted != now:
        raise ModelError(
            "E3018", "the base model is not the one the adapter was trained on", where=str(place), found=now[:16],
            allowed=noted[:16], do="write the right folder into base_model_name_or_path of adapter_config.json; its "
            "files are compared with those of the training",
        )
