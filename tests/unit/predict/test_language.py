"""The language model itself: sums of probabilities, sums of log-probabilities, repeatable continuations."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from treetune.core.errors import UsageError
from treetune.models.load import LoadedModel, load_model
from treetune.predict.language import continue_text, masked_words, next_tokens, score_text, text_ids

WINDOW = 48
TEXTS = ["The film was good.", "x", "", "这部电影"]


def row_of(loaded: LoadedModel, text: str) -> list[int]:
    return [loaded.tokenizer.bos_token_id, *loaded.tokenizer(text, add_special_tokens=False)["input_ids"]]


def logs_of(loaded: LoadedModel, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logs: torch.Tensor = loaded.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return logs


def greedy_ids(loaded: LoadedModel, text: str, count: int) -> list[int]:
    ids = row_of(loaded, text)
    start = len(ids)
    while len(ids) < start + count and (len(ids) == start or ids[-1] != loaded.tokenizer.eos_token_id):
        ids.append(int(logs_of(loaded, ids)[-1].argmax()))
    return ids[start:]


@pytest.mark.parametrize("text", TEXTS)
def test_the_whole_vocabulary_sums_to_one_likeliest_first(loaded: LoadedModel, text: str) -> None:
    size = loaded.model.config.vocab_size
    tokens = next_tokens(loaded, text, size)
    values = [token.probability for token in tokens]
    assert len({token.id for token in tokens}) == size
    assert sum(values) == pytest.approx(1, abs=1e-12)
    assert values == sorted(values, reverse=True)
    wanted = logs_of(loaded, row_of(loaded, text))[-1].exp()
    assert all(token.probability == pytest.approx(float(wanted[token.id]), abs=1e-12) for token in tokens)


def test_the_likeliest_are_the_head_of_the_whole_list(loaded: LoadedModel) -> None:
    every = next_tokens(loaded, "The film", 10**6)
    assert len(every) == loaded.model.config.vocab_size
    assert next_tokens(loaded, "The film", 5) == every[:5]
    assert len(next_tokens(loaded, "The film")) == 10
    assert all(token.token == loaded.tokenizer.decode([token.id]) for token in every)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_scores_the_sum_of_its_log_probs(loaded: LoadedModel, text: str) -> None:
    ids = row_of(loaded, text)
    logs = logs_of(loaded, ids)
    total = sum(float(logs[place, token]) for place, token in enumerate(ids[1:]))
    score = score_text(loaded, text)
    assert score.log_prob == pytest.approx(total, abs=1e-9)
    assert score.num_tokens == len(ids) - 1
    assert score.num_bytes == len(text.encode())
    assert score.perplexity == pytest.approx(math.exp(-total / max(1, len(ids) - 1)))
    assert score.bits_per_byte * max(1, score.num_bytes) == pytest.approx(-total / math.log(2))


def test_a_text_that_fills_the_window_is_taken_and_a_longer_one_refused(loaded: LoadedModel) -> None:
    text = "x" * (WINDOW - 1)
    assert len(text_ids(loaded, text)) == WINDOW
    assert score_text(loaded, text).num_tokens == WINDOW - 1
    assert sum(token.probability for token in next_tokens(loaded, text, 10**6)) == pytest.approx(1)
    assert continue_text(loaded, text) == ""
    for use in (text_ids, next_tokens, score_text, continue_text):
        with pytest.raises(UsageError) as caught:
            use(loaded, text + "x")  # type: ignore[operator]
        assert caught.value.code == "E2020"
        assert (caught.value.found, caught.value.allowed) == (f"{WINDOW + 1} tokens", f"1 to {WINDOW} tokens")


@pytest.mark.parametrize("text", TEXTS)
def test_a_greedy_continuation_is_argmax_each_time(loaded: LoadedModel, text: str) -> None:
    wanted = loaded.tokenizer.decode(greedy_ids(loaded, text, 12), skip_special_tokens=True)
    assert continue_text(loaded, text, max_new_tokens=12) == wanted
    assert continue_text(loaded, text, max_new_tokens=12, seed=5) == wanted
    assert wanted


def test_a_continuation_stops_at_its_limit_and_at_the_window(loaded: LoadedModel) -> None:
    assert continue_text(loaded, "x", max_new_tokens=0) == ""
    text = "x" * (WINDOW - 4)
    wanted = loaded.tokenizer.decode(greedy_ids(loaded, text, 3), skip_special_tokens=True)
    assert continue_text(loaded, text, max_new_tokens=40) == wanted


def test_sampling_is_repeatable_and_the_seed_decides(loaded: LoadedModel) -> None:
    def sample(seed: int) -> str:
        return continue_text(loaded, "The film", max_new_tokens=12, temperature=1.0, seed=seed)

    texts = [sample(seed) for seed in range(6)]
    torch.rand(3)
    assert [sample(seed) for seed in range(6)] == texts
    assert len(set(texts)) == 6


def test_sampling_leaves_the_generator_of_the_program_as_it_was(loaded: LoadedModel) -> None:
    before = torch.get_rng_state()
    continue_text(loaded, "The film", max_new_tokens=3, temperature=1.0, seed=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_little_temperature_or_little_mass_leaves_the_likeliest(loaded: LoadedModel) -> None:
    wanted = continue_text(loaded, "The film", max_new_tokens=8)
    assert continue_text(loaded, "The film", max_new_tokens=8, temperature=1e-4) == wanted
    assert continue_text(loaded, "The film", max_new_tokens=8, temperature=1.0, top_p=1e-6) == wanted


@pytest.fixture
def encoder(family_folder: Callable[[str], Path]) -> LoadedModel:
    found = load_model(str(family_folder("bert")), head="masked")
    found.model.double()
    return found


def test_masked_words_are_the_model_s_own_probabilities(encoder: LoadedModel) -> None:
    found = masked_words(encoder, "The <mask> was <mask>.", 5)
    given = encoder.tokenizer("The <mask> was <mask>.", return_tensors="pt")
    with torch.no_grad():
        wanted = encoder.model(**given).logits[given["input_ids"] == encoder.tokenizer.mask_token_id].softmax(-1)
    assert [len(each) for each in found] == [5, 5]
    for words, row in zip(found, wanted, strict=True):
        assert [each.id for each in words] == row.topk(5).indices.tolist()
        assert [each.probability for each in words] == pytest.approx(row.topk(5).values.tolist())
    everything = masked_words(encoder, "The <mask>", 10**6)[0]
    assert sum(each.probability for each in everything) == pytest.approx(1)


def test_a_text_without_a_mask_or_beyond_the_window_is_refused(encoder: LoadedModel) -> None:
    with pytest.raises(UsageError, match="E2022"):
        masked_words(encoder, "The film")
    with pytest.raises(UsageError, match="E2020"):
        masked_words(encoder, "The <mask> " * 60)
