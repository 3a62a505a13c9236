"""Models of the user's: looked at before they are used, and read as they are."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from treetune.core.errors import ModelError
from treetune.predict.second_model import SecondModel, borne_out, entailment_model, quality_model, spans_of

NLI = ["contradiction", "neutral", "ENTAILMENT"]


@pytest.fixture(scope="module")
def judge(
    family_config: Callable[..., Any], family_tokenizer: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """(labels) -> a folder with a random classifier of pairs."""

    def make(*labels: str) -> Path:
        tokenizer, config = family_tokenizer("roberta"), family_config("roberta")
        config.vocab_size = len(tokenizer)
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: place for place, label in enumerate(labels)}
        torch.manual_seed(1)
        folder = tmp_path_factory.mktemp("judges") / "judge"
        transformers.RobertaForSequenceClassification(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


def test_the_entailment_label_is_found_by_name_and_its_probability_given(judge: Callable[..., Path]) -> None:
    model = entailment_model(str(judge(*NLI)))
    assert model.place == 2
    texts, others = ["The film was good.", "long", "Ein Film"], ["good", "The film was long and long.", "x"]
    found = model.values(texts, others)
    for text, other, value in zip(texts, others, found, strict=True):
        with torch.no_grad():
            logits = model.loaded.model(**model.loaded.tokenizer(text, other, return_tensors="pt")).logits[0]
        assert value == pytest.approx(float(logits.softmax(-1)[2]), abs=1e-5)
    assert model.values(["The film " * 100], ["good " * 100]).shape == (1,)  # both are cut to the window


def test_quality_is_the_one_output(judge: Callable[..., Path]) -> None:
    model = quality_model(str(judge("quality")))
    (value,) = model.values(["The film was good."], ["Ein Film"])
    with torch.no_grad():
        given = model.loaded.tokenizer("The film was good.", "Ein Film", return_tensors="pt")
        logits = model.loaded.model(**given).logits
    assert value == pytest.approx(float(logits[0, 0]), abs=1e-5)


@pytest.mark.parametrize(("labels", "door", "code"), [
    (["a", "b"], entailment_model, "E3031"), (["one"], entailment_model, "E3031"), (NLI, quality_model, "E3032"),
])
def test_a_model_that_does_not_do_is_named(
    judge: Callable[..., Path], labels: list[str], door: Callable[[str], SecondModel], code: str
) -> None:
    with pytest.raises(ModelError) as caught:
        door(str(judge(*labels)))
    assert caught.value.code == code


def test_only_whole_encoders_in_folders_and_nothing_that_runs_code(
    judge: Callable[..., Path], family_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(judge(*NLI), tmp_path / "coded")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "x.Y"}}), "utf-8")
    pickled = shutil.copytree(judge(*NLI), tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    cases = [(folder, "E3004"), (pickled, "E3003"), (tmp_path / "none", "E3030"), (family_folder("t5"), "E3030"),
             (family_folder("roberta"), "E3030")]  # the last one has no classifier of its own
    for path, code in cases:
        with pytest.raises(ModelError) as caught:
            entailment_model(str(path))
        assert caught.value.code == code, path


class Listed(SecondModel):
    """Entails a sentence that the premise holds."""

    def __init__(self) -> None: ...

    def values(self, firsts: Any, seconds: Any) -> Any:
        return np.array([0.9 if second.rstrip(".") in first else 0.1 for first, second in zip(firsts, seconds,
                                                                                              strict=True)])


def test_the_least_supported_sentence_counts_by_the_source_sentence_that_supports_it_most() -> None:
    source = "It rained in the morning. Then the sun came out."
    found = borne_out(Listed(), [source] * 4, ["It rained.", "It rained. It snowed.", "", "the sun came out."])
    assert [value for value, _, _ in found] == pytest.approx([0.9, 0.1, 0.0, 0.9])
    assert found[1][1:] == (11, 21)
    assert "It rained. It snowed."[11:21] == "It snowed."


def test_spans_cover_the_sentences() -> None:
    text = "One here. Two there! 三。 Four"
    assert [text[start:end] for start, end in spans_of(text)] == ["One here.", "Two there!", "三。", "Four"]
