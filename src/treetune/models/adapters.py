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

from treetune.core.errors import ModelError, UsageError
from treetune.core.files import model_digest, write_json
from treetune.core.settings import TuneSettings
from treetune.models.embedded import resolve

ADAPTER_CONFIG = "adapter_config.json"
BASE_FILE = "base.json"
WHOLE_HEADS = ("SEQ_CLS", "QUESTION_ANS")
"""What peft calls the tasks whose head is small, no language, and trained whole beside the adapters."""


def refuse_combination(settings: TuneSettings) -> None:
    """Settings that contradict one another, found before anything is loaded.

    Raises:
        UsageError: E2007 two that exclude each other, E2008 one that needs another.
        ModelError: E3020 the base is an adapter itself.
    """
    given = {"lora_r": settings.lora_r, "freeze_layers": settings.freeze_layers, "freeze_base": settings.freeze_base,
             "random_init": settings.random_init, "use_dora": settings.use_dora, "use_rslora": settings.use_rslora,
             "load_in": settings.load_in, "fsdp": settings.fsdp}
    apart = (("lora_r", "freeze_layers"), ("lora_r", "freeze_base"), ("freeze_layers", "freeze_base"),
             ("fsdp", "load_in"), ("lora_r", "random_init"))  # of random weights under adapters nothing would be saved
    for one, other in apart:
        if given[one] and given[other]:
            raise UsageError("E2007", "{one} and {other} exclude each other", one=flag_of(one), other=flag_of(other),
                             where=settings.output_dir, do="leave one of them out")
    for name in ("use_dora", "use_rslora", "load_in"):
        if given[name] and not settings.lora_r:
            raise UsageError("E2008", "{one} needs {other}", one=flag_of(name), other="--lora-r",
                             where=settings.output_dir, do="add --lora-r, e.g. --lora-r 8")
    if (Path(str(resolve(settings.model))) / ADAPTER_CONFIG).is_file():
        raise ModelError("E3020", "the base model is itself an adapter", where=settings.model,
                         found=ADAPTER_CONFIG, do="merge it into its base first, then tune the merged model")


def flag_of(name: str) -> str:
    """``lora_r`` as it stands on the command line."""
    return "--" + name.replace("_", "-")


def adapt(model: Any, settings: TuneSettings, task: str, fresh: Sequence[str] = ()) -> Any:
    """The model with the part to train that the settings ask for: adapters, later layers, the head, or all of it.

    Args:
        task: what peft calls the head. fresh: weights that the base's files lack.
    """
    if settings.lora_r:
        return add_lora(model, settings.lora_r, settings.lora_alpha, settings.lora_dropout, task,
                        dora=settings.use_dora, rank_stabilised=settings.use_rslora, fresh=fresh)
    if settings.freeze_layers or settings.freeze_base:
        from treetune.models.freeze import freeze_base, freeze_layers

        if settings.freeze_base:
            freeze_base(model, tuple(fresh))
        else:
            freeze_layers(model, settings.freeze_layers)
    return model


def add_lora(
    model: Any, rank: int, alpha: int, dropout: float, task: str = "CAUSAL_LM", *, dora: bool = False,
    rank_stabilised: bool = False, fresh: Sequence[str] = (),
) -> Any:
    """The model with fresh adapters on all its linear layers but the head; only they and `head_modules` are trainable.

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
                        modules_to_save=sorted({*fresh_modules(model, fresh), *head_modules(model, task)}) or None)
    with quiet_peft():
        return get_peft_model(model, config)


def head_modules(model: Any, task: str) -> list[str]:
    """The linear layers right at the top of a model that gives labels or spans, by name: its head.

    They are trained and saved whole, so no adapter may go onto them. peft 0.21 keeps that rule for label heads by
    name, but notes a span head as saved whole only after it has adapted it, and then fails on its own adapter.
    """
    if task not in WHOLE_HEADS:
        return []
    from torch import nn

    return [name for name, module in model.named_children() if type(module) is nn.Linear]


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


def save_adapter(model: Any, name: str, place: str, folder: Path) -> None:
    """Write the adapter with the base's name and digest beside it.

    Short names and hub names stay as they are; a folder is named by the way to it from ``folder``, so that both can
    be moved together, and be on another machine.

    Args:
        model: with adapters. name: as the user gave it. place: the folder it was loaded from.
    """
    shown = os.path.relpath(Path(name).resolve(), folder.resolve()) if Path(name).is_dir() else name
    model.peft_config["default"].base_model_name_or_path = shown
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's own card shows the machine's paths
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
