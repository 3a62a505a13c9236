"""Encoder-decoders: our loss and gradients are those of transformers' own forward; sources are encoded once."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from treetune.core.errors import DataError
from treetune.core.records import Example, PromptPart, TokenizedExample
from treetune.models.load import load_model
from treetune.models.seq2seq import batches_of, encode, encode_sources, label_log_probs, loss_sum, padded, shifted

KINDS = ("t5", "bart", "marian")
every_kind = pytest.mark.parametrize("kind", KINDS)
Folder = Callable[[str], Path]
Make = Callable[[str], Any]


def row(number: int, source: list[int], answer: list[int]) -> TokenizedExample:
    return TokenizedExample(number, 0, np.array(source), np.array(answer), 0)


ROWS = [row(0, [5, 6, 7, 8, 3], [9, 10, 3]), row(1, [11, 12, 3], [13, 3]), row(2, [5, 6, 7, 8, 3], [14, 15, 16, 17, 3]),
        row(3, [18, 3], [19, 20, 3]), row(4, [11, 12, 3], [13, 3])]


def model_of(kind: str, family_config: Make) -> Any:
    from transformers import AutoModelForSeq2SeqLM

    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(family_config(kind)).double().eval()
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias.normal_()  # zero in a fresh model, not in a trained one
    return model


def gradients(model: Any) -> dict[str, torch.Tensor]:
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return found


@every_kind
def test_loss_and_all_gradients_are_those_of_transformers_own_forward(kind: str, family_config: Make) -> None:
    model = model_of(kind, family_config)
    width = max(len(each.prompt_ids) for each in ROWS)
    sources = torch.zeros(len(ROWS), width, dtype=torch.long)
    mask = torch.zeros_like(sources)
    labels = torch.full((len(ROWS), 5), -100)
    for number, each in enumerate(ROWS):
        sources[number, : len(each.prompt_ids)] = torch.from_numpy(each.prompt_ids)
        mask[number, : len(each.prompt_ids)] = 1
        labels[number, : len(each.completion_ids)] = torch.from_numpy(each.completion_ids)
    theirs = model(input_ids=sources, attention_mask=mask, labels=labels).loss
    theirs.backward()
    wanted = gradients(model)
    total, count = 0.0, 0.0
    for batch in batches_of(ROWS, "padded", 3, 1000):
        part = loss_sum(model, batch)
        (part.total / 15).backward()
        total, count = total + float(part.total.detach()), count + part.count
    assert count == 15
    assert total / count == pytest.approx(float(theirs.detach()), abs=1e-10)
    ours = gradients(model)
    assert ours.keys() == wanted.keys()
    assert any("encoder" in name for name in ours)
    for name, grad in wanted.items():
        # T5's norms take their variance in float32 whatever the weights are
        assert (ours[name] - grad).norm() <= 1e-6 * max(1.0, float(grad.norm())), name


@every_kind
def test_each_source_is_encoded_once_and_logits_are_taken_at_labels_only(kind: str, family_config: Make) -> None:
    model = model_of(kind, family_config)
    seen: dict[str, Any] = {}
    model.get_encoder().register_forward_hook(
        lambda module, args, given, result: seen.update(sources=given["input_ids"].shape), with_kwargs=True)
    model.get_output_embeddings().register_forward_hook(lambda module, args, result: seen.update(logits=result.shape))
    batch = padded(ROWS, range(len(ROWS)))
    loss_sum(model, batch)
    assert seen["sources"] == (3, 5)
    assert seen["logits"][:2] == (1, 15)
    assert (batch.num_tokens, batch.num_row_tokens) == (3 * 5 + 5 * 5, 5 + 3 + 5 + 2 + 3 + 15)
    assert model(input_ids=batch.source_ids, decoder_input_ids=batch.source_ids).logits.shape[:2] == (3, 5)


@every_kind
def test_passes_hold_every_row_once_within_their_bounds(kind: str, family_config: Make) -> None:
    model = model_of(kind, family_config)
    logs: dict[int, list[float]] = {}
    for rows_per_pass, max_tokens in ((1, 1000), (2, 12), (5, 1000)):
        found: dict[int, list[float]] = {}
        for batch in batches_of(ROWS, "padded", rows_per_pass, max_tokens):
            assert len(batch.labels) <= rows_per_pass
            assert len(batch.labels) == 1 or batch.num_tokens <= max_tokens
            for owner, value in zip(batch.label_example.tolist(), label_log_probs(model, batch).tolist(), strict=True):
                found.setdefault(owner, []).append(value)
        assert {owner: len(own) for owner, own in found.items()} == {0: 3, 1: 2, 2: 5, 3: 3, 4: 2}
        for owner, own in found.items():
            assert own == pytest.approx(logs.setdefault(owner, own), abs=1e-10)


def example(source: str, completion: str, cuttable: bool = True) -> Example:
    return Example(0, "r", "train", (PromptPart("Read: "), PromptPart(source, cuttable), PromptPart(" Answer:")),
                   completion, (completion.strip(),), {}, source, "en")


@every_kind
def test_sources_and_answers_carry_the_tokenizers_special_tokens(kind: str, family_tokenizer: Make) -> None:
    tokenizer = family_tokenizer(kind)
    found = encode([example("the film", " good")], tokenizer, 64)[0]
    assert tokenizer.decode(found.prompt_ids, skip_special_tokens=True) == "Read: the film Answer:"
    assert tokenizer.decode(found.completion_ids, skip_special_tokens=True) == "good"
    assert found.prompt_ids[-1] == found.completion_ids[-1] == tokenizer.eos_token_id
    assert found.num_cut == 0


@every_kind
def test_long_sources_lose_cuttable_text_only_and_it_is_counted(kind: str, family_tokenizer: Make) -> None:
    tokenizer = family_tokenizer(kind)
    ids, num_cut = encode_sources([example("the film was good " * 30, "x")], tokenizer, 20)[0]
    text = tokenizer.decode(ids, skip_special_tokens=True)
    assert len(ids) == 20
    assert num_cut > 0
    assert text.startswith("Read: the film")
    assert text.endswith(" Answer:")
    assert ids[-1] == tokenizer.eos_token_id
    with pytest.raises(DataError, match="E1301"):
        encode_sources([example("the film was good " * 30, "x", cuttable=False)], tokenizer, 20)


@every_kind
def test_an_instruction_is_read_first_and_stays_when_the_source_is_cut(kind: str, family_tokenizer: Make) -> None:
    tokenizer = family_tokenizer(kind)
    for text, room in (("the film", 64), ("the film was good " * 30, 40)):
        told = replace(example(text, "x"), instruction="Look at the film.")
        ids, num_cut = encode_sources([told], tokenizer, room)[0]
        assert tokenizer.decode(ids, skip_special_tokens=True).startswith("Look at the film.\nRead: the film")
        assert (num_cut > 0) == (room == 40)


def test_a_source_that_spells_a_special_token_stays_text(family_tokenizer: Make) -> None:
    tokenizer = family_tokenizer("t5")
    found = encode([example("a </s> b", "c </s> d")], tokenizer, 64)[0]
    assert list(found.prompt_ids).count(tokenizer.eos_token_id) == 1
    assert list(found.completion_ids).count(tokenizer.eos_token_id) == 1


def test_an_answer_longer_than_the_window_is_named(family_tokenizer: Make) -> None:
    with pytest.raises(DataError, match="E1303"):
        encode([example("film", "the film was good " * 30)], family_tokenizer("t5"), 32)


def test_the_decoder_reads_its_start_token_and_the_answer_without_its_last(family_config: Make) -> None:
    from types import SimpleNamespace

    model = model_of("t5", family_config)
    bare = SimpleNamespace(config=model.config)
    labels = torch.tensor([[7, 8, 3], [9, 3, -100]])
    assert shifted(bare, labels).tolist() == [[0, 7, 8], [0, 9, 3]]
    assert torch.equal(shifted(bare, labels), shifted(model, labels))


@every_kind
def test_a_folder_loads_with_its_window(kind: str, family_folder: Folder) -> None:
    loaded = load_model(str(family_folder(kind)), head="seq2seq")
    assert loaded.head == "seq2seq"
    assert loaded.window == (512 if kind == "t5" else 64)
