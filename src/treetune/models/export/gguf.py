"""GGUF for llama.cpp and its kin, with a Modelfile: GPT-2- and Llama-type decoders in float32.

No engine that reads GGUF is a dependency of treetune. What is proved here is that every tensor comes back bit by bit
under the names of the `gguf` package, and that transformers' own reader of GGUF makes a model of it that answers as
the run does. llama.cpp's arithmetic and its splitting of text into tokens are not run.

Layouts: llama.cpp's ``convert_hf_to_gguf.py``, which transposes GPT-2's matrices and interleaves the halves of each
head of Llama's queries and keys for its rotary embedding.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

from treetune.core.errors import ModelError
from treetune.core.files import write_text
from treetune.models.export.plain import is_gpt3, plain_model, refuse_banded
from treetune.models.load import LoadedModel, quiet_transformers
from treetune.models.tokens import start_ids

PACKAGES = ("gguf",)
PRECISIONS = ("float32",)
FILE = "model.gguf"
MODELFILE = "Modelfile"
TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
TEMPLATE_SIGNS = re.compile(r'\{\{|"""')
LLAMA3_SPLIT = (
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
)


def write(loaded: LoadedModel, window: int, precision: str, folder: Path) -> dict[str, Any]:
    """``model.gguf``, read back and compared tensor by tensor before this returns.

    Raises:
        ModelError: E2803 banded layers, E2806 not a GPT-2 or Llama that the file can hold, E2807 a tokenizer it
            cannot hold, E2808 a tensor came back changed.
    """
    import gguf

    if is_gpt3(loaded.model):
        refuse_banded(loaded.model.config, window, "GGUF")
    model = plain_model(loaded.model, window)
    kind = model.config.model_type
    refuse_other(model.config, loaded.name)
    tensors = tensors_of(model, kind)
    folder.mkdir(parents=True)
    writer = gguf.GGUFWriter(str(folder / FILE), kind)
    describe(writer, model.config, kind, window)
    pre = describe_tokenizer(writer, loaded, int(model.config.vocab_size))
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    compared = compare(folder / FILE, tensors)
    return {"architecture": kind, "tokenizer_pre": pre, **compared}


def refuse_other(config: Any, name: str) -> None:
    """Only what the file says in full: a setting it has no place for would be lost without a word.

    Raises:
        ModelError: E2806.
    """
    found = ""
    if config.model_type == "gpt2":
        if config.scale_attn_by_inverse_layer_idx or not config.scale_attn_weights or config.add_cross_attention:
            found = "attention scaled by layer, not at all, or across"
        elif config.activation_function not in ("gelu_new", "gelu_pytorch_tanh"):
            found = config.activation_function
    elif config.model_type == "llama":
        rope = getattr(config, "rope_parameters", None) or {}
        if rope.get("rope_type", "default") != "default":
            found = f"rope_type {rope['rope_type']}"
        elif config.attention_bias or config.mlp_bias or config.hidden_act != "silu":
            found = "biases, or an activation other than silu"
    else:
        found = config.model_type
    if found:
        raise ModelError("E2806", "the converter of {form} cannot take this model", form="GGUF", where=name,
                         found=found, allowed="GPT-2 and Llama", do="choose another form, e.g. --to safetensors")


def describe(writer: Any, config: Any, kind: str, window: int) -> None:
    """The shape of the model, under the names of GGUF."""
    writer.add_file_type(0)  # all float32
    writer.add_name("treetune export")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    if kind == "gpt2":
        writer.add_context_length(config.n_positions)
        writer.add_feed_forward_length(config.n_inner or 4 * config.n_embd)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(window)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(width)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_freq_base(float(rope_base(config)))


def rope_base(config: Any) -> float:
    """Base of the rotary embedding, where this version of transformers keeps it."""
    rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    found: Any = rope.get("rope_theta") or getattr(config, "rope_theta", None) or 10000.0
    return float(found)


def describe_tokenizer(writer: Any, loaded: LoadedModel, vocab_size: int) -> str:
    """Tokens, merges and special ids; gives the name of the rule that splits text before the merges.

    Raises:
        ModelError: E2807.
    """
    tokenizer = loaded.tokenizer
    state = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else {"model": {}}
    pre = pre_of(state)
    if not pre:
        raise ModelError("E2807", "this tokenizer cannot be written into a GGUF file", where=loaded.name,
                         found=str(state["model"].get("type")), allowed="byte-level BPE as of GPT-2 or Llama 3",
                         do="convert --to safetensors with llama.cpp's own script")
    added = {int(each["id"]): each for each in state["added_tokens"]}
    by_id = {number: token for token, number in state["model"]["vocab"].items()}
    by_id |= {number: each["content"] for number, each in added.items()}
    tokens = [by_id.get(number, f"[PAD{number}]") for number in range(vocab_size)]
    types = [gguf_type(number in by_id, added.get(number)) for number in range(vocab_size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(pair) if isinstance(pair, list) else pair for pair in state["model"]["merges"]])
    for name, add in (("bos", writer.add_bos_token_id), ("eos", writer.add_eos_token_id),
                      ("pad", writer.add_pad_token_id)):
        number = getattr(tokenizer, f"{name}_token_id")
        if number is not None:
            add(int(number))
    writer.add_add_bos_token(bool(start_ids(tokenizer)))
    writer.add_add_eos_token(False)
    return pre


