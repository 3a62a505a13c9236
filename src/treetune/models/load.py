"""Bringing a model and its tokenizer into memory, safely: safetensors only, no remote code, nothing half-loaded."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer

import treetune.models.gpt3  # noqa: F401  (registers GPT-3 with the Auto classes)
from treetune.core.errors import ModelError
from treetune.core.seeds import seed_of
from treetune.models.adapters import ADAPTER_CONFIG, attach_adapter, base_of, refuse_other_base
from treetune.models.embedded import resolve
from treetune.models.family import ENCODER, ENCODERS, family_of, first_position, load_head
from treetune.models.hub import fetch
from treetune.models.meta import NothingDrawn

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
CODE_KEYS = ("auto_map", "custom_pipelines", "trust_remote_code", "use_kernels", "kernel_config")
BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32,
        "U16": 16, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
        "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
        "C64": 64}
MAX_HEADER_BYTES = 100_000_000
NO_LIMIT = 10**9
DEFAULT_WINDOW = 2048
DEFAULT_SOURCE_WINDOW = 512
NEW_WEIGHTS = (
    "classifier", "qa_outputs", "pooler", "pre_classifier", "score", "sequence_summary", "logits_proj", "head.",
)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready for use.

    Attributes:
        window: tokens a row may have. name: as the user gave it. head: see `treetune.models.family`.
        place: the folder that the weights (of the base, for an adapter) were read from.
        fresh: weights of the head that its files lack, which start random.
    """

    model: Any
    tokenizer: Any
    window: int
    name: str
    head: str = "causal"
    place: str = ""
    fresh: tuple[str, ...] = ()


def load_model(
    name: str, *, revision: str | None = None, random_init: bool = False, seed: int = 0, head: str = "causal",
    labels: Sequence[str] = (), load_in: str = "", adapter_name: str = "default", move: bool = True,
) -> LoadedModel:
    """Load by name: ``gpt3`` (shipped), ``minilm`` (an extra), a folder in Hugging Face layout, or a hub name.

    Args:
        random_init: keep the shape and the tokenizer, start from random weights seeded by ``seed``.
        head: what the model is to do, see `treetune.models.family`; a head that the weights lack starts random.
        labels: names of the classes, for the head that has them.
        load_in: ``8bit`` or ``4bit`` to hold the base that way, see `treetune.models.quantized`.
        adapter_name: what an adapter is called in memory. move: to the GPU, where there is one.

    Raises:
        ModelError: E3002 nothing there, E3003 pickle weights, E3004 remote code, E3005 broken files,
            E3006 not a causal language model, E3007 no usable tokenizer, E3009 weights are missing,
            E3016, E3017 no ``load_in`` here, E3018 not the base of this adapter.
    """
    held: dict[str, Any] = {}
    if load_in:
        from treetune.models.quantized import quantization_of

        held = {"quantization_config": quantization_of(load_in)}
    place, adapter = locate(name, revision)
    auto = getattr(transformers, load_head(head).AUTO_CLASS)
    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
        if head == "causal":
            refuse_encoder(config, name)
        tokenizer.model_max_length = NO_LIMIT  # too long rows are cut and counted by us
        name_labels(config, labels)
        torch.manual_seed(seed_of(seed, "init"))  # of all weights, or of a head that the weights lack
        fresh: tuple[str, ...] = ()
        if random_init:
            model = auto.from_config(config, trust_remote_code=False, dtype=torch.float32)
        else:
            with quiet_transformers(), NothingDrawn():
                model, found = auto.from_pretrained(
                    place, config=config, trust_remote_code=False, use_safetensors=True,
                    dtype=torch.float32, output_loading_info=True, **held,
                )
            refuse_missing(found, head, name)
            fresh = tuple(sorted(found["missing_keys"]))
    except ModelError:
        raise
    except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise _load_error(name, error) from error
    if adapter is not None:
        model = attach_adapter(model, adapter, adapter_name)
    refuse_useless(tokenizer, family_of(config.to_dict()), name)
    window = window_of(config)
    device = torch.device("cuda" if move and torch.cuda.is_available() else "cpu")
    return LoadedModel(model.to(device).eval(), tokenizer, window, name, head, place, fresh)


def name_labels(config: Any, labels: Sequence[str]) -> None:
    """Write the names of the classes into a configuration; their number is that of the head's outputs."""
    if labels:
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: number for number, label in enumerate(labels)}


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without transformers' bars and its table of new or left-over weights, which `refuse_missing` looks at instead."""
    before, bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)
        if bars:
            transformers.logging.enable_progress_bar()


