"""Low-rank adapters through peft. Source: Hu et al. 2022 (arXiv 2106.09685)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from treetune.core.errors import ModelError

ADAPTER_CONFIG = "adapter_config.json"


def add_lora(model: Any, rank: int, alpha: int, dropout: float, task: str = "CAUSAL_LM") -> Any:
    """The model with fresh LoRA adapters on all its linear layers but the head; only they are trainable."""
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    transposed = any(isinstance(module, Conv1D) for module in model.modules())  # GPT-2 keeps its matrices that way
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules="all-linear",
                        task_type=task, fan_in_fan_out=transposed)
    with quiet_peft():
        return get_peft_model(model, config)


@contextmanager
def quiet_peft() -> Iterator[None]:
    """peft 0.21 asks transformers 5.23 for a name it is about to lose; nothing a user can do about."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        yield


def attach_adapter(model: Any, folder: Path) -> Any:
    """The model with the adapter saved in ``folder``.

    Raises:
        ModelError: E3008 the adapter does not fit.
    """
    from peft import PeftModel

    try:
        with quiet_peft():
            return PeftModel.from_pretrained(model, str(folder))
    except (ValueError, RuntimeError, OSError) as error:
        raise ModelError("E3008", "the adapter does not fit its base model", where=str(folder),
                         found=" ".join(str(error).split())[:300], do="name the base it was trained on") from error
