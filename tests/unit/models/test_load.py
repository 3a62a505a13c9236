"""What a model folder may do before it is trusted: nothing."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, DistilBertConfig, T5Config

from treetune.core.errors import ModelError
from treetune.models.gpt3 import GPT3LMHeadModel, GPT3Tokenizer
from treetune.models.load import load_model, load_tokenizer, locate, refuse_unsafe

MakeFolder = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path, make_gpt3: Callable[..., GPT3LMHeadModel], tokenizer: GPT3Tokenizer) -> Path:
    path = tmp_path / "model"
    make_gpt3(vocab_size=300).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def change_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def code_of(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(str(folder))
    return caught.value.code


def test_a_whole_folder_loads_ready_for_use(folder: Path) -> None:
    loaded = load_model(str(folder))
    assert isinstance(loaded.model, GPT3LMHeadModel)
    assert not loaded.model.training
    assert (loaded.window, loaded.name) == (64, str(folder))
    assert next(loaded.model.parameters()).dtype == torch.float32
    assert load_tokenizer(str(folder))[1] == 64


def test_random_weights_depend_on_the_seed_only(folder: Path) -> None:
    first, again, other = (load_model(str(folder), random_init=True, seed=seed).model.lm_head.weight
                           for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, load_model(str(folder)).model.lm_head.weight)


@pytest.mark.parametrize("name", ["./absent", "/absent/model"])
def test_a_folder_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(name)
    assert caught.value.code == "E3002"
    assert caught.value.where == name


def test_a_folder_without_config_is_no_model(tmp_path: Path) -> None:
    assert code_of(tmp_path) == "E3002"


def test_a_file_is_no_model_folder(folder: Path) -> None:
    assert code_of(folder / "config.json") == "E3002"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.pkl", "last.ckpt"])
def test_pickled_weights_alone_are_refused(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    assert code_of(folder) == "E3003"


def test_pickled_weights_beside_safetensors_are_left_alone(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"not a pickle")
    assert load_model(str(folder)).window == 64


@pytest.mark.parametrize(
    "changes",
    [
        {"auto_map": {"AutoModelForCausalLM": "evil--modeling.Evil"}},
        {"text_config": {"auto_map": {"AutoConfig": "x.Y"}}},
        {"a": {"b": {"c": {"auto_map": {"AutoConfig": "x.Y"}}}}},
        {"parts": [{"auto_map": {"AutoConfig": "x.Y"}}]},
        {"trust_remote_code": True},
        {"custom_pipelines": {"x": {"impl": "a.B"}}},
        {"attn_implementation": "someone/kernels"},
        {"_attn_implementation": "someone/kernels:fast"},
        {"_attn_implementation_internal": "someone/kernels"},
        {"text_config": {"_attn_implementation": "someone/kernels"}},
        {"_attn_implementation": {"text_config": "someone/kernels"}},
    ],
)
def test_a_config_that_asks_for_code_is_refused(folder: Path, changes: dict[str, Any]) -> None:
    change_config(folder, **changes)
    assert code_of(folder) == "E3004"
    with pytest.raises(ModelError, match="E3004"):
        load_tokenizer(str(folder))


def test_a_tokenizer_config_that_asks_for_code_is_refused(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoTokenizer": ["x.Y", None]}}))
    assert code_of(folder) == "E3004"


def with_header(length: int, header: bytes, rest: bytes = b"") -> bytes:
    return struct.pack("<Q", length) + header + rest


def entry(offsets: object) -> bytes:
    return json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": offsets}}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 7,
        with_header(2**63, b"{}"),
        with_header(2**64 - 1, b"{}"),
        with_header(10**9, b"{}"),
        with_header(2, b"[]"),
        with_header(2, b"{{"),
        with_header(4, b"\xff\xfe\xff\xfe"),
        with_header(len(entry([0, 4])), entry([0, 4]), b"abc"),
        with_header(len(entry([0, 4])), entry([0, 4]), b"abcdef"),
        with_header(len(entry([])), entry([]), b"abcd"),
        with_header(len(entry("ab")), entry("ab"), b"abcd"),
        with_header(8, b'{"w": 1}'),
    ],
    ids=["empty", "short", "2^63", "2^64", "huge", "list", "no json", "no utf-8", "truncated", "too much",
         "no offsets", "text offsets", "no entry"],
)
def test_a_corrupt_safetensors_header_is_refused_before_it_is_mapped(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError) as caught:
        refuse_unsafe(folder)
    assert caught.value.code == "E3005"
    assert caught.value.where.endswith("model.safetensors")


def test_a_truncated_file_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert code_of(folder) == "E3005"


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe{", b"[" * 200_000, b"[]", b'"gpt3"', b"null"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_broken_json_is_refused(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    assert code_of(folder) == "E3005"


@pytest.mark.parametrize("config", [DistilBertConfig, BertConfig, T5Config])
def test_a_model_that_is_not_a_causal_decoder_is_refused(
    tmp_path: Path, tokenizer: GPT3Tokenizer, config: type
) -> None:
    config(vocab_size=300).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="E3006"):
        load_model(str(tmp_path), random_init=True)


def test_a_model_type_nobody_knows_is_a_model_error(folder: Path) -> None:
    change_config(folder, model_type="no_such_model")
    assert code_of(folder).startswith("E300")


def test_weights_of_another_shape_are_a_model_error(folder: Path) -> None:
    change_config(folder, n_embd=64)
    assert code_of(folder) == "E3005"


def test_a_folder_without_weights_is_a_model_error(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert code_of(folder) in ("E3002", "E3005")


@pytest.mark.parametrize("content", ["{", "{}", "[]"])
def test_a_broken_adapter_folder_is_a_model_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(ModelError, match="E3005"):
        locate(str(tmp_path))


def test_a_pickled_adapter_is_refused(tmp_path: Path, folder: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(folder)}))
    (adapter / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="E3003"):
        locate(str(adapter))


def test_an_adapter_folder_leads_to_its_base(tmp_path: Path, folder: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(folder)}))
    assert locate(str(adapter)) == (str(folder), adapter)
    change_config(folder, auto_map={"AutoConfig": "x.Y"})
    with pytest.raises(ModelError, match="E3004"):
        locate(str(adapter))
