"""Attributions add up where they must, agree with captum, and do not depend on how inputs are laid out."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from treetune.core.errors import UsageError
from treetune.core.records import Example, Prediction
from treetune.explain.attribution import METHODS, STEPS, attribute, integrated_gradients
from treetune.explain.choose import subject_of
from treetune.explain.read import Read, class_subject, mask_id, span_subject
from treetune.explain.subject import varied
from treetune.explain.words import INSTRUCTION, QUESTION, SOURCE, sums_of_words
from treetune.explain.written import Written, label_subject, read_input, text_subject
from treetune.models.load import LoadedModel
from treetune.models.tokens import tokenize
from treetune.tasks import sentiment

TEXT = "The film was good, 很好看 and long."
Subjects = dict[str, Any]


@pytest.fixture(scope="module")
def subjects(
    decoder: LoadedModel, encoder: Callable[[str], LoadedModel], review: Callable[..., Example], asked: Example,
    sentence: Example,
) -> Subjects:
    return {
        "label": label_subject(decoder, review(TEXT), "positive", "negative", max_length=64, layout="tree"),
        "text": text_subject(decoder, sentence, " Ein Film", max_length=64, layout="tree"),
        "token": text_subject(decoder, sentence, " Ein Film", max_length=64, layout="tree", token=1),
        "class": class_subject(encoder("classes"), review(TEXT), "positive", "negative", max_length=64),
        "span": span_subject(encoder("spans"), asked, 0, 5, max_length=64),
    }


@pytest.mark.parametrize("name", ["label", "text", "token", "class", "span"])
def test_both_ways_to_compute_the_score_agree_and_sums_are_complete(subjects: Subjects, name: str) -> None:
    subject = subjects[name]
    places = varied(subject)
    assert {subject.words[place].part for place in places} <= {SOURCE, QUESTION}
    found = {method: attribute(subject, method) for method in METHODS}
    scores = [each.score for each in found.values()]
    assert scores == pytest.approx([scores[0]] * len(scores), abs=1e-5)
    for method in ("integrated_gradients", "shapley"):
        one = found[method]
        assert one.values.sum() == pytest.approx(one.score - one.without, rel=0.02, abs=1e-3)
    outside = np.setdiff1d(np.arange(len(subject.words)), places)
    assert not any(each.values[outside].any() for each in found.values())
    assert found["occlusion"].values.any()


@pytest.mark.parametrize("name", ["label", "text"])
def test_a_tree_of_shortened_inputs_gives_what_single_rows_give(subjects: Subjects, name: str) -> None:
    tree = subjects[name]
    kept = np.random.default_rng(0).random((12, len(tree.words))) < 0.6
    padded = replace(tree, layout="padded")
    assert tree.scores_kept(kept) == pytest.approx(padded.scores_kept(kept), abs=1e-5)
    for each, score in zip(kept[:3], tree.scores_kept(kept[:3]), strict=True):
        short = replace(tree, ids=tree._shortened(each))
        assert float(tree.scores_of_embedded(short.embedded()[None])[0].detach()) == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize("name", ["label", "class", "span"])
def test_integrated_gradients_are_captums(subjects: Subjects, name: str) -> None:
    captum = pytest.importorskip("captum.attr")
    subject = subjects[name]
    tokens = [token for place in varied(subject) for token in subject.words[place].tokens]
    ids = torch.from_numpy(subject.ids if isinstance(subject, Written) else subject.row.input_ids)
    blank = mask_id(subject.loaded.tokenizer) if isinstance(subject, Read) else 7
    start = ids.clone()
    start[tokens] = blank
    layer = subject.loaded.model.get_input_embeddings()
    how = {"n_steps": STEPS, "internal_batch_size": STEPS}
    if isinstance(subject, Read):
        method = captum.LayerIntegratedGradients(lambda given: subject.scores_of_embedded(layer(given)), layer)
        theirs = method.attribute(ids[None], baselines=start[None], **how)
    else:  # the answer goes through the same layer, which captum would overwrite
        theirs = captum.IntegratedGradients(subject.scores_of_embedded).attribute(
            layer(ids).detach()[None], baselines=layer(start).detach()[None], **how)
    words = sums_of_words(subject.words, theirs[0].sum(-1).detach().double().numpy())
    ours = integrated_gradients(subject, varied(subject), baseline=layer.weight.detach()[blank]).values
    assert ours == pytest.approx(words, abs=1e-6)


def test_the_input_is_the_one_that_prediction_reads_also_when_cut(
    decoder: LoadedModel, review: Callable[..., Example]
) -> None:
    for text in (TEXT, "good " * 80):
        example = review(text)
        [row] = tokenize([example], decoder.tokenizer, 40, with_completion=False)
        ids, words = read_input(decoder, example, 40)
        assert ids.tolist() == row.prompt_ids.tolist()
        assert [token for word in words for token in word.tokens] == list(range(1, len(ids)))[-len(ids) + 1 :] or (
            sorted(token for word in words for token in word.tokens)[-1] == len(ids) - 1)
        assert {word.part for word in words} == {SOURCE, INSTRUCTION}


def test_only_the_asked_token_counts(subjects: Subjects) -> None:
    whole, one = subjects["text"], subjects["token"]
    assert one.answered.answer == whole.answered.tokens[1]
    assert one.answered.answer != one.answered.rival
    assert len(one.continuations[0].weight) == 2


def test_with_the_instruction_its_words_are_varied_too(subjects: Subjects) -> None:
    found = attribute(subjects["label"], "gradient_x_input", with_instruction=True)
    assert len(found.places) == len(subjects["label"].words)


def test_wrong_questions_are_refused(
    decoder: LoadedModel, review: Callable[..., Example], subjects: Subjects, sentence: Example
) -> None:
    scores = {"probability": 0.6, "probability:positive": 0.6, "probability:negative": 0.4}
    said = Prediction(0, "0", "test", "positive", " positive", scores, (-0.5,), True, 0, 0.0)
    for against, token, code in (("positive", None, "E2609"), ("", 1, "E2608")):
        with pytest.raises(UsageError) as caught:
            subject_of(decoder, sentiment, review(TEXT), said, max_length=64, layout="tree", against=against,
                       token=token)
        assert caught.value.code == code
    with pytest.raises(UsageError) as caught:
        attribute(subjects["label"], "guess")
    assert caught.value.code == "E2607"
    with pytest.raises(UsageError) as caught:
        text_subject(decoder, sentence, " Ein", max_length=64, layout="tree", token=99)
    assert caught.value.code == "E2604"


@pytest.mark.parametrize("method", ["integrated_gradients", "shapley", "occlusion"])
def test_an_instruction_is_read_and_not_explained_and_sums_stay_complete(
    decoder: LoadedModel, review: Callable[..., Example], method: str
) -> None:
    example = replace(review("The film was good."), instruction="The film was good.")  # what the row says, too
    subject = label_subject(decoder, example, "positive", "negative", max_length=64, layout="tree")
    [row] = tokenize([example], decoder.tokenizer, 64, with_completion=False)
    assert subject.ids.tolist() == row.prompt_ids.tolist()
    own = [word for word in subject.words if word.part == SOURCE]
    assert [word.text for word in own] == [word.text for word in subject.words if word.part == INSTRUCTION][:len(own)]
    assert min(token for word in own for token in word.tokens) > row.num_instruction
    found = attribute(subject, method)
    assert [subject.words[place] for place in found.places] == own
    if method != "occlusion":
        assert found.values.sum() == pytest.approx(found.score - found.without, rel=0.02, abs=1e-3)
    bare = label_subject(decoder, review("The film was good."), "positive", "negative", max_length=64, layout="tree")
    assert found.score != pytest.approx(attribute(bare, method).score, abs=1e-6)


def test_a_question_s_words_are_not_taken_for_an_instruction_that_asks_the_same(
    decoder: LoadedModel, asked: Example
) -> None:
    _, words = read_input(decoder, replace(asked, instruction=asked.question), 128)
    said = {part: [word.text for word in words if word.part == part] for part in (INSTRUCTION, QUESTION)}
    assert said[QUESTION] == ["What", "is", "it", "?"]
    assert said[INSTRUCTION][:4] == said[QUESTION]
    assert words[0].part == INSTRUCTION
