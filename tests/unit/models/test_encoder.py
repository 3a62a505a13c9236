"""Encoders: our loss and gradients are those of transformers' own forward, whatever the passes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from treetune.core.errors import DataError, ModelError
from treetune.core.records import Example, PromptPart
from treetune.models import classes, spans
from treetune.models.encoder import EncoderRow, batches_of
from treetune.models.load import load_model
from treetune.trees.passes import passes

KINDS = ("bert", "roberta", "modernbert")
every_kind = pytest.mark.parametrize("kind", KINDS)
Folder = Callable[[str], Path]
LABELS = ("positive", "negative", "neutral")
WORDS = {label: f" {label}" for label in LABELS}


def review(text: str, label: str) -> Example:
    answers = (label,) if label else ()
    return Example(0, "r", "train", (PromptPart(text, True),), f" {label}", answers, WORDS, text, "en")


REVIEWS = [review("The film was good.", "positive"), review("long", "negative"), review("It was " * 9, "neutral"),
           review("Ein Film, der lang war.", "negative"), review("good and long and good", "positive")]


def asked(context: str, answer: str, question: str = "What is the capital?") -> Example:
    start = context.find(answer) if answer else -1
    return Example(0, "q", "train", (PromptPart(context, True),), answer, (answer,), {}, context, "en",
                   question=question, spans=((start, start + len(answer)),) if answer else ())


QUESTIONS = [asked("Paris is the capital of France.", "Paris"), asked("The film was good.", ""),
             asked("The film was long. " * 12 + "Berlin is far.", "Berlin is"), asked("It is Rome", "Rome", "What?")]


def gradients(model: Any) -> dict[str, torch.Tensor]:
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return found


def padded_alone(rows: list[EncoderRow]) -> dict[str, torch.Tensor]:
    width = max(row.num_tokens for row in rows)
    given = {name: torch.zeros(len(rows), width, dtype=torch.long)
             for name in ("input_ids", "attention_mask", "token_type_ids")}
    for number, row in enumerate(rows):
        given["input_ids"][number, : row.num_tokens] = torch.from_numpy(row.input_ids)
        given["attention_mask"][number, : row.num_tokens] = 1
        if row.segment_ids is not None:
            given["token_type_ids"][number, : row.num_tokens] = torch.from_numpy(row.segment_ids)
    if rows[0].segment_ids is None:
        del given["token_type_ids"]
    return given


def our_gradients(model: Any, head: Any, rows: list[EncoderRow]) -> tuple[float, float, dict[str, torch.Tensor]]:
    total, count = 0.0, 0.0
    parts = [head.loss_sum(model, batch) for batch in batches_of(rows, "padded", 2, 1000)]
    for part in parts:
        part.total.backward()
        total, count = total + float(part.total.detach()), count + part.count
    return total / count, count, {name: grad / count for name, grad in gradients(model).items()}


@every_kind
def test_label_loss_and_all_gradients_are_those_of_transformers(kind: str, family_folder: Folder) -> None:
    loaded = load_model(str(family_folder(kind)), head="classes", labels=LABELS)
    model = loaded.model.double()
    rows = classes.encode(REVIEWS, loaded.tokenizer, loaded.window)
    theirs = model(**padded_alone(rows), labels=torch.tensor([0, 1, 2, 1, 0])).loss
    theirs.backward()
    wanted = gradients(model)
    loss, count, ours = our_gradients(model, classes, rows)
    assert count == 5
    assert loss == pytest.approx(float(theirs.detach()), abs=1e-10)
    compare(ours, wanted)


@every_kind
def test_span_loss_and_all_gradients_are_those_of_transformers(kind: str, family_folder: Folder) -> None:
    loaded = load_model(str(family_folder(kind)), head="spans")
    model = loaded.model.double()
    rows = spans.encode(QUESTIONS, loaded.tokenizer, loaded.window)
    assert len(rows) > len(QUESTIONS)
    targets = torch.from_numpy(np.stack([row.target for row in rows]))
    # theirs spreads probability over padding, too, so rows of one length are compared
    width = max(row.num_tokens for row in rows)
    same = [row for row in rows if row.num_tokens == width]
    theirs = model(**padded_alone(same), start_positions=targets[[row.num_tokens == width for row in rows]][:, 0],
                   end_positions=targets[[row.num_tokens == width for row in rows]][:, 1]).loss
    theirs.backward()
    wanted = gradients(model)
    loss, count, ours = our_gradients(model, spans, same)
    assert count == 2 * len(same)
    assert loss == pytest.approx(float(theirs.detach()), abs=1e-10)
    compare(ours, wanted)


def compare(ours: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == wanted.keys()
    assert sum(float(grad.abs().sum()) > 0 for grad in wanted.values()) > 10
    for name, grad in wanted.items():
        assert torch.allclose(ours[name], grad, atol=1e-8, rtol=1e-6), name


@every_kind
def test_padding_and_the_cut_into_passes_change_nothing(kind: str, family_folder: Folder) -> None:
    loaded = load_model(str(family_folder(kind)), head="spans")
    model = loaded.model.double()
    rows = spans.encode(QUESTIONS, loaded.tokenizer, loaded.window)
    with torch.no_grad():
        apart = sum(float(spans.loss_sum(model, batch).total) for batch in batches_of(rows, "padded", 1, 1))
        together = sum(float(spans.loss_sum(model, batch).total) for batch in batches_of(rows, "padded", 9, 9999))
    assert together == pytest.approx(apart, abs=1e-8)


def test_rows_of_like_length_share_a_pass_and_every_row_has_one() -> None:
    lengths = [5, 30, 6, 29, 7, 100]
    runs = list(passes(lengths, 3, 60))
    assert runs == [[0, 2, 4], [3, 1], [5]]
    assert list(passes([], 3, 60)) == []


def test_long_texts_are_cut_at_their_end_and_counted(family_tokenizer: Callable[[str], Any]) -> None:
    tokenizer = family_tokenizer("bert")
    short, long = classes.encode([review("good", "positive"), review("long film " * 40, "neutral")], tokenizer, 16)
    assert (short.num_cut, len(long.input_ids)) == (0, 16)
    assert long.num_cut == len(tokenizer("long film " * 40)["input_ids"]) - 16
    assert long.input_ids[-1] == tokenizer.sep_token_id
    assert short.target.tolist() == [0]
    assert classes.encode([review("x", "")], tokenizer, 16)[0].target.tolist() == [-100]
    assert classes.encode([], tokenizer, 16) == []


def test_a_text_that_spells_a_special_token_stays_text(family_tokenizer: Callable[[str], Any]) -> None:
    tokenizer = family_tokenizer("bert")
    row = classes.encode([review("a </s> b", "positive")], tokenizer, 32)[0]
    assert list(row.input_ids).count(tokenizer.sep_token_id) == 1
    row = spans.encode([asked("a </s> b Paris", "Paris", "<s> what?")], tokenizer, 32)[0]
    assert list(row.input_ids).count(tokenizer.sep_token_id) == 2


@every_kind
def test_windows_overlap_cover_the_context_and_the_target_spells_the_answer(
    kind: str, family_tokenizer: Callable[[str], Any]
) -> None:
    tokenizer = family_tokenizer(kind)
    question = QUESTIONS[2]
    rows = spans.encode([question], tokenizer, 40)
    assert len(rows) > 2
    covered = set()
    for row in rows:
        assert row.num_tokens <= 40
        assert row.offsets is not None
        inside = row.offsets[row.offsets[:, 0] >= 0]
        assert not covered or inside[0, 0] < max(covered), "no overlap"
        covered |= {place for start, end in inside for place in range(start, end)}
        first, last = row.target
        if first == last == spans.start_token(row.input_ids, tokenizer):
            continue
        text = question.source[row.offsets[first, 0] : row.offsets[last, 1]]
        assert text.strip() == "Berlin is"
    assert covered == set(range(len(question.source)))
    assert any(row.target[0] > 0 for row in rows)


def test_a_window_that_holds_only_part_of_the_answer_has_none(family_tokenizer: Callable[[str], Any]) -> None:
    tokenizer = family_tokenizer("bert")
    rows = spans.encode([asked("The film was long. " * 8, ("The film was long. " * 8).strip())], tokenizer, 40)
    assert all(row.target.tolist() == [0, 0] for row in rows)


def test_a_question_that_leaves_no_room_is_named(family_tokenizer: Callable[[str], Any]) -> None:
    with pytest.raises(DataError, match="E1302"):
        spans.encode([asked("Paris", "Paris", "What " * 40)], family_tokenizer("bert"), 40)


def test_no_answer_is_possible_only_where_training_showed_it() -> None:
    assert spans.settle(QUESTIONS) == {"no_answer": True}
    assert spans.settle(QUESTIONS[:1]) == {"no_answer": False}


def test_a_fresh_head_is_the_same_for_the_same_seed_and_body_weights_are_read(family_folder: Folder) -> None:
    first, again, other = (load_model(str(family_folder("bert")), head="classes", labels=LABELS, seed=seed).model
                           for seed in (0, 0, 1))
    assert torch.equal(first.classifier.weight, again.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    body = load_model(str(family_folder("bert")), head="masked").model.bert.encoder.layer[0].output.dense.weight
    assert torch.equal(first.bert.encoder.layer[0].output.dense.weight, body)
    assert first.config.id2label == dict(enumerate(LABELS))


def test_weights_that_are_missing_from_the_body_are_refused(family_folder: Folder, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(family_folder("bert"), folder)
    weights = load_file(folder / "model.safetensors")
    del weights["bert.encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError) as caught:
        load_model(str(folder), head="classes", labels=LABELS)
    assert caught.value.code == "E3009"
    assert "layer.1.output.dense" in caught.value.found


def test_roberta_counts_positions_from_behind_its_padding(family_folder: Folder) -> None:
    loaded = load_model(str(family_folder("roberta")), head="classes", labels=LABELS)
    assert loaded.window == 64
    ids = torch.full((1, loaded.window), 9)
    assert loaded.model(input_ids=ids).logits.shape == (1, 3)
    with pytest.raises((IndexError, RuntimeError)):
        loaded.model(input_ids=torch.full((1, loaded.window + 1), 9))
