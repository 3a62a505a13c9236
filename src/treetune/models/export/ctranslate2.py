"""CTranslate2: decoders for fast answers on a processor, in float32 or with weights of 8 bits."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoTokenizer

from treetune.core.errors import ModelError
from treetune.models.export.cacheless import CachelessModel
from treetune.models.export.plain import (
    is_gpt3,
    name_known_tokenizer,
    plain_model,
    refuse_banded,
    save_plain,
    save_tokenizer,
)
from treetune.models.load import NO_LIMIT, LoadedModel, quiet_transformers

PACKAGES = ("ctranslate2",)
PRECISIONS = ("float32", "int8")
ASIDE = "transformers"
FAILURES = (ValueError, KeyError, RuntimeError, NotImplementedError, AttributeError, TypeError)


def write(loaded: LoadedModel, window: int, precision: str, folder: Path) -> dict[str, Any]:
    """Convert into ``folder``; the tokenizer and the model's configuration lie beside it.

    Raises:
        ModelError: E2803 banded layers, E2806 the converter does not know the model.
    """
    from ctranslate2.converters import TransformersConverter

    if is_gpt3(loaded.model):
        refuse_banded(loaded.model.config, window, "CTranslate2")
    aside = folder.with_name(f"{folder.name}-{ASIDE}")
    try:
        model = plain_model(loaded.model, window)
        save_plain(model, loaded.tokenizer, window, aside)
        name_all_ids(aside, int(model.config.vocab_size))
        with quiet_transformers():
            TransformersConverter(str(aside)).convert(str(folder), quantization=None if precision == "float32"
                                                      else precision, force=True)
        (folder / ASIDE).mkdir()
        shutil.copy2(aside / "config.json", folder / ASIDE / "config.json")
    except FAILURES as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError("E2806", "the converter of {form} cannot take this model", form="CTranslate2",
                         where=loaded.name, found=" ".join(str(error).split())[:300],
                         do="choose another form, e.g. --to safetensors") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    save_tokenizer(loaded.tokenizer, window, folder)
    name_known_tokenizer(folder)
    return {"compute_type": precision}


def name_all_ids(folder: Path, vocabulary: int) -> None:
    """Give the tokenizer in ``folder`` a token for each of the model's ``vocabulary`` ids.

    The converter asks for as many tokens as the matrices have rows; many models have more, for the hardware.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if len(tokenizer) < vocabulary:
        tokenizer.add_tokens([f"[PAD{number}]" for number in range(len(tokenizer), vocabulary)])
        tokenizer.save_pretrained(folder)


def read(folder: Path, loaded: LoadedModel, precision: str) -> LoadedModel:
    """The exported form, ready to answer the same rows.

    Args:
        loaded: what it was made from, for its name.
    """
    import ctranslate2

    generator = ctranslate2.Generator(str(folder), device="cpu", compute_type=precision,
                                      intra_threads=torch.get_num_threads())
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False,
                                              config=AutoConfig.from_pretrained(folder / ASIDE))
    window = int(tokenizer.model_max_length)
    tokenizer.model_max_length = NO_LIMIT

    def logits(rows: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        found = np.array(generator.forward_batch([list(row) for row in rows]), dtype=np.float32)
        return [values[: len(row)] for row, values in zip(rows, found, strict=True)]

    model = CachelessModel(AutoConfig.from_pretrained(folder / ASIDE), logits)
    return LoadedModel(model.eval(), tokenizer, window, loaded.name, loaded.head)
