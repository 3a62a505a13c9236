"""The table of family and output: what works is told from config.json alone, what does not is refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from treetune.core.errors import ModelError, UsageError
from treetune.core.records import OutputKind
from treetune.core.settings import TuneSettings
from treetune.models import embedded
from treetune.models.family import (
    HEADS,
    configuration,
    family_of,
    family_of_head,
    head_for,
    kind_of,
    language_head,
    load_head,
    refuse_unread,
    working_pairs,
)
from treetune.tasks.contract import load_task, outputs_of, task_names


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., str]:
    """(entries of config.json) -> a folder that holds nothing else."""

    def make(**entries: Any) -> str:
        (tmp_path / "config.json").write_text(json.dumps(entries))
        return str(tmp_path)

    return make


@pytest.mark.parametrize(("entries", "family"), [
    ({"model_type": "bert"}, "encoder"), ({"model_type": "modernbert"}, "encoder"),
    ({"model_type": "xlm-roberta"}, "encoder"), ({"model_type": "bert", "is_decoder": True}, "decoder"),
    ({"model_type": "t5"}, "seq2seq"), ({"model_type": "marian", "is_encoder_decoder": True}, "seq2seq"),
    ({"model_type": "new", "is_encoder_decoder": True}, "seq2seq"), ({"model_type": "gpt3"}, "decoder"),
    ({"model_type": "qwen3"}, "decoder"), ({}, "decoder"),
])
def test_the_configuration_names_the_family(entries: dict[str, Any], family: str) -> None:
    assert family_of(entries) == family


@pytest.mark.parametrize(("kind", "heads"), [
    ("gpt2", {"translation": "causal", "summarization": "causal", "sentiment": "causal",
              "question_answering": "causal"}),
    ("roberta", {"sentiment": "classes", "question_answering": "spans"}),
    ("bart", {"translation": "seq2seq", "summarization": "seq2seq", "sentiment": "seq2seq",
              "question_answering": "seq2seq"}),
])
def test_every_pair_has_its_head_or_is_refused_with_the_pairs_that_work(
    folder: Callable[..., str], kind: str, heads: dict[str, str]
) -> None:
    name = folder(model_type=kind)
    for task in task_names():
        if task in heads:
            assert head_for(name, load_task(task)) == heads[task]
            continue
        with pytest.raises(ModelError, match="E3010") as caught:
            head_for(name, load_task(task))
        assert caught.value.found == "encoder × text"
        assert "encoder: question_answering, sentiment;" in caught.value.allowed
        assert task in str(caught.value)


def test_every_head_offers_what_training_asks_of_it() -> None:
    for (family, kind), name in HEADS.items():
        head = load_head(name)
        assert family_of_head(name) == family
        assert head.AUTO_CLASS.startswith("AutoModelFor")
        for function in ("encode", "batches_of", "loss_sum", "settle"):
            assert callable(getattr(head, function)), (name, function)
        assert any(kind in outputs_of(load_task(task)) for task in task_names())


def test_the_kind_of_answer_follows_from_head_and_task() -> None:
    assert kind_of("spans", load_task("question_answering")) == OutputKind.SPAN
    assert kind_of("seq2seq", load_task("question_answering")) == OutputKind.TEXT
    assert kind_of("seq2seq", load_task("sentiment")) == OutputKind.LABEL


def test_the_pairs_that_work_are_those_of_the_table() -> None:
    assert working_pairs().split("; ")[1] == "encoder: question_answering, sentiment"


def test_a_language_head_exists_for_models_with_a_language_of_their_own(folder: Callable[..., str]) -> None:
    assert language_head(folder(model_type="bert")) == "masked"
    assert language_head(folder(model_type="gpt2")) == "causal"
    with pytest.raises(ModelError, match="E3011"):
        language_head(folder(model_type="t5"))


def test_an_adapter_is_of_its_bases_family(folder: Callable[..., str], tmp_path_factory: Any) -> None:
    adapter = tmp_path_factory.mktemp("adapter")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": folder(model_type="bert")}))
    assert head_for(str(adapter), load_task("sentiment")) == "classes"


@pytest.mark.parametrize("content", ["{", "[1]", "null"])
def test_a_configuration_that_cannot_be_read_is_left_to_the_loader(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    assert configuration(str(tmp_path)) == {}
    assert configuration("./absent") == {}


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "MINILM_PACKAGE", "treetune_package_that_is_not_there")
    with pytest.raises(ModelError, match="E3012") as caught:
        head_for("minilm", load_task("sentiment"))
    assert "treetune[minilm]" in str(caught.value)


def test_minilm_is_an_encoder_with_real_weights() -> None:
    try:
        place = embedded.minilm_folder()
    except ModelError:
        pytest.skip("the minilm extra is not installed")
    assert head_for("minilm", load_task("question_answering")) == "spans"
    assert (place / "model.safetensors").stat().st_size > 80_000_000
    with pytest.raises(ModelError, match="E3010"):
        head_for("minilm", load_task("translation"))


@pytest.mark.parametrize(("kind", "head", "reads"), [
    ("gpt2", "causal", True), ("t5", "seq2seq", True), ("marian", "seq2seq", False), ("bert", "classes", False),
    ("roberta", "spans", False)])
def test_an_instruction_is_refused_where_it_would_not_be_read(
    folder: Callable[..., str], kind: str, head: str, reads: bool
) -> None:
    def settings(instruction: str) -> TuneSettings:
        return TuneSettings(task="sentiment", model=folder(model_type=kind), data="x", output_dir="x",
                            instruction=instruction)

    refuse_unread(settings(""), head)
    if reads:
        refuse_unread(settings("Judge it."), head)
        return
    with pytest.raises(UsageError, match="E2078") as caught:
        refuse_unread(settings("Judge it."), head)
    assert caught.value.found.endswith(kind)
    assert "leave --instruction away" in str(caught.value)
