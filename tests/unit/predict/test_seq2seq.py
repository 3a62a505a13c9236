"""Encoder-decoders at prediction: greedy and stopped, probabilities those of the model, sources read once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from treetune.core.records import Example, PromptPart
from treetune.models.load import LoadedModel, load_model
from treetune.models.seq2seq import encode_sources
from treetune.predict.seq2seq import reference_log_probs, score_candidates, write_answers
from treetune.tasks.contract import load_task

WORDS = {label: f" {label}" for label in ("positive", "negative", "neutral")}
TEXTS = ["The film was good.", "long", "The film was good.", "Ein guter Film, der lang war."]
EXAMPLES = [Example(n, f"r{n}", "test", (PromptPart(text, True), PromptPart(" Label:")), " positive", ("positive",),
                    WORDS, text, "en") for n, text in enumerate(TEXTS)]
TASK = load_task("summarization")


@pytest.fixture(scope="module", params=["t5", "bart", "marian"])
def loaded(request: pytest.FixtureRequest, family_folder: Callable[[str], Path]) -> LoadedModel:
    found = load_model(str(family_folder(request.param)), head="seq2seq")
    found.model.double()
    return found


def by_hand(loaded: LoadedModel, example: Example, count: int) -> tuple[list[int], list[float]]:
    """Greedy decoding without a cache, one forward a token."""
    ids, logs = [loaded.model.config.decoder_start_token_id], []
    source = torch.from_numpy(encode_sources([example], loaded.tokenizer, 64)[0][0])[None]
    forbidden = loaded.model.generation_config.bad_words_ids or []
    while len(logs) < count:
        with torch.no_grad():
            row = loaded.model(input_ids=source, decoder_input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        allowed = row.clone()
        for words in forbidden:
            allowed[words[0]] = -torch.inf
        ids.append(int(allowed.argmax()))
        logs.append(float(row[ids[-1]]))
        if ids[-1] == loaded.tokenizer.eos_token_id:
            break
    return ids[1:], logs


@pytest.mark.parametrize("rows_per_pass", [1, 8])
def test_answers_are_greedy_and_stop(loaded: LoadedModel, rows_per_pass: int) -> None:
    found = write_answers(loaded, TASK, EXAMPLES, max_length=64, max_new_tokens=7, rows_per_pass=rows_per_pass)
    assert [each.row for each in found] == [0, 1, 2, 3]
    for example, each in zip(EXAMPLES, found, strict=True):
        ids, logs = by_hand(loaded, example, 7)
        assert each.token_log_probs == pytest.approx(logs, abs=1e-6)
        assert each.text == loaded.tokenizer.decode(ids, skip_special_tokens=True)
        assert each.finished == (ids[-1] == loaded.tokenizer.eos_token_id)
        assert each.scores["probability"] == pytest.approx(torch.tensor(logs).sum().exp().item(), rel=1e-5)


def test_a_models_own_least_length_is_not_kept_and_nothing_is_said_of_it(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*words: Any) -> None:
        raise AssertionError(words)

    def ends_at_once(model: Any, given: Any, output: Any) -> Any:
        output.logits[..., loaded.tokenizer.eos_token_id] = 1e4
        return output

    monkeypatch.setattr("transformers.generation.utils.logger.warning", said)
    monkeypatch.setattr(loaded.model.generation_config, "min_length", 9)
    monkeypatch.setattr(loaded.model.generation_config, "min_new_tokens", 7)
    with loaded.model.register_forward_hook(ends_at_once):
        found = write_answers(loaded, TASK, EXAMPLES, max_length=64, max_new_tokens=12, rows_per_pass=8)
    assert [len(each.token_log_probs) for each in found] == [1] * len(EXAMPLES)


def test_an_equal_source_is_read_once(loaded: LoadedModel) -> None:
    seen: list[int] = []
    handle = loaded.model.get_encoder().register_forward_hook(
        lambda module, args, given, result: seen.append(len(given["input_ids"] if "input_ids" in given else args[0])),
        with_kwargs=True)
    found = write_answers(loaded, TASK, EXAMPLES, max_length=64, max_new_tokens=4, rows_per_pass=8)
    assert sum(seen) == 3
    seen.clear()
    score_candidates(loaded, EXAMPLES, max_length=64, rows_per_pass=100)
    handle.remove()
    assert sum(seen) == 3
    assert found[0].text == found[2].text


def test_labels_are_scored_by_the_probability_of_their_words(loaded: LoadedModel) -> None:
    found = score_candidates(loaded, EXAMPLES, max_length=64, rows_per_pass=5)
    for example, each in zip(EXAMPLES, found, strict=True):
        source = torch.from_numpy(encode_sources([example], loaded.tokenizer, 64)[0][0])[None]
        totals: list[Any] = []
        for word in WORDS.values():
            labels = torch.tensor([loaded.tokenizer(word.strip())["input_ids"]])
            with torch.no_grad():
                totals.append(-loaded.model(input_ids=source, labels=labels).loss * labels.numel())
        wanted = torch.stack(totals).softmax(0)
        assert [each.scores[f"probability:{label}"] for label in WORDS] == pytest.approx(wanted.tolist(), abs=1e-6)
        assert each.answer == list(WORDS)[int(wanted.argmax())]


def test_reference_probabilities_belong_to_their_rows(loaded: LoadedModel) -> None:
    found = reference_log_probs(loaded, EXAMPLES, 64, "padded")
    assert found[0] == pytest.approx(found[2])
    count = len(loaded.tokenizer("positive")["input_ids"])
    assert [len(each) for each in found] == [count] * 4
    assert found[0] != pytest.approx(found[1])
