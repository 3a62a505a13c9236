"""Bases held in 8 or 4 bits through bitsandbytes, on a GPU or on a processor; adapters train on top of them.

4 bits: NormalFloat (Dettmers et al. 2023, arXiv 2305.14314), computed in float32 on a processor and in bfloat16 on a
GPU. 8 bits: each token's states and each weight's rows scaled by their largest value (Dettmers et al. 2022, arXiv
2208.07339) without that paper's outlier columns: which columns those are depends on all tokens of a pass, so a row
would get other numbers in other company, and neither padding nor a token tree would be exact.
"""

from __future__ import annotations

import logging
import warnings
from importlib.util import find_spec
from typing import Any

import torch

from treetune.core.errors import ModelError

BITS = ("8bit", "4bit")


def quantization_of(bits: str) -> Any:
    """What transformers is told to load a base in ``8bit`` or ``4bit``.

    Raises:
        ModelError: E3016 the extra is not installed, E3017 the device cannot do it. Nothing has been loaded then.
    """
    missing = [name for name in ("bitsandbytes", "accelerate") if find_spec(name) is None]
    if missing:
        raise ModelError("E3016", "8-bit and 4-bit bases come with an extra that is not installed", where="--load-in",
                         found="no " + ", ".join(missing), do="pip install 'treetune[quantized]'")
    from transformers import BitsAndBytesConfig

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    refuse_device(bits, device)
    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    inner = torch.bfloat16 if device.type == "cuda" else torch.float32
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=inner)


def refuse_device(bits: str, device: torch.device) -> None:
    """Ask the device to hold one small matrix that way.

    Raises:
        ModelError: E3017.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # else a line for every 8-bit product about its inputs
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning)  # it scripts a part of itself
            import bitsandbytes
            from bitsandbytes import functional

        matrix = torch.eye(64, device=device)
        if bits == "8bit":
            layer = bitsandbytes.nn.Linear8bitLt(64, 64, bias=False, has_fp16_weights=False).to(device)
            found = layer(matrix)
        else:
            found = functional.dequantize_4bit(*functional.quantize_4bit(matrix, quant_type="nf4"))
        if not bool(found.isfinite().all()):
            raise RuntimeError("not finite")
    except (ImportError, RuntimeError, NotImplementedError, ValueError, AttributeError, OSError) as error:
        raise ModelError(
            "E3017", "{bits} bases do not work on this device", bits=bits, where="--load-in", found=str(error)[:200],
            allowed="an NVIDIA GPU, or a processor with bitsandbytes 0.49 or newer", do="leave out --load-in",
        ) from error
