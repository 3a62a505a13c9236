"""Encoder rows side by side in one pass: the padded rows' answers and gradients, or no packing at all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from treetune.models import classes, encoder, row_attention, spans
from treetune.models.adapters import add_lora
from treetune.models.encoder import (
    EncoderRow,
    batches_of,
    gradients,
    packed,
    prove_packed,
    run_encoder,
    spread_of,
)
from treetune.models.load import load_model
from treetune.models.row_attention import RowLayout
from treetune.models.row_attention import row_attention as attend
from treetune.trees.passes import packed_passes

Folder = Callable[[str], Path]
KINDS = ("bert", "roberta", "modernbert")
LABELS = ("positive", "negative", "neutral")
LENGTHS = (3, 3, 9, 9, 9, 17, 40, 1)


def rows_of(width: int = 1, vocabulary: int = 300) -> list[EncoderRow]:
    draw = np.random.default_rng(0)
    return [
        EncoderRow(number, number, draw.integers(5, vocabulary, length), draw.integers(0, 2, length),
                   draw.integers(0, min(3, length), width))
        for number, length in enumerate(LENGTHS)
    ]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.sampled_from([None, 1, 2, 4, 99]), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_a_token_sees_its_own_row_within_its_window_and_nothing_else(
    lengths: list[int], window: int | None, seed: int
) -> None:
    torch.manual_seed(seed)
    size = sum(lengths)
    query, key, value = torch.randn(3, 1, 2, size, 4, dtype=torch.float64)
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    place = torch.arange(size)
    allowed = owner[:, None] == owner[None]
    if window is not None:
        allowed &= (place[:, None] - place[None]).abs() < window
    wanted = functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
    found, _ = attend(torch.nn.Module(), query, key, value, None, sliding_window=window, rows=RowLayout(lengths))
    assert torch.allclose(found, wanted.transpose(1, 2), atol=1e-12)


@given(st.lists(st.integers(1, 30), max_size=30), st.integers(1, 6), st.integers(5, 60))
def test_packed_passes_hold_every_row_once_within_their_bounds(lengths: list[int], rows: int, tokens: int) -> None:
    runs = list(packed_passes(lengths, rows, tokens))
    assert sorted(place for run in runs for place in run) == list(range(len(lengths)))
    assert all(len(run) <= rows and (len(run) == 1 or sum(lengths[p] for p in run) <= tokens) for run in runs)
    assert [lengths[place] for run in runs for place in run] == sorted(lengths)


@pytest.mark.parametrize("head", [classes, spans], ids=["classes", "spans"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("multiple", [1, 32])
def test_packed_rows_have_the_answers_and_gradients_of_padded_ones(
    kind: str, head: Any, multiple: int, family_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "rows_together", lambda weight: multiple)
    name = head.__name__.rsplit(".", 1)[-1]
    model = load_model(str(family_folder(kind)), head=name, labels=LABELS if name == "classes" else ()).model.double()
    rows = rows_of(1 if name == "classes" else 2)
    if kind != "bert":
        rows = [EncoderRow(row.row, row.place, row.input_ids, None, row.target) for row in rows]
    with torch.no_grad():
        padded_logs = head.log_probs(model, next(batches_of(rows, "padded", 99, 9999)))
    truth = gradients(model, head, rows, "padded", 9999)
    layout, difference, reason = prove_packed(model, head, rows, 60)
    assert (layout, reason) == ("packed", "")
    assert difference < 1e-6  # rotary tables and norms of some work in float32
    ours = gradients(model, head, rows, "packed", 60)
    assert truth.keys() == ours.keys()
    with torch.no_grad():
        batch = next(batches_of(rows, "packed", 99, 9999))
        logs = head.log_probs(model, batch)
    assert batch.input_ids.shape == (1, sum(LENGTHS))
    assert batch.num_tokens == batch.num_row_tokens == sum(LENGTHS)
    shown = logs if name == "classes" else logs.masked_fill(batch.attention_mask[:, None] == 0, 0)
    wanted = padded_logs if name == "classes" else padded_logs.masked_fill(batch.attention_mask[:, None] == 0, 0)
    assert torch.allclose(shown, wanted, atol=1e-6)


def test_adapters_are_proved_through_their_wrapper(family_folder: Folder) -> None:
    loaded = load_model(str(family_folder("bert")), head="classes", labels=LABELS)
    model = add_lora(loaded.model, 2, 4, 0.0, "SEQ_CLS", fresh=loaded.fresh)
    assert prove_packed(model, classes, rows_of(), 60)[0] == "packed"


def test_a_wrong_attention_is_seen_and_padded_rows_stay_what_they_were(
    family_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(str(family_folder("bert")), head="classes", labels=LABELS).model
    truth = gradients(model, classes, rows_of(), "padded", 9999)
    before = model.config._attn_implementation
    monkeypatch.setattr(row_attention, "band", lambda length, window, device: torch.ones(
        length, length, dtype=torch.bool).tril())  # looks back only
    layout, difference, reason = prove_packed(model, classes, rows_of(), 60)
    assert (layout, reason) == ("padded", "its gradients differ")
    assert difference > 1e-3
    assert model.config._attn_implementation == before
    again = gradients(model, classes, rows_of(), "padded", 9999)
    assert all(torch.equal(again[name], truth[name]) for name in truth)


def test_models_without_the_registry_fall_back_and_say_why(family_folder: Folder) -> None:
    from transformers import AutoModelForSequenceClassification, ModernBertConfig

    torch.manual_seed(0)
    config = ModernBertConfig(vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                              num_attention_heads=4, pad_token_id=0, classifier_pooling="mean", num_labels=3,
                              bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3)
    model = AutoModelForSequenceClassification.from_config(config)  # its head asks for the padding mask
    rows = [EncoderRow(row.row, row.place, row.input_ids, None, row.target) for row in rows_of()]
    layout, _, reason = prove_packed(model, classes, rows, 60)
    assert layout == "padded"
    assert reason


def test_a_switched_model_answers_padded_calls_as_before(family_folder: Folder) -> None:
    model = load_model(str(family_folder("bert")), head="classes", labels=LABELS).model.double()
    given_rows = next(batches_of(rows_of(), "padded", 99, 9999))
    with torch.no_grad():
        before = model(**given_rows.inputs()).logits
        run_encoder(model, packed(rows_of(), range(len(LENGTHS))))
        after = model(**given_rows.inputs()).logits
    assert torch.allclose(before, after, atol=1e-12)


def test_rows_to_prove_with_are_long_and_short() -> None:
    rows = rows_of()
    found = [row.num_tokens for row in spread_of(rows, 60)]
    assert found[0] == max(LENGTHS)
    assert found[-1] == min(LENGTHS)
    assert len(spread_of(rows[:1], 9)) == 1
