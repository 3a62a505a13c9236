"""What a gate is bound to: every change of weights, files, settings or prompt is seen, and nothing else is."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from treetune.tasks import sentiment
from treetune.tasks.contract import TaskOptions, load_task, task_names
from treetune.workflow.scope import TOKENIZER_FILES, files_digest, prompt_digest, scope_of, weights_digest


def model(**changed: torch.Tensor) -> SimpleNamespace:
    torch.manual_seed(0)
    weights = {"a": torch.randn(3, 4), "b": torch.tensor(1.5), "c": torch.arange(5, dtype=torch.bfloat16), **changed}
    return SimpleNamespace(state_dict=lambda: weights)


def test_the_weights_digest_sees_values_types_shapes_and_names() -> None:
    before = weights_digest(model())
    assert weights_digest(model()) == before
    own = model().state_dict()
    for changed in ({"a": own["a"] + 1e-7}, {"a": own["a"].half()}, {"a": own["a"].reshape(4, 3)},
                    {"b": torch.tensor(1.25)}, {"d": torch.zeros(1)}):
        assert weights_digest(model(**changed)) != before


def test_a_transposed_view_is_the_tensor_it_shows() -> None:
    own = model().state_dict()["a"]
    assert weights_digest(model(a=own.T.contiguous().T)) == weights_digest(model())


def test_only_the_tokenizer_s_files_count_as_such(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    before = files_digest(tmp_path, TOKENIZER_FILES)
    (tmp_path / "README.md").write_text("hello")
    assert files_digest(tmp_path, TOKENIZER_FILES) == before
    (tmp_path / "merges.txt").write_text("a b")
    changed = files_digest(tmp_path, TOKENIZER_FILES)
    assert changed != before
    (tmp_path / "merges.txt").write_text("a c")
    assert files_digest(tmp_path, TOKENIZER_FILES) != changed


@pytest.mark.parametrize("name", task_names())
def test_the_prompt_of_every_task_can_be_told(name: str) -> None:
    task, options = load_task(name), TaskOptions(("negative", "positive") if name == "sentiment" else ())
    digests = {prompt_digest(task, TaskOptions(options.labels, language)) for language in ("auto", "en", "zh")}
    assert len(digests) == (2 if name == "translation" else 3)  # translation: auto is English
    assert prompt_digest(task, options) in digests


def test_a_changed_wording_or_label_is_another_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    task, options = load_task("sentiment"), TaskOptions(("negative", "positive"))
    before = prompt_digest(task, options)
    assert prompt_digest(task, TaskOptions(("negative", "neutral", "positive"))) != before
    made = sentiment.example_from_row

    def reworded(row: object, options: TaskOptions, *, with_answer: bool = True) -> object:
        from dataclasses import replace

        example = made(row, options, with_answer=with_answer)  # type: ignore[arg-type]
        first = replace(example.prompt[0], text=example.prompt[0].text + "!")
        return replace(example, prompt=(first, *example.prompt[1:]))

    monkeypatch.setattr(sentiment, "example_from_row", reworded)
    assert prompt_digest(task, options) != before


def test_the_way_of_answering_is_in_the_scope_and_settings_to_come_are_not(tmp_path: Path) -> None:
    facts = {"task": "question_answering", "max_new_tokens": 8, "engine": {}}

    def settings_of(**more: object) -> str:
        folder = SimpleNamespace(model=tmp_path)
        run = SimpleNamespace(facts={**facts, **more}, loaded=SimpleNamespace(model=model()), folder=folder,
                              task=load_task("qa"), options=TaskOptions())
        return scope_of(run)["settings"]  # type: ignore[arg-type]

    seen = [settings_of(), settings_of(answers_from="source"), settings_of(answers_from="anything"),
            settings_of(answers_from="source", no_repeat_ngram_size=3), settings_of(instruction="Answer.")]
    assert len(set(seen)) == 5
    assert settings_of(engine={"blocks": True}, seconds=3) == seen[0]


@pytest.mark.parametrize(("name", "digest"), [
    ("question_answering", "133fe596b6cb087509a98f0c7ef87939e59baeddde89328a687a1fb69e5bad8b"),
    ("sentiment", "de1ac1a04cbbfee05b27c1e75e6e879107e25a24b58d3af85f9955377a3908fb"),
    ("summarization", "4d1f525b5d57d91f0133ade8e055fbab00dd00f31f38448b92b3085e7f8fa2c3"),
    ("translation", "bab83a427c3e708b436de168f2cc2f6c7f35335f6dd463b3d6e38aa4b4c81e75"),
])
def test_an_instruction_is_another_prompt_and_none_is_the_prompt_of_before_there_were_any(
    name: str, digest: str
) -> None:
    task, options = load_task(name), TaskOptions(("positive", "negative") if name == "sentiment" else ())
    assert prompt_digest(task, options) == digest  # gates of before are bound to it
    told = {prompt_digest(task, replace(options, instruction=text)) for text in ("Do it.", "Do it!", "Do it.\n")}
    assert len(told) == 2  # a newline is put behind it anyway
    assert digest not in told
