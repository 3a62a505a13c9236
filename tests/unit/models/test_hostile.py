"""Model folders made to do harm: nothing of theirs runs, nothing outside them is read, memory stays flat."""

import json
import pickle
import resource
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from treetune.core.errors import ModelError
from treetune.models.gpt3 import GPT3Config, GPT3LMHeadModel, train_tokenizer
from treetune.models.load import check_header, load_model, refuse_unsafe

WHOLE = save({"a": torch.zeros(2, 3), "b": torch.ones(4, dtype=torch.float16), "c": torch.zeros(0)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny model in a folder."""
    tokenizer = train_tokenizer(["a small text"] * 20, 300, 32)
    torch.manual_seed(0)
    GPT3LMHeadModel(GPT3Config(vocab_size=len(tokenizer), n_positions=32, n_embd=8, n_layer=1, n_head=1,
                               attention_band=8, eos_token_id=tokenizer.eos_token_id)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


class Canary:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors", "adapter_model.bin", "weights.ckpt"])
def test_a_pickle_never_runs_whatever_it_is_called(folder: Path, tmp_path: Path, name: str) -> None:
    canary = tmp_path.parent / f"{tmp_path.name}-canary"
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(ModelError) as caught:
        load_model(str(folder))
    assert caught.value.code == ("E3005" if name.endswith(".safetensors") else "E3003")
    assert not canary.exists()


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("changes", "code"),
    [({"auto_map": {"AutoModel": "evil.Model"}}, "E3004"), ({"use_kernels": True}, "E3004"),
     ({"kernel_config": {"RMSNorm": "someone/kernels:RMSNorm"}}, "E3004"),
     ({"_experts_implementation": "someone/kernels"}, "E3004"),
     ({"quantization_config": {"_attn_implementation_internal": "someone/kernels"}}, "E3004"),
     ({"model_type": "no_such_type"}, "E3005"), ({"model_type": "../../etc"}, "E3005")],
)
def test_a_hostile_config_is_refused_without_the_network(folder: Path, changes: dict[str, Any], code: str) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")
    with pytest.raises(ModelError) as caught:
        load_model(str(folder))
    assert caught.value.code == code


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "..\\x.safetensors",
                                  "model.bin", "nul\0.safetensors", ""])
def test_an_index_cannot_name_files_elsewhere(folder: Path, name: str) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(ModelError) as caught:
        refuse_unsafe(folder)
    assert caught.value.code == "E3005"
    assert "weight_map" in caught.value.where


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": []}', '{"weight_map": 3}'])
def test_an_index_without_a_map_is_broken(folder: Path, content: str) -> None:
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ModelError, match="E3005"):
        refuse_unsafe(folder)


def file_of(header: dict[str, Any], size: int) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(size)


def tensor(start: Any, end: Any, shape: Any, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("header", "size"),
    [({"a": tensor(0, 8, [2]), "b": tensor(4, 12, [2])}, 12), ({"a": tensor(0, 4, [1]), "b": tensor(8, 12, [1])}, 12),
     ({"a": tensor(0, 4, [2])}, 4), ({"a": tensor(0, 4, [1], "F64")}, 4), ({"a": tensor(0, 4, [1], "F31")}, 4),
     ({"a": tensor(-4, 0, [1])}, 0), ({"a": tensor(0, 4, [-1])}, 4), ({"a": tensor(0, 4, [2**62, 2**62])}, 4),
     ({"a": tensor(0, 4, [True])}, 4), ({"a": tensor(0.0, 4.0, [1])}, 4), ({"a": tensor(4, 0, [1])}, 4)],
    ids=["overlap", "gap", "shape", "type", "no type", "negative", "negative shape", "huge shape", "truth",
         "fraction", "backwards"],
)
def test_offsets_that_do_not_fit_are_refused(tmp_path: Path, header: dict[str, Any], size: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(file_of(header, size))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError, match="E3005"):
        check_header(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, len(WHOLE) - 1), value=st.integers(0, 255), cut=st.integers(0, 40))
def test_fuzzed_files_end_in_an_error_or_in_what_safetensors_reads_too(
    tmp_path: Path, place: int, value: int, cut: int
) -> None:
    data = bytearray(WHOLE)
    data[place] = value
    path = tmp_path / "model.safetensors"
    path.write_bytes(data[: len(data) - cut] if cut > 20 else data)
    if refused(path):
        return
    try:
        with safe_open(path, "pt") as handle:
            for name in handle.keys():  # noqa: SIM118 - no mapping
                handle.get_tensor(name)
        said = ""
    except SafetensorError as error:  # stricter than we are about the text of the header; never about sizes
        said = str(error).lower()
    assert not any(word in said for word in ("offset", "buffer", "incomplete"))


def refused(path: Path) -> bool:
    """Whether the header is refused, with a code and nothing else."""
    try:
        check_header(path)
    except ModelError as error:
        return error.code == "E3005"
    return False


def test_whole_files_of_every_kind_of_number_pass(tmp_path: Path) -> None:
    kinds = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
             torch.int8, torch.uint8, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2]
    path = tmp_path / "model.safetensors"
    path.write_bytes(save({str(kind): torch.zeros(3, 2).to(kind) for kind in kinds} | {"scalar": torch.tensor(1.0)}))
    check_header(path)
