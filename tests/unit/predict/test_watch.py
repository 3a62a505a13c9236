"""Watching a generation changes nothing, tells every token once, and stops the rows nobody waits for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from treetune.core.records import Example, Row
from treetune.models.engine import fullest_engine, set_up
from treetune.models.load import LoadedModel, load_model
from treetune.predict.generate import generate_answers
from treetune.predict.seq2seq import write_answers
from treetune.tasks import summarization
from treetune.tasks.contract import TaskOptions

WINDOW = 96
TEXTS = ["The film was good.", "x", "这部电影很好看。", "The film was good.", "A long film, and then it went on."]
NEW = 7


def examples() -> list[Example]:
    return [summarization.example_from_row(Row({"document": text}, "f.csv", n + 2, n, "test"), TaskOptions(),
                                           with_answer=False) for n, text in enumerate(TEXTS)]


def by_decoder(loaded: LoadedModel, layout: str, **more: Any) -> Any:
    if layout == "tree":
        set_up(loaded.model, fullest_engine(loaded.model))
    return generate_answers(loaded, summarization, examples(), max_length=WINDOW, max_new_tokens=NEW, rows_per_pass=3,
                            layout=layout, **more)


def check(answer: Callable[..., Any]) -> None:
    plain = answer()
    told: list[list[int]] = [[] for _ in TEXTS]
    watched = answer(on_token=lambda place, token: told[place].append(token) is None)
    assert [each.text for each in watched] == [each.text for each in plain]
    assert [len(ids) for ids in told] == [len(each.token_log_probs) for each in plain]
    counts = [0] * len(TEXTS)

    def two_tokens_of_the_first(place: int, token: int) -> bool:
        counts[place] += 1
        return place != 0 or counts[0] < 2

    stopped = answer(on_token=two_tokens_of_the_first)
    assert counts[0] == min(2, len(told[0]))
    assert counts[1:] == [len(ids) for ids in told[1:]]
    assert [each.text for each in stopped[1:]] == [each.text for each in plain[1:]]


@pytest.mark.parametrize("layout", ["padded", "tree"])
def test_of_a_decoder(loaded: LoadedModel, layout: str) -> None:
    check(lambda **more: by_decoder(loaded, layout, **more))


def test_of_an_encoder_decoder_whose_equal_sources_are_written_once(family_folder: Callable[[str], Path]) -> None:
    found = load_model(str(family_folder("t5")), head="seq2seq")
    found.model.double()

    def answer(**more: Any) -> Any:
        return write_answers(found, summarization, examples(), max_length=64, max_new_tokens=NEW, rows_per_pass=8,
                             **more)

    plain = answer()
    told: list[list[int]] = [[] for _ in TEXTS]
    watched = answer(on_token=lambda place, token: told[place].append(token) is None)
    assert [each.text for each in watched] == [each.text for each in plain]
    assert [len(ids) for ids in told] == [len(each.token_log_probs) for each in plain]
    assert told[0] == told[3]  # two rows, one source
    counts = [0] * len(TEXTS)

    def not_the_first(place: int, token: int) -> bool:
        counts[place] += 1
        return place != 0

    stopped = answer(on_token=not_the_first)
    assert counts[0] == len(told[0])  # its twin still waits
    assert [each.text for each in stopped] == [each.text for each in plain]
    none = [0] * len(TEXTS)

    def nobody(place: int, token: int) -> bool:
        none[place] += 1
        return False

    answer(on_token=nobody)
    assert none == [1] * len(TEXTS)
