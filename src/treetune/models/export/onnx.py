"""ONNX: encoders with a label head, for onnxruntime and whatever else reads it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoTokenizer
from transformers.modeling_outputs import SequenceClassifierOutput

from treetune.core.errors import ModelError
from treetune.models.encoder import CANNOT
from treetune.models.export.plain import save_tokenizer
from treetune.models.load import NO_LIMIT, LoadedModel

PACKAGES = ("onnx", "onnxruntime")
PRECISIONS = ("float32",)
OPSET = 17
FILE = "model.onnx"
ONE, TWO = "a short text", "a text that is somewhat longer than the other"


class Positional(nn.Module):
    """The model with its inputs in an order that a graph can name."""

    def __init__(self, model: Any, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *given: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(**dict(zip(self.names, given, strict=True))).logits
        return logits


def write(loaded: LoadedModel, window: int, precision: str, folder: Path) -> dict[str, Any]:
    """Trace the label head into ``model.onnx``; tokenizer and configuration lie beside it.

    Raises:
        ModelError: E2806 the tracer cannot follow the model.
    """
    folder.mkdir(parents=True)
    model = loaded.model.cpu().eval()
    encoded = loaded.tokenizer([ONE, TWO], padding=True, return_tensors="pt")
    names = tuple(name for name in ("input_ids", "attention_mask", "token_type_ids") if name in encoded)
    axes = {name: {0: "rows", 1: "tokens"} for name in names} | {"logits": {0: "rows"}}
    try:
        model.set_attn_implementation("eager")  # the fused kernels' masks are built by code no tracer can follow
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the tracer warns of every shape it reads; the rows are run below
            torch.onnx.export(
                Positional(model, names).eval(), tuple(encoded[name] for name in names), str(folder / FILE),
                input_names=list(names), output_names=["logits"], dynamic_axes=axes, opset_version=OPSET, dynamo=False)
    except CANNOT as error:
        raise ModelError("E2806", "the converter of {form} cannot take this model", form="ONNX", where=loaded.name,
                         found=" ".join(str(error).split())[:300],
                         do="choose another form, e.g. --to safetensors") from error
    save_tokenizer(loaded.tokenizer, window, folder)
    model.config.save_pretrained(folder)
    return {"opset": OPSET, "inputs": list(names)}


class OnnxModel(nn.Module):
    """What onnxruntime says, in the clothes of a torch module."""

    def __init__(self, config: Any, session: Any) -> None:
        super().__init__()
        self.config, self.session = config, session
        self.device = torch.device("cpu")

    def forward(self, **given: torch.Tensor) -> SequenceClassifierOutput:
        [logits] = self.session.run(None, {name: tensor.numpy() for name, tensor in given.items()})
        return SequenceClassifierOutput(logits=torch.from_numpy(logits))


def read(folder: Path, loaded: LoadedModel, precision: str) -> LoadedModel:
    """The exported form, ready to answer the same rows."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(folder / FILE), options, providers=["CPUExecutionProvider"])
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    window = int(tokenizer.model_max_length)
    tokenizer.model_max_length = NO_LIMIT
    model = OnnxModel(AutoConfig.from_pretrained(folder), session).eval()
    return LoadedModel(model, tokenizer, window, loaded.name, loaded.head)