def gguf_type(known: bool, added: Mapping[str, Any] | None) -> int:
    """Ordinary, special, added by a user, or there only to fill the matrix."""
    import gguf

    if not known:
        return int(gguf.TokenType.UNUSED)
    if added is None:
        return int(gguf.TokenType.NORMAL)
    return int(gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED)


def pre_of(state: Mapping[str, Any]) -> str:
    """llama.cpp's name of how a byte-level BPE splits text first; "" where it is none of those known here."""
    if state["model"].get("type") != "BPE" or state.get("normalizer"):
        return ""
    first = state.get("pre_tokenizer") or {}
    if first.get("type") == "ByteLevel":
        return "gpt-2" if first.get("use_regex", True) and not first.get("add_prefix_space") else ""
    steps = first.get("pretokenizers", [])
    if [each.get("type") for each in steps] == ["Split", "ByteLevel"] and steps[0]["pattern"] == {
            "Regex": LLAMA3_SPLIT}:
        return "llama-bpe"
    return ""


def tensors_of(model: Any, kind: str) -> dict[str, NDArray[np.float32]]:
    """Name in GGUF -> values as GGUF lays them out.

    Raises:
        ModelError: E2806 a weight without a name there.
    """
    import gguf

    arch = gguf.MODEL_ARCH.GPT2 if kind == "gpt2" else gguf.MODEL_ARCH.LLAMA
    names = gguf.get_tensor_name_map(arch, int(model.config.num_hidden_layers))
    tied = bool(model.config.tie_word_embeddings)
    found: dict[str, NDArray[np.float32]] = {}
    for name, tensor in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        new = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if new is None:
            raise ModelError("E2806", "the converter of {form} cannot take this model", form="GGUF", where=name,
                             found="no name for this weight", do="choose another form, e.g. --to safetensors")
        found[new] = laid_out(name, tensor.detach().float().cpu().numpy(), model.config)
    return found


def laid_out(name: str, values: NDArray[np.float32], config: Any) -> NDArray[np.float32]:
    """One weight as llama.cpp wants it."""
    if config.model_type == "gpt2":
        return np.ascontiguousarray(values.T) if name.endswith(TRANSPOSED) else values
    heads = {"q_proj.weight": config.num_attention_heads, "k_proj.weight": config.num_key_value_heads}
    for end, count in heads.items():
        if name.endswith(end):
            halves = values.reshape(count, 2, values.shape[0] // count // 2, *values.shape[1:])
            return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))
    return values


def compare(path: Path, tensors: Mapping[str, NDArray[np.float32]]) -> dict[str, Any]:
    """Every tensor as `gguf.GGUFReader` gives it back.

    Raises:
        ModelError: E2808 one is missing, or differs in any bit.
    """
    import gguf

    back = {each.name: np.array(each.data) for each in gguf.GGUFReader(str(path)).tensors}
    changed = sorted(set(back) ^ set(tensors)) + [
        name for name, values in tensors.items() if name in back and not np.array_equal(back[name], values)]
    if changed:
        raise ModelError("E2808", "the file that was written does not hold the model's weights", where=str(path),
                         found=", ".join(changed)[:200], do="check the disk and export again")
    return {"tensors": len(tensors), "tensors_equal": len(tensors)}


def read(folder: Path, loaded: LoadedModel, precision: str) -> LoadedModel:
    """The file through transformers' reader of GGUF; the tokenizer is the run's own.

    Raises:
        ModelError: E2806 transformers cannot read it.
    """
    import gguf

    fields = gguf.GGUFReader(str(folder / FILE)).fields
    kind = str(fields["general.architecture"].contents())
    window = int(fields[f"{kind}.context_length"].contents())
    config = plain_model(loaded.model, window).config
    try:
        with quiet_transformers():
            model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=FILE, config=config, dtype=torch.float32)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError) as error:
        raise ModelError("E2806", "the converter of {form} cannot take this model", form="GGUF", where=str(folder),
                         found=" ".join(str(error).split())[:300],
                         do="choose another form, e.g. --to safetensors") from error
    return LoadedModel(model.eval(), loaded.tokenizer, window, loaded.name, loaded.head)


def write_modelfile(folder: Path, frame: Sequence[str | None], max_new_tokens: int, end: str) -> None:
    """How Ollama runs the file: greedy, as treetune does.

    Args:
        frame: the prompt with None where goes what the user gives: the row's text, or all of a prompt whose rows differ
            in more. end: the end-of-text token.
    """
    template = "".join("{{ .Prompt }}" if part is None else in_template(part) for part in frame)
    write_text(folder / MODELFILE, "\n".join([
        f"FROM ./{FILE}", f'TEMPLATE """{template}"""', "PARAMETER temperature 0",
        f"PARAMETER num_predict {max_new_tokens}", f'PARAMETER stop "{end}"', "",
    ]))


def in_template(text: str) -> str:
    """A text as it stands in a template of Go within a Modelfile, where two braces and three quotes mean something."""
    return TEMPLATE_SIGNS.sub(lambda found: '{{ "' + found[0].replace('"', '\\"') + '" }}', text)
