"""Trained weights: a tiny Llama of llama2.c tells its story word for word, and token trees are exact on it.

Format: header of 7 int32 (width, hidden width, layers, heads, key heads, vocabulary, window), then float32 tensors;
pairs of rotary dimensions stand side by side there, half a head apart in transformers.
"""

import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from treetune.core.records import TokenizedExample
from treetune.models.engine import Engine
from treetune.models.exactness import prove

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "models" / "stories260K"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"{FOLDER} is not there")
START, END = 1, 2
STORY = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."


def split_halves(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Rows of each head from (pair, side) order to (side, pair) order."""
    rows, width = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width)


def read_llama(path: Path) -> Any:
    """The checkpoint as LlamaForCausalLM; every byte of the file is accounted for."""
    from transformers import LlamaConfig, LlamaForCausalLM

    data = path.read_bytes()
    width, hidden, layers, heads, key_heads, vocabulary, window = struct.unpack("7i", data[:28])
    values = np.frombuffer(data, dtype="<f4", offset=28)
    size = width // heads
    shapes: list[tuple[str, tuple[int, ...]]] = [
        ("embed_tokens", (vocabulary, width)), ("input_layernorm", (layers, width)),
        ("self_attn.q_proj", (layers, heads * size, width)), ("self_attn.k_proj", (layers, key_heads * size, width)),
        ("self_attn.v_proj", (layers, key_heads * size, width)), ("self_attn.o_proj", (layers, width, heads * size)),
        ("post_attention_layernorm", (layers, width)), ("mlp.gate_proj", (layers, hidden, width)),
        ("mlp.down_proj", (layers, width, hidden)), ("mlp.up_proj", (layers, hidden, width)), ("norm", (width,)),
        ("cosines", (window, size // 2)), ("sines", (window, size // 2))]
    weights: dict[str, torch.Tensor] = {}
    place = 0
    for name, shape in shapes:
        tensor = values[place : place + int(np.prod(shape))].reshape(shape)
        place += tensor.size
        if name in ("embed_tokens", "norm"):
            weights[f"model.{name}.weight"] = torch.from_numpy(tensor.copy())
        elif name not in ("cosines", "sines"):
            for layer, own in enumerate(tensor):
                turned = split_halves(own, heads if "q_proj" in name else key_heads) if name[-6] in "qk" and (
                    "self_attn" in name) else own
                weights[f"model.layers.{layer}.{name}.weight"] = torch.from_numpy(turned.copy())
    assert place == len(values)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=hidden, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=key_heads, max_position_embeddings=window, rms_norm_eps=1e-5,
        rope_theta=10000.0, tie_word_embeddings=True, bos_token_id=START, eos_token_id=END, pad_token_id=0))
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert set(missing) <= {"lm_head.weight"}
    assert not unexpected
    model.tie_weights()
    return model.eval()


def read_pieces(path: Path) -> list[tuple[float, bytes]]:
    """(score, bytes) of each piece of the tokenizer; an int32 with the longest piece stands first."""
    data = path.read_bytes()
    pieces = []
    place = 4
    while place < len(data):
        score, length = struct.unpack("<fi", data[place : place + 8])
        pieces.append((score, data[place + 8 : place + 8 + length]))
        place += 8 + length
    return pieces


def spelled(pieces: list[tuple[float, bytes]], ids: list[int]) -> str:
    """Text of ids; pieces like <0x0A> are bytes."""
    parts = [pieces[token][1] for token in ids if token not in (START, END)]
    return b"".join(bytes([int(part[3:5], 16)]) if part[:3] == b"<0x" else part for part in parts).decode().lstrip()


def tokens_of(pieces: list[tuple[float, bytes]], text: str) -> list[int]:
    """Characters merged into the best-scored pieces, as SentencePiece's BPE does."""
    numbers = {piece: number for number, (_, piece) in enumerate(pieces)}
    parts = [character.encode() for character in " " + text]
    while True:
        pairs = [(pieces[numbers[left + right]][0], -place) for place, (left, right)
                 in enumerate(pairwise(parts)) if left + right in numbers]
        if not pairs:
            return [START, *(numbers[part] for part in parts)]
        place = -max(pairs)[1]
        parts[place : place + 2] = [parts[place] + parts[place + 1]]


@pytest.fixture(scope="module")
def model() -> Any:
    torch.set_num_threads(1)
    return read_llama(FOLDER / "stories260K.bin")


@pytest.fixture(scope="module")
def pieces() -> list[tuple[float, bytes]]:
    return read_pieces(FOLDER / "tok512.bin")


def told(model: Any, ids: list[int], count: int) -> list[int]:
    output = model.generate(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                            max_new_tokens=count, do_sample=False, eos_token_id=END, pad_token_id=0)
    return list(output[0].tolist())


def test_the_story_begins_word_for_word(model: Any, pieces: list[tuple[float, bytes]]) -> None:
    story = spelled(pieces, told(model, [START], 120))
    assert story.startswith(STORY)
    assert tokens_of(pieces, STORY) == told(model, [START], len(tokens_of(pieces, STORY)) - 1)


def test_trained_weights_find_a_story_likelier_than_its_words_shuffled(
    model: Any, pieces: list[tuple[float, bytes]]
) -> None:
    def mean_loss(text: str) -> float:
        ids = torch.tensor([tokens_of(pieces, text)])
        return float(model(input_ids=ids, labels=ids).loss.detach())

    words = STORY.split()
    shuffled = " ".join(np.random.default_rng(0).permutation(words))
    assert mean_loss(STORY) < 1.0
    assert mean_loss(shuffled) > 2 * mean_loss(STORY)


def stories(pieces: list[tuple[float, bytes]]) -> list[TokenizedExample]:
    """Rows that share the story and go on differently, some from its middle."""
    begun = tokens_of(pieces, STORY)
    ends = [" One day, she saw a big tree.", " She was very happy.", " One day, she met a cat.", " The end."]
    rows = []
    for number, end in enumerate(ends * 2):
        prompt = begun if number < len(ends) else begun[: 20 + number]
        completion = [*tokens_of(pieces, end.strip())[1:], END]
        rows.append(TokenizedExample(number, 0, np.array(prompt), np.array(completion), 0))
    return rows


@pytest.mark.parametrize("layout", ["tree", "packed"])
def test_token_trees_are_exact_on_trained_weights(
    model: Any, pieces: list[tuple[float, bytes]], layout: str
) -> None:
    proof = prove(model, stories(pieces), layout, 400)
    assert proof.layout == layout
    assert proof.difference < 1e-5
    assert not proof.refused
    assert isinstance(proof.engine, Engine)


def test_the_proof_sees_a_model_that_cannot_branch(pieces: list[tuple[float, bytes]]) -> None:
    """Positions taken from the packed place instead of the depth must not pass for exact."""
    model = read_llama(FOLDER / "stories260K.bin")
    model.model.register_forward_pre_hook(
        lambda module, args, given: (args, {**given, "position_ids": torch.arange(given["input_ids"].shape[1])[None]}),
        with_kwargs=True)
    proof = prove(model, stories(pieces), "tree", 400)
    assert proof.layout != "tree"  # rows side by side stay exact: rotary positions are relative
    assert {what.split()[0] for what, _, _ in proof.refused} == {"tree"}
    assert min(difference for _, difference, _ in proof.refused) > 1e-2
