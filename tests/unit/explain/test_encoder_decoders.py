"""Encoder-decoders are explained as they answer: one number by two ways, whole words, and where the answer looks."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from treetune.core.records import Example
from treetune.explain.attribution import METHODS, attribute
from treetune.explain.faithfulness import map_correlation
from treetune.explain.inside import attention, logit_lens, reliance
from treetune.explain.subject import varied
from treetune.explain.words import INSTRUCTION, SOURCE
from treetune.explain.written import Written, label_subject, text_subject
from treetune.models import seq2seq
from treetune.models.load import LoadedModel

KINDS = pytest.mark.parametrize("kind", ["t5", "bart", "marian"])
Load = Callable[[str], LoadedModel]


def subject_of(loaded: LoadedModel, sentence: Example, token: int | None = None) -> Written:
    return text_subject(loaded, sentence, "Ein Film", max_length=128, layout="padded", token=token)


@KINDS
def test_gradients_and_shortened_inputs_speak_of_one_number(
    encoder_decoder: Load, sentence: Example, kind: str
) -> None:
    subject = subject_of(encoder_decoder(kind), sentence)
    found = {method: attribute(subject, method) for method in METHODS}
    scores = [each.score for each in found.values()]
    assert scores == pytest.approx([scores[0]] * len(scores), abs=1e-5)
    whole = found["shapley"]
    assert whole.values.sum() == pytest.approx(whole.score - whole.without, rel=0.02, abs=1e-3)
    assert found["occlusion"].values.any()


@KINDS
def test_the_score_is_what_the_model_computes_for_the_row_itself(
    encoder_decoder: Load, sentence: Example, kind: str
) -> None:
    loaded = encoder_decoder(kind)
    subject = subject_of(loaded, sentence)
    [(ids, _)] = seq2seq.encode_sources([sentence], loaded.tokenizer, 128)
    assert subject.ids.tolist() == ids.tolist()
    answer = torch.from_numpy(subject.continuations[0].ids)[None]
    with torch.no_grad():
        logs = loaded.model(input_ids=torch.from_numpy(ids)[None], labels=answer).logits[0].log_softmax(-1)
    own = logs.gather(-1, answer[0][:, None])[:, 0]
    every = np.ones((1, len(subject.words)), dtype=bool)
    assert subject.log_probs_kept(every)[0] == pytest.approx(own.numpy(), abs=1e-6)
    rivals = logs.scatter(-1, answer[0][:, None], -torch.inf).max(-1).values
    assert float(subject.scores_of_embedded(subject.embedded()[None])[0].detach()) == pytest.approx(
        float((own - rivals).mean()), abs=1e-5)


def test_one_token_of_the_answer_and_a_label(
    encoder_decoder: Load, sentence: Example, review: Callable[..., Example]
) -> None:
    loaded = encoder_decoder("t5")
    second = subject_of(loaded, sentence, token=1)
    assert second.answered.answer == second.answered.tokens[1]
    assert attribute(second, "gradient_x_input").score == pytest.approx(attribute(second, "occlusion").score, abs=1e-5)
    text = "The film was good, 很好看."
    label = label_subject(loaded, review(text), "positive", "negative", max_length=128, layout="padded")
    named = [label.words[place] for place in varied(label)]
    assert {word.part for word in named} == {SOURCE}
    assert INSTRUCTION in {word.part for word in label.words}
    assert {"film", "很"} <= {word.text for word in named}
    assert reliance(label).with_source != reliance(label).without


@KINDS
def test_the_answer_looks_at_the_source_by_cross_attention(
    encoder_decoder: Load, sentence: Example, kind: str
) -> None:
    loaded = encoder_decoder(kind)
    subject = subject_of(loaded, sentence)
    found = attention(loaded, subject)
    assert found.heads.shape == (2, 4, len(subject.words))
    assert (found.layers.sum(-1) <= 1 + 1e-6).all()
    assert 0 < found.rollout.sum() <= 1 + 1e-6
    with torch.no_grad():  # another answer's beginning is the same: it is read before the first token is written
        again = attention(loaded, text_subject(loaded, sentence, "Das", max_length=128, layout="padded"))
    assert again.layers == pytest.approx(found.layers)
    assert logit_lens(loaded, subject) is None


def test_shuffled_weights_change_the_map(encoder_decoder: Load, sentence: Example) -> None:
    assert abs(map_correlation([subject_of(encoder_decoder("bart"), sentence)], "occlusion", 0)) < 0.95
