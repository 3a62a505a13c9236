"""Label heads: probabilities over the labels, in the order of the examples."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from treetune.core.records import Example, PromptPart
from treetune.models.classes import reference_log_probs
from treetune.models.load import LoadedModel, load_model
from treetune.predict.classes import predict_classes

LABELS = ("positive", "negative", "neutral")
TEXTS = ["The film was good.", "long", "It was long and good. " * 20, "Ein Film"]
EXAMPLES = [Example(10 + n, f"r{n}", "test", (PromptPart(text, True),), "", (LABELS[n % 3],),
                    {label: f" {label}" for label in LABELS}, text, "en") for n, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def loaded(family_folder: Callable[[str], Path]) -> LoadedModel:
    found = load_model(str(family_folder("roberta")), head="classes", labels=LABELS)
    found.model.double()
    return found


@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize("rows_per_pass", [1, 3])
def test_the_answer_is_the_head_s_likeliest_label(loaded: LoadedModel, rows_per_pass: int, layout: str) -> None:
    found = predict_classes(loaded, EXAMPLES, max_length=loaded.window, rows_per_pass=rows_per_pass, layout=layout)
    assert [each.row for each in found] == [10, 11, 12, 13]
    assert [each.num_cut > 0 for each in found] == [False, False, True, False]
    for text, each in zip(TEXTS, found, strict=True):
        given = loaded.tokenizer(text, truncation=True, max_length=loaded.window, return_tensors="pt")
        with torch.no_grad():
            wanted = loaded.model(**given).logits[0].softmax(-1)
        assert each.answer == LABELS[int(wanted.argmax())]
        assert [each.scores[f"probability:{label}"] for label in LABELS] == pytest.approx(wanted.tolist())
        first, second = sorted(wanted.tolist(), reverse=True)[:2]
        assert each.scores["probability"] == pytest.approx(first)
        assert each.scores["margin"] == pytest.approx(first - second)


def test_reference_probabilities_are_of_the_reference_label(loaded: LoadedModel) -> None:
    found = predict_classes(loaded, EXAMPLES, max_length=loaded.window, rows_per_pass=2)
    logs = reference_log_probs(loaded, EXAMPLES, loaded.window, "padded")
    for each, own, example in zip(found, logs, EXAMPLES, strict=True):
        assert torch.tensor(own).exp().tolist() == pytest.approx([each.scores[f"probability:{example.answers[0]}"]])
