"""Translation: prompts that name the languages, both shapes of rows, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from treetune.core.errors import DataError
from treetune.core.records import Row
from treetune.data.read import read_rows
from treetune.tasks import translation
from treetune.tasks.contract import TaskOptions

AUTO = TaskOptions()


def row(**values: Any) -> Row:
    return Row(values, "pairs.tsv", 9, 7, "train")


def pair(source: str, target: str, source_lang: str, target_lang: str) -> Row:
    return row(source=source, target=target, source_lang=source_lang, target_lang=target_lang)


def test_the_prompt_names_both_languages() -> None:
    example = translation.example_from_row(pair("A dog runs. ", " Ein Hund rennt.", "en", "de"), AUTO)
    assert example.prompt_text == "English: A dog runs.\nGerman:"
    assert [part.text for part in example.prompt if part.cuttable] == ["A dog runs."]
    assert (example.completion, example.answers) == (" Ein Hund rennt.", ("Ein Hund rennt.",))
    assert (example.language, example.source) == ("de", "A dog runs.")


def test_the_prompt_can_be_chinese() -> None:
    example = translation.example_from_row(pair("A dog.", "一只狗。", "en", "zh"), TaskOptions((), "zh"))
    assert example.prompt_text == "英语：A dog.\n中文："
    assert example.completion == "一只狗。"


@pytest.mark.parametrize(("target_lang", "lead"), [("zh", ""), ("zh-CN", ""), ("ja", ""), ("fr", " "),
                                                     ("", " ")])
def test_a_blank_leads_the_answer_in_languages_that_write_blanks(target_lang: str, lead: str) -> None:
    assert translation.example_from_row(pair("a", "b", "en", target_lang), AUTO).completion == lead + "b"


@pytest.mark.parametrize(("options", "prompt"), [(AUTO, "Source: x\nTranslation:"),
                                                 (TaskOptions((), "zh"), "原文：x\n译文：")])
@pytest.mark.parametrize("languages", [{}, {"source_lang": "tlh", "target_lang": "xx"},
                                       {"source_lang": None}])
def test_unknown_languages_have_a_neutral_prompt(
    options: TaskOptions, prompt: str, languages: dict[str, Any]
) -> None:
    example = translation.example_from_row(row(source="x", target="y", **languages), options)
    assert example.prompt_text == prompt
    assert example.language == (languages.get("target_lang") or "")


def test_a_chinese_answer_without_a_language_is_seen_by_its_script() -> None:
    example = translation.example_from_row(row(source="Hello", target="你好"), AUTO)
    assert (example.language, example.completion) == ("zh", "你好")


def test_the_translation_dictionary_of_hugging_face_is_read() -> None:
    given = translation.example_from_row(row(translation={"de": "Ein Hund.", "fr": "Un chien."}), AUTO)
    plain = translation.example_from_row(pair("Ein Hund.", "Un chien.", "de", "fr"), AUTO)
    assert given == plain
    assert given.prompt_text == "German: Ein Hund.\nFrench:"


def test_a_code_with_a_region_names_its_language_and_stays_as_given() -> None:
    example = translation.example_from_row(pair("A dog.", "一只狗。", "EN", "zh-CN"), AUTO)
    assert example.prompt_text == "English: A dog.\nChinese:"
    assert example.language == "zh-CN"


@pytest.mark.parametrize(("code", "lead"), [("zh_Hans", ""), ("ja-JP", ""), ("zha", " ")])
def test_the_main_code_decides_whether_a_blank_leads(code: str, lead: str) -> None:
    assert translation.example_from_row(pair("a", "b", "en", code), AUTO).completion == lead + "b"


@pytest.mark.parametrize(("line", "prompt", "completion"), [
    ({"source": "A dog.", "translation": "Ein Hund."}, "Source: A dog.\nTranslation:", " Ein Hund."),
    ({"translation": {"en": "A dog.", "de": "Ein Hund."}}, "English: A dog.\nGerman:", " Ein Hund."),
])
def test_a_translation_column_is_read_after_the_data_layer_renamed_it(
    tmp_path: Path, line: dict[str, Any], prompt: str, completion: str
) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(line) + "\n", encoding="utf-8")
    aliases = {column.name: column.aliases for column in translation.COLUMNS}
    (read,) = read_rows(str(path), split="train", aliases=aliases, columns={}, required=()).rows
    assert "target" in read.values
    example = translation.example_from_row(read, AUTO)
    assert (example.prompt_text, example.completion) == (prompt, completion)


def test_plain_columns_win_over_the_dictionary() -> None:
    given = row(source="a", target="b", translation={"de": "c", "fr": "d"})
    example = translation.example_from_row(given, AUTO)
    assert (example.source, example.answers) == ("a", ("b",))


@pytest.mark.parametrize(("values", "column"), [
    ({"source": "", "target": "b"}, "source"), ({"source": "a", "target": " "}, "target"),
    ({"source": "a"}, "target"),
    ({"source": 3, "target": "b"}, "source"), ({"translation": {"de": None, "fr": "b"}}, "source"),
    ({"translation": {"de": "a", "fr": ""}}, "target"), ({"translation": {"de": "a"}}, "source"),
    ({"translation": {"de": 5, "fr": "b"}}, "source"), ({"translation": {"de": "a", "fr": ["b"]}}, "target"),
    ({"source": "a", "target": {"de": "a", "fr": "b"}}, "target"),
])
def test_an_empty_cell_is_refused(values: dict[str, Any], column: str) -> None:
    with pytest.raises(DataError) as caught:
        translation.example_from_row(row(**values), AUTO)
    assert caught.value.code == "E1202"
    assert caught.value.where == f"pairs.tsv, line 9, column {column!r}"


def test_rows_to_predict_need_no_target_but_a_source() -> None:
    given = row(source="a", source_lang="en", target_lang="de")
    bare = translation.example_from_row(given, AUTO, with_answer=False)
    assert (bare.prompt_text, bare.completion, bare.answers) == ("English: a\nGerman:", "", ())
    hub = translation.example_from_row(row(translation={"en": "a", "de": None}), AUTO, with_answer=False)
    assert (hub.prompt_text, hub.answers) == (bare.prompt_text, ())
    known = translation.example_from_row(row(source="a", target="b"), AUTO, with_answer=False)
    assert (known.completion, known.answers) == (" b", ("b",))
    with pytest.raises(DataError, match="E1202"):
        translation.example_from_row(row(source=""), AUTO, with_answer=False)
    for target in ("", 5):
        with pytest.raises(DataError, match="E1202"):
            translation.example_from_row(row(source="a", target=target), AUTO, with_answer=False)


@pytest.mark.parametrize("target", ["Ein Hund.", "Zwei  Hunde.", "Eine Zeile.\nNoch eine."])
def test_the_completion_is_read_back_as_the_target_in_one_line(target: str) -> None:
    example = translation.example_from_row(pair("x", target, "en", "de"), AUTO)
    assert translation.answer_from_text(example.completion, example) == " ".join(target.split())


def test_what_the_model_writes_after_the_first_line_is_dropped() -> None:
    example = translation.example_from_row(row(source="x"), AUTO, with_answer=False)
    assert translation.answer_from_text("  ein   Hund\nEnglish: more", example) == "ein Hund"


def test_other_columns_are_groups_and_languages_are_not() -> None:
    example = translation.example_from_row(
        row(source="a", target="b", source_lang="en", target_lang="de", domain="law"), AUTO)
    assert example.groups == {"domain": "law"}
    assert translation.options_from_rows([], "en") == TaskOptions((), "en")
