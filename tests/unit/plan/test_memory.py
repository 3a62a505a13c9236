"""Memory by part: the values a layer keeps are those its saved tensors hold; the laws of batch, length, adapters."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treetune.core.records import TokenizedExample
from treetune.core.stretches import KEPT_ODDS
from treetune.plan.architecture import read
from treetune.plan.memory import FLOAT, MemorySettings, activation_bytes, cache_bytes, logits_bytes, memory_of
from treetune.plan.workload import Pass, by_hand

WIDTH, ROWS, PROMPT, ANSWER = 64, 4, 40, 8


def rows() -> list[TokenizedExample]:
    random = np.random.default_rng(0)
    return [TokenizedExample(number, 0, random.integers(5, 200, PROMPT), random.integers(5, 200, ANSWER), 0)
            for number in range(ROWS)]


def saved_bytes(model: Any, loss: Callable[[], Any]) -> int:
    """Bytes of all storages that the backward pass will read, weights not counted."""
    import torch

    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, Any] = {}

    def note(tensor: Any) -> Any:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = loss()
    assert result is not None
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def config_of(kind: str, layers: int, dropout: float) -> Any:
    import transformers

    if kind == "gpt2":
        return transformers.GPT2Config(vocab_size=200, n_embd=WIDTH, n_layer=layers, n_head=4, n_positions=64,
                                       resid_pdrop=dropout, attn_pdrop=dropout, embd_pdrop=dropout, bos_token_id=0,
                                       eos_token_id=0)
    if kind == "llama":
        return transformers.LlamaConfig(vocab_size=200, hidden_size=WIDTH, intermediate_size=160,
                                        num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2)
    if kind == "qwen3":
        return transformers.Qwen3Config(vocab_size=200, hidden_size=WIDTH, intermediate_size=160, head_dim=16,
                                        num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2,
                                        bos_token_id=0, eos_token_id=0)
    if kind == "bert":
        return transformers.BertConfig(vocab_size=200, hidden_size=WIDTH, intermediate_size=160,
                                       num_hidden_layers=layers, num_attention_heads=4, hidden_dropout_prob=dropout,
                                       attention_probs_dropout_prob=dropout)
    if kind == "t5":
        return transformers.T5Config(vocab_size=200, d_model=WIDTH, d_ff=160, d_kv=16, num_layers=layers, num_heads=4,
                                     dropout_rate=dropout, decoder_start_token_id=0)
    return transformers.BartConfig(vocab_size=200, d_model=WIDTH, encoder_ffn_dim=160, decoder_ffn_dim=160,
                                   encoder_layers=layers, decoder_layers=layers, encoder_attention_heads=4,
                                   decoder_attention_heads=4, dropout=dropout, decoder_start_token_id=0,
                                   max_position_embeddings=64)


def one_pass(kind: str, config: Any) -> tuple[Any, Callable[[], Any], str, Pass]:
    """A model in training, its loss over one padded pass, its head, the pass in numbers."""
    import transformers

    from treetune.models import classes, decoder, encoder, seq2seq
    from treetune.models.batches import padded_batch

    if kind == "bert":
        model = transformers.AutoModelForSequenceClassification.from_config(config).train()
        batch = encoder.padded([encoder.EncoderRow(n, n, row.prompt_ids, None, np.array([1])) for n, row in
                                enumerate(rows())], range(ROWS))
        return model, lambda: classes.loss_sum(model, batch), "classes", Pass(ROWS * PROMPT, ROWS, PROMPT, 0)
    if kind in ("t5", "bart"):
        model = transformers.AutoModelForSeq2SeqLM.from_config(config).train()
        pairs = seq2seq.padded(rows(), range(ROWS))
        return model, lambda: seq2seq.loss_sum(model, pairs), "seq2seq", Pass(
            ROWS * ANSWER, ROWS, ANSWER, ROWS * ANSWER, ROWS, PROMPT)
    model = transformers.AutoModelForCausalLM.from_config(config).train()
    plain = padded_batch(rows())
    length = PROMPT + ANSWER - 1
    return model, lambda: decoder.loss_sum(model, plain), "causal", Pass(ROWS * length, ROWS, length, ROWS * ANSWER)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_decoder_keeps_more_as_it_came_than_set_up(kind: str, dropout: float) -> None:
    from treetune.models.engine import Engine, set_up

    for raw in (True, False):
        sizes, counted = [], []
        for layers in (2, 4):
            config = config_of(kind, layers, dropout)
            model, loss, head, one = one_pass(kind, config)
            if not raw:
                set_up(model, Engine())
            sizes.append(saved_bytes(model, loss))
            counted.append(activation_bytes(read(config.to_dict(), head), one, MemorySettings(tree=False), raw=raw))
        assert counted[1] - counted[0] == pytest.approx(sizes[1] - sizes[0], rel=0.08)


@pytest.mark.parametrize("kind", ["bert", "t5", "bart"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_two_more_layers_keep_as_many_values_as_counted(kind: str, dropout: float) -> None:
    sizes, counted = [], []
    for layers in (2, 4):
        config = config_of(kind, layers, dropout)
        model, loss, head, one = one_pass(kind, config)
        sizes.append(saved_bytes(model, loss))
        counted.append(activation_bytes(read(config.to_dict(), head), one, MemorySettings(tree=False)))
    assert counted[1] - counted[0] == pytest.approx(sizes[1] - sizes[0], rel=0.08)


GPT2 = read({"model_type": "gpt2", "n_embd": 128, "n_layer": 4, "n_head": 4})


@given(st.integers(1, 64), st.integers(8, 512), st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_memory_grows_with_rows_and_length_and_recomputing_never_takes_more(rows: int, length: int, more: int) -> None:
    def peak(rows: int, length: int, checkpointing: bool = False) -> float:
        work = by_hand(1000, length, 4, epochs=1, rows_per_step=rows, rows_per_pass=rows, max_tokens=10**9)
        return memory_of(GPT2, work, MemorySettings(checkpointing=checkpointing)).peak.expected

    assert peak(rows, length) <= peak(rows + more, length)
    assert peak(rows, length) <= peak(rows, length + more)
    assert peak(rows, length, True) <= peak(rows, length)


def test_weights_gradients_and_optimizer_are_exact() -> None:
    work = by_hand(100, 64, 8, epochs=1, rows_per_step=8, rows_per_pass=8, max_tokens=10**9)
    full = memory_of(GPT2, work, MemorySettings()).parts
    assert full["weights"] == full["gradients"] == FLOAT * GPT2.parameters
    assert full["optimizer"] == 2 * FLOAT * GPT2.parameters
    adapted = memory_of(GPT2, work, MemorySettings(lora_r=8)).parts
    assert adapted["gradients"] == FLOAT * GPT2.lora_parameters(8)
    assert adapted["weights"] == FLOAT * (GPT2.parameters + GPT2.lora_parameters(8))
    assert adapted["activations"] == full["activations"]  # adapters save gradients and optimizer, not activations
    assert memory_of(GPT2, work, MemorySettings(optim="sgd")).parts["optimizer"] == FLOAT * GPT2.parameters
    quarter = memory_of(GPT2, work, MemorySettings(lora_r=8, weight_bytes=1.0)).parts
    assert quarter["weights"] == adapted["weights"] - 3 * GPT2.matrix_weights


def test_a_tied_gradient_of_few_labels_is_never_made() -> None:
    few, many = (by_hand(100, 64, labels, epochs=1, rows_per_step=8, rows_per_pass=4, max_tokens=10**9)
                 for labels in (4, 5))  # 32 and 40 labels a step, at width 128
    gradients = {work.labels: memory_of(GPT2, work, MemorySettings()).parts["gradients"] for work in (few, many)}
    assert gradients[many.labels] - gradients[few.labels] == FLOAT * GPT2.vocabulary * GPT2.width
    for changes in ({"optim": "sgd"}, {"gpu": True}, {"shards": 2, "gpu": True}, {"lora_r": 8}, {"frozen": 1}):
        one, other = (memory_of(GPT2, work, MemorySettings(**changes)).parts["gradients"] for work in (few, many))
        assert one == other
    apart = read({"model_type": "gpt2", "n_embd": 128, "n_layer": 4, "n_head": 4, "tie_word_embeddings": False})
    assert memory_of(apart, few, MemorySettings()).parts["gradients"] == FLOAT * apart.parameters


def test_shards_divide_what_is_shared_out_only() -> None:
    work = by_hand(100, 64, 4, epochs=1, rows_per_step=8, rows_per_pass=8, max_tokens=10**9)
    one, four = (memory_of(GPT2, work, MemorySettings(gpu=True, shards=count)).parts for count in (1, 4))
    assert four["optimizer"] == one["optimizer"] / 4
    assert four["activations"] == one["activations"]
    assert one["weights"] / 4 < four["weights"]  # what is being computed with stands whole
    kept, again = (memory_of(GPT2, work, MemorySettings(gpu=True, bf16=True, shards=4, checkpointing=recompute))
                   .parts["weights"] for recompute in (False, True))
    assert again < kept  # copies in half precision wait for the backward pass, or not
    thin, thinner = (memory_of(GPT2, work, MemorySettings(gpu=True, shards=count)).parts["weights"]
                     for count in (64, 128))
    assert thin - thinner == pytest.approx(FLOAT * GPT2.parameters / 128)


def test_frozen_layers_keep_nothing() -> None:
    one = Pass(100, 1, 100, 10)
    whole, half, none = (activation_bytes(GPT2, one, MemorySettings(frozen=count)) for count in (0, 2, 4))
    assert whole > half > none
    assert MemorySettings(frozen=2).trained(GPT2) < GPT2.parameters / 2
    assert MemorySettings(head_only=True).trained(GPT2) < 1000


def test_attention_of_short_blocks_keeps_what_it_reads_and_probabilities_only_where_they_are_few() -> None:
    none, few, many = (activation_bytes(GPT2, Pass(100, 1, 100, 10, pairs=pairs), MemorySettings())
                       for pairs in (0, 2_000, KEPT_ODDS))
    outputs = 2 * 100 * GPT2.width
    assert few - none == FLOAT * GPT2.layers * (4 * 2_000 - outputs)
    assert many - none == -FLOAT * GPT2.layers * outputs


def test_logits_stand_whole_or_in_stretches() -> None:
    big = read({"model_type": "gpt2"})
    few, many = (logits_bytes(big, Pass(8192, 8, 1024, labels), MemorySettings()) for labels in (64, 8192))
    assert few < many < 3 * FLOAT * 8192 * big.vocabulary  # a decoder's loss is taken in stretches
    adapted = [logits_bytes(big, Pass(8192, 8, 1024, labels), MemorySettings(lora_r=8)) for labels in (64, 8192)]
    assert adapted[0] == few  # the gradient of the tied matrix is multiplied out later
    assert adapted[1] < many  # no gradient of the matrix


def test_cache_holds_keys_and_values_of_the_key_heads_only() -> None:
    llama = read({"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 8,
                  "num_key_value_heads": 2, "intermediate_size": 100, "vocab_size": 50})
    assert cache_bytes(llama, 10, 5, 2) == 2 * 3 * 16 * 2 * 10 * 5
    assert replace(llama.stacks[0]).keys == 16
