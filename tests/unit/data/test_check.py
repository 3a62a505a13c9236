"""The report on the rows."""

import json
from dataclasses import replace

import pytest

from treetune.core.errors import DataError
from treetune.core.records import Example, PromptPart, Row
from treetune.data import Lengths, inspect
from treetune.data.check import describe, guess_language, lengths_of, script_counts, shares_of
from treetune.data.refusals import refuse


def row(number: int, text: object, label: object = "pos", split: str = "train", **more: object) -> Row:
    return Row({"text": text, "label": label, **more}, "a.csv", number + 2, number, split)


def test_a_report_counts_what_a_reader_wants_to_know() -> None:
    train = [row(0, "good", id="x"), row(1, "Good ", "neg", id="x"), row(2, "bad", "neg"), row(3, "", None),
             row(4, "good", "pos")]
    test = [row(0, "BAD", "neg", "test"), row(1, "new", "pos", "test")]
    fault = refuse(DataError("E1107", "ragged"), "a.csv", 9, "a,b")
    report = inspect({"train": train, "test": test}, text_columns=["text"], label_column="label",
                     refused={"train": [fault, fault]})
    split = report.splits["train"]
    assert (split.num_rows, split.refused) == (5, {"E1107": 2})
    assert (split.duplicate_rows.count, split.conflicting_labels, split.duplicate_ids) == (2, 1, 1)
    assert split.labels == {"neg": 2, "pos": 2, "": 1}
    assert split.texts["text"].num_empty == 1
    assert split.texts["text"].characters == Lengths(4, 3, 4, 5, 5)
    assert (report.splits["test"].refused, report.splits["test"].duplicate_ids) == ({}, 0)
    leak, = report.leaks
    assert (leak.earlier, leak.later, leak.overlap.count) == ("train", "test", 1)
    assert leak.overlap.examples == (("train:2", "test:0"),)


def test_every_two_splits_are_compared() -> None:
    rows = {split: [row(0, "same", split=split)] for split in ("train", "validation", "test")}
    report = inspect(rows, text_columns=["text"])
    assert [(leak.earlier, leak.later, leak.overlap.count) for leak in report.leaks] == [
        ("train", "validation", 1), ("train", "test", 1), ("validation", "test", 1)]
    assert report.splits["train"].labels == {}


def test_examples_add_the_lengths_of_prompt_and_completion() -> None:
    example = Example(0, "train:0", "train", (PromptPart("ab"), PromptPart("c")), "d", ("d",), {}, "", "en")
    report = inspect({"train": [row(0, "abc")]}, {"train": [example]}, text_columns=["text"])
    texts = report.splits["train"].texts
    lengths = {name: text.characters.maximum for name, text in texts.items() if text.characters}
    assert lengths == {"text": 3, "prompt": 3, "completion": 1}


def test_the_report_is_json_and_leaves_room_for_tokens() -> None:
    report = inspect({"train": [row(0, "good")]}, text_columns=["text"], label_column="label")
    as_dict = json.loads(json.dumps(report.as_dict()))
    assert (as_dict["token_lengths"], as_dict["num_cut"]) == (None, None)
    assert as_dict["splits"]["train"]["texts"]["text"]["characters"]["median"] == 4
    filled = replace(report, token_lengths={"train": lengths_of([3, 9])}, num_cut={"train": 1}).as_dict()
    assert filled["token_lengths"]["train"]["maximum"] == 9


def test_no_rows_are_no_failure() -> None:
    report = inspect({"train": []}, text_columns=["text"], label_column="label")
    assert report.splits["train"].texts["text"].characters is None
    assert describe([" ", ""]).num_empty == 2


def test_lists_of_text_are_described_as_text() -> None:
    report = inspect({"train": [row(0, ["ab", "c"]), row(1, 5), row(2, [])]}, text_columns=["text"])
    text = report.splits["train"].texts["text"]
    assert (text.num_empty, text.characters) == (2, Lengths(1, 4, 4, 4, 4))


def test_percentiles_are_lengths_that_occur() -> None:
    assert lengths_of(list(range(1, 101))) == Lengths(100, 1, 50, 95, 100)
    assert lengths_of([7]) == Lengths(1, 7, 7, 7, 7)


def test_scripts_are_shares_of_the_letters() -> None:
    assert shares_of(script_counts("ab 好吗 12!")) == {"latin": 0.5, "han": 0.5}
    assert shares_of(script_counts("жё")) == {"cyrillic": 1.0}
    mixed = shares_of(script_counts("한글 سلام ひら α"))
    assert mixed == {"arabic": 0.4444, "hangul": 0.2222, "kana": 0.2222, "other": 0.1111}
    assert shares_of(script_counts("123 …")) == {}


@pytest.mark.parametrize(("text", "language"), [
    ("The film is a warm and funny look at the family.", "en"),
    ("Zwei junge weiße Männer sind im Freien in der Nähe vieler Büsche.", "de"),
    ("Un groupe d'hommes chargent du coton dans un camion", "fr"),
    ("说好的海景房，拉开窗帘对着一堵墙", "zh"), ("GPT 模型的训练", "zh"),
    ("これは良い映画です", "ja"), ("좋은 영화입니다", "ko"),
    ("Хороший фильм", "cyrillic"), ("فيلم جيد", "arabic"), ("καλή ταινία", "other"),
    ("42!", "unknown"), ("", "unknown"),
    ("Lorem ipsum dolor sit amet", "latin"),
])
def test_languages_are_guessed(text: str, language: str) -> None:
    assert guess_language(text, script_counts(text)) == language