def refuse_missing(found: dict[str, Any], head: str, name: str) -> None:
    """Weights that the files lack would stay random: only a fresh task head may.

    Raises:
        ModelError: E3009.
    """
    fresh = NEW_WEIGHTS if head in ("classes", "spans") else ()
    missing = sorted(key for key in found["missing_keys"] if not any(part in key for part in fresh))
    if missing:
        raise ModelError("E3009", "the files lack weights that the model needs", where=name,
                         found=", ".join(missing)[:200], do="choose a model that was saved with this head")


def locate(name: str, revision: str | None = None, *, weights: bool = True) -> tuple[str, Path | None]:
    """The folder of the base model, and the adapter's folder if ``name`` is one; all looked at first.

    Args:
        revision: of a hub model. weights: False where a hub model's configuration and tokenizer are enough.
    """
    place = local(name, revision, weights)
    folder = Path(place)
    adapter = folder if (folder / ADAPTER_CONFIG).is_file() else None
    if adapter is not None:
        refuse_unsafe(adapter, ADAPTER_CONFIG)
        base = base_of(folder)
        if not base:
            raise ModelError("E3005", "a file of the model is broken", where=str(folder / ADAPTER_CONFIG),
                             found="no base_model_name_or_path", do="fetch the model again")
        place = local(base, revision, weights)
        if weights:  # else some of the files may not have been fetched
            refuse_other_base(folder, Path(place))
    refuse_unsafe(Path(place))
    return place, adapter


def local(name: str, revision: str | None, weights: bool) -> str:
    """The folder behind a short name, a path, or a hub name (fetched where it is not cached).

    Raises:
        ModelError: E3002 no such folder; for hub names see `treetune.models.hub.fetch`.
    """
    place = str(resolve(name))
    if Path(place).is_dir():
        return place
    if Path(place).exists() or name.startswith((".", "/", "~")):
        raise ModelError("E3002", "there is no model folder", where=name, allowed="a folder with config.json",
                         do="check the path")
    return str(fetch(name, revision, weights=weights))


def load_tokenizer(name: str, *, revision: str | None = None) -> tuple[Any, int]:
    """The tokenizer alone and the model's window in tokens; errors as in `load_model`."""
    place, _ = locate(name, revision, weights=False)
    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise _load_error(name, error) from error
    tokenizer.model_max_length = NO_LIMIT
    refuse_useless(tokenizer, family_of(config.to_dict()), name)
    return tokenizer, window_of(config)


def refuse_encoder(config: Any, name: str) -> None:
    """An encoder sees what comes later: trained as a decoder it would read the answers from its input.

    Raises:
        ModelError: E3006.
    """
    if config.model_type in ENCODERS and not getattr(config, "is_decoder", False):
        raise ModelError("E3006", "the model is not a causal language model", where=name, found=config.model_type,
                         allowed="GPT-3, GPT-2, Llama, Qwen3, GPT-NeoX and others of AutoModelForCausalLM",
                         do="choose a decoder model")


def window_of(config: Any) -> int:
    """Tokens a row may have."""
    if not getattr(config, "max_position_embeddings", 0):
        return DEFAULT_SOURCE_WINDOW if config.is_encoder_decoder else DEFAULT_WINDOW
    first = first_position(config.model_type, getattr(config, "pad_token_id", None))
    return int(config.max_position_embeddings) - first


def refuse_useless(tokenizer: Any, family: str, name: str) -> None:
    """A tokenizer without end-of-text could never teach a model to stop; an encoder's must pad and give offsets.

    Raises:
        ModelError: E3007.
    """
    if family == ENCODER and (tokenizer.pad_token_id is None or not tokenizer.is_fast):
        raise ModelError("E3007", "the tokenizer cannot pad, or gives no character offsets", where=name,
                         found=type(tokenizer).__name__, allowed="a fast tokenizer with a padding token",
                         do="choose a model with a tokenizer.json")
    if family != ENCODER and tokenizer.eos_token_id is None:
        raise ModelError("E3007", "the tokenizer has no end-of-text token", where=name,
                         do="set eos_token in its tokenizer_config.json")


