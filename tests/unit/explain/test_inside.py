"""Attention is a distribution, the last layer's lens is the model's own probability, reliance is a difference."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from treetune.core.records import Example
from treetune.explain.inside import attention, logit_lens, reliance
from treetune.explain.read import class_subject, span_subject
from treetune.explain.words import SOURCE
from treetune.explain.written import label_subject
from treetune.models.load import LoadedModel

TEXT = "The film was good and long."


def test_attention_of_a_decoder_and_an_encoder(
    decoder: LoadedModel, encoder: Callable[[str], LoadedModel], review: Callable[..., Example]
) -> None:
    classes = encoder("classes")
    for loaded, subject in (
        (decoder, label_subject(decoder, review(TEXT), "positive", "negative", max_length=64, layout="tree")),
        (classes, class_subject(classes, review(TEXT), "positive", "negative", max_length=64)),
    ):
        before = loaded.model.config._attn_implementation
        found = attention(loaded, subject)
        assert loaded.model.config._attn_implementation == before
        assert found.heads.shape == (2, 4, len(subject.words))
        assert (found.layers >= 0).all()
        assert (found.layers.sum(-1) <= 1 + 1e-6).all()
        assert 0 < found.rollout.sum() <= 1 + 1e-6


def test_the_lens_of_the_last_layer_is_what_the_model_says(
    decoder: LoadedModel, encoder: Callable[[str], LoadedModel], review: Callable[..., Example]
) -> None:
    subject = label_subject(decoder, review(TEXT), "positive", "negative", max_length=64, layout="tree")
    lens = logit_lens(decoder, subject)
    assert lens is not None
    assert len(lens.layers) == 3
    with torch.no_grad():
        chance = decoder.model(input_ids=torch.from_numpy(subject.ids)[None]).logits[0, -1].softmax(-1)
    assert lens.layers[-1][0] == pytest.approx(float(chance[subject.continuations[0].ids[0]]), abs=1e-6)
    classes = encoder("classes")
    assert logit_lens(classes, class_subject(classes, review(TEXT), "positive", "negative", max_length=64)) is None


def test_reliance_takes_the_source_away_and_leaves_the_instruction(
    decoder: LoadedModel, encoder: Callable[[str], LoadedModel], review: Callable[..., Example], asked: Example
) -> None:
    subject = label_subject(decoder, review(TEXT), "positive", "negative", max_length=64, layout="tree")
    found = reliance(subject)
    kept = np.array([[word.part != SOURCE for word in subject.words]])
    assert found.without == pytest.approx(float(subject.log_probs_kept(kept).sum()))
    assert sum(found.pieces) == pytest.approx(found.with_source - found.without)
    span = span_subject(encoder("spans"), asked, 0, 5, max_length=64)
    asked_away = np.array([[word.part == SOURCE for word in span.words]])
    assert reliance(span).without == pytest.approx(float(span.log_probs_kept(asked_away).sum()))
