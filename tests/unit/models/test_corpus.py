"""From documents to blocks: nothing lost, nothing twice, nothing cut that need not be."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treetune.core.records import IntArray
from treetune.models.corpus import PIECES_AT_ONCE, best_fit, blocks, document_ids, shuffled, split_documents
from treetune.models.gpt3 import GPT3Tokenizer

sizes = st.lists(st.integers(1, 40), max_size=60)


def numbered(lengths: list[int]) -> list[IntArray]:
    """Documents of these lengths in which no token occurs twice."""
    return [np.arange(start, start + length)
            for start, length in zip(np.cumsum([0, *lengths])[:-1].tolist(), lengths, strict=True)]


def tokens_of(documents: list[IntArray], length: int) -> list[list[int]]:
    return [[*each.prompt_ids, *each.completion_ids] for each in blocks(documents, length)]


@settings(deadline=None)
@given(sizes, st.integers(0, 30))
def test_best_fit_places_every_piece_once_and_whole(lengths: list[int], more: int) -> None:
    room = max(lengths, default=1) + more
    filled = best_fit(numbered(lengths), room)
    assert sorted(int(piece[0]) for block in filled for piece in block) == [int(each[0]) for each in numbered(lengths)]
    assert sum(len(piece) for block in filled for piece in block) == sum(lengths)
    assert all(block and sum(map(len, block)) <= room for block in filled)


@settings(deadline=None)
@given(sizes)
def test_best_fit_leaves_at_most_one_block_half_empty(lengths: list[int]) -> None:
    """Two blocks that are half empty would have been one."""
    fill = [sum(map(len, block)) for block in best_fit(numbered(lengths), 40)]
    assert sum(each <= 20 for each in fill) <= 1


def test_best_fit_takes_the_fullest_block_with_room() -> None:
    fill = [sorted(map(len, block)) for block in best_fit(numbered([8, 6, 2, 4]), 10)]
    assert sorted(fill) == [[2, 8], [4, 6]]


@settings(deadline=None)
@given(sizes, st.integers(3, 30))
def test_blocks_hold_every_token_once_and_cut_only_what_is_longer_than_the_window(lengths: list[int], length: int
                                                                                  ) -> None:
    documents = numbered(lengths)
    made = tokens_of(documents, length)
    assert all(2 <= len(block) <= length + 1 for block in made)
    lone = set(range(sum(lengths))) - {token for block in made for token in block}
    assert len(lone) == sum(lengths) - sum(map(len, made))  # no token twice
    assert len(lone) <= 1  # a block of one token has no label
    where = {token: (number, place) for number, block in enumerate(made) for place, token in enumerate(block)}
    for document in documents:
        if len(document) <= length + 1 and document[0] not in lone:
            number, place = where[int(document[0])]
            assert [where[int(token)] for token in document] == [(number, place + n) for n in range(len(document))]


def test_every_token_but_the_first_of_a_block_is_a_label() -> None:
    (only,) = blocks(numbered([3, 4]), 10)
    assert len(only.prompt_ids) == 1
    assert len(only.completion_ids) == 6
    assert only.num_cut == 0


def test_a_document_longer_than_the_window_is_cut_into_full_pieces() -> None:
    assert sorted(tokens_of(numbered([25]), 9)) == [[*range(10)], [*range(10, 20)], [*range(20, 25)]]


def test_blocks_keep_the_mix_of_the_order_given() -> None:
    """Pieces are sorted by length among a thousand neighbours, not among all."""
    made = tokens_of(numbered([2] * PIECES_AT_ONCE + [5] * 10), 9)
    border = 2 * PIECES_AT_ONCE
    assert made[0] == [*range(10)]
    assert all(block[0] >= border for block in made[-5:])
    assert all(max(block) < border or min(block) >= border for block in made)


@pytest.mark.parametrize("budget", [1, 10, 25, 10**6])
def test_document_ids_stop_once_the_budget_is_reached(budget: int, tokenizer: GPT3Tokenizer) -> None:
    texts = ["The film was good.", "Ein Film", "这部电影", "the film was long and the film was good."] * 3
    found = document_ids(iter(texts), tokenizer, budget)
    plain = [[tokenizer.eos_token_id, *tokenizer(text)["input_ids"]] for text in texts]
    assert [each.tolist() for each in found] == plain[: len(found)]
    total = [len(each) for each in found]
    assert sum(total[:-1]) < budget
    assert sum(total) >= budget or len(found) == len(texts)


def test_the_name_of_the_end_token_in_a_text_is_text(tokenizer: GPT3Tokenizer) -> None:
    (found,) = document_ids(["a <|endoftext|> b"], tokenizer, 100)
    assert found.tolist().count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(found[1:]) == "a <|endoftext|> b"


def test_many_documents_are_tokenized_in_more_than_one_chunk(
    tokenizer: GPT3Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"film {number}" for number in range(23)]
    whole = document_ids(texts, tokenizer, 10**6)
    monkeypatch.setattr("treetune.models.corpus.CHUNK_DOCUMENTS", 5)
    chunked = document_ids(texts, tokenizer, 10**6)
    assert len(whole) == 23
    assert all(map(np.array_equal, whole, chunked))


def test_shuffled_depends_on_seed_and_name_only() -> None:
    texts = [str(number) for number in range(50)]
    first = shuffled(texts, 0, "a")
    assert first == shuffled(texts, 0, "a") != texts
    assert sorted(first, key=int) == texts
    assert len({tuple(first), tuple(shuffled(texts, 1, "a")), tuple(shuffled(texts, 0, "b"))}) == 3


@pytest.mark.parametrize(
    ("count", "held_out", "share", "expected"),
    [(100, 12, 0.5, 3), (100, 10**6, 0.05, 5), (3, 10**6, 0.05, 1), (100, 5, 0.5, 1), (0, 5, 0.5, 0)],
)
def test_held_out_documents_are_cut_off_the_front(count: int, held_out: int, share: float, expected: int) -> None:
    length_of: Callable[[str], int] = lambda text: 5  # noqa: E731
    texts = [str(number) for number in range(count)]
    training, kept_out = split_documents(texts, length_of, held_out, share)
    assert kept_out == texts[:expected]
    assert training == texts[expected:]