def refuse_unsafe(folder: Path, main: str = "config.json") -> None:
    """Look at a model folder before any loader does.

    Raises:
        ModelError: E3002 no config, E3003 only pickle weights, E3004 asks for code, E3005 broken files.
    """
    if not (folder / main).is_file():
        raise ModelError("E3002", "there is no model in the folder", where=str(folder), found=f"no {main}",
                         allowed="a folder in Hugging Face layout", do="check the path")
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if path.name in (main, "tokenizer_config.json") and not isinstance(content, dict):
                raise ValueError(f"{type(content).__name__}, not an object")
        except (ValueError, OSError, RecursionError) as error:
            raise ModelError("E3005", "a file of the model is broken", where=str(path), found=str(error),
                             do="fetch the model again") from error
        refuse_code(content, path)
    weights = sorted(folder.glob("*.safetensors"))
    pickles = [path.name for path in sorted(folder.iterdir()) if path.suffix in PICKLE_SUFFIXES]
    if not weights and pickles:
        raise ModelError("E3003", "the weights are pickle files, which can run code when loaded",
                         where=str(folder), found=", ".join(pickles), allowed="*.safetensors",
                         do="convert them to safetensors where you trust the source, then load the folder")
    for path in weights:
        check_header(path)
    for path in folder.glob("*.safetensors.index.json"):
        refuse_paths(json.loads(path.read_text(encoding="utf-8")), path)


def refuse_paths(index: Any, path: Path) -> None:
    """An index of weights may name files beside it only: no other folder, and no link out of this one.

    Raises:
        ModelError: E3005.
    """
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict):
        raise ModelError("E3005", "a file of the model is broken", where=str(path), found="no weight_map",
                         do="fetch the model again")
    for name in {str(shard) for shard in shards.values()}:
        if "/" in name or "\\" in name or "\0" in name or not name.endswith(".safetensors"):
            raise ModelError("E3005", "a file of the model is broken", where=f"{path}: weight_map", found=name[:200],
                             allowed="names of .safetensors files in the same folder", do="fetch the model again")


def refuse_code(content: Any, path: Path) -> None:
    """Refuse a configuration that names code to fetch or kernels by repository."""
    if isinstance(content, list):
        for value in content:
            refuse_code(value, path)
    if not isinstance(content, dict):
        return
    for key, value in content.items():
        kernel = key.endswith(("_implementation", "_implementation_internal")) and "/" in str(value)
        if (key in CODE_KEYS and value) or kernel:
            raise ModelError("E3004", "the model asks to run code of its own", where=f"{path}: {key}",
                             found=repr(value)[:200], allowed="model types that transformers itself knows",
                             do="choose a model that needs no remote code; treetune never runs it")
        refuse_code(value, path)


def check_header(path: Path) -> None:
    """A safetensors header must be sane and agree with the file's size before anything maps it."""
    size = path.stat().st_size
    try:
        with open(path, "rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            if length > min(size - 8, MAX_HEADER_BYTES):
                raise ValueError(f"its header says {length} bytes, the file has {size}")
            header = json.loads(handle.read(length))
        check_tensors({name: entry for name, entry in header.items() if name != "__metadata__"}, size - 8 - length)
    except (ValueError, struct.error, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ModelError("E3005", "a file of the model is broken", where=str(path), found=str(error),
                         do="fetch the model again") from error


def check_tensors(entries: dict[str, Any], size: int) -> None:
    """Tensors lie one behind the other without gap or overlap, each as long as its type and shape say.

    Raises:
        ValueError, TypeError, KeyError: they do not.
    """
    place = 0
    for name, entry in sorted(entries.items(), key=lambda item: tuple(item[1]["data_offsets"][:2])):
        start, end = entry["data_offsets"]
        numbers = [*entry["shape"], start, end]
        if any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError(f"{name[:80]}: sizes that are no sizes")
        if start != place or (end - start) * 8 != math.prod(entry["shape"]) * BITS[entry["dtype"]]:
            raise ValueError(f"{name[:80]}: bytes {start} to {end} are not where or as long as they must be")
        place = end
    if place != size:
        raise ValueError(f"{place} bytes announced, {size} there")


def _load_error(name: str, error: Exception) -> ModelError:
    text = " ".join(str(error).split())[:300]
    if "Unrecognized configuration class" in text:
        return ModelError("E3006", "the model is not a causal language model", where=name, found=text,
                          allowed="GPT-3, GPT-2, Llama, Qwen3, GPT-NeoX and others of AutoModelForCausalLM",
                          do="choose a decoder model")
    return ModelError("E3005", "a file of the model is broken", where=name, found=text, do="fetch the model again")
