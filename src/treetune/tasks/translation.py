"""Translation: a sentence in one language in, the same in another out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from treetune.core.records import Example, OutputKind, PromptPart, Row
from treetune.tasks.contract import Column, TaskOptions, groups_of, has_chinese, text_of

NAME = "translation"
OUTPUT = OutputKind.TEXT
COLUMNS = (
    Column("source", "what is translated", aliases=("src", "text", "原文")),
    Column("target", "its translation", aliases=("tgt", "translation", "译文", "translated")),
    Column("source_lang", "language code of the source", required=False, aliases=("src_lang", "from")),
    Column("target_lang", "language code of the target", required=False, aliases=("tgt_lang", "to")),
)
ANSWER_COLUMNS = ("target",)
METRICS = ("chrf", "bleu")
BASELINES = ("copy_source",)
MAX_NEW_TOKENS = 128

LANGUAGE_NAMES = {
    "en": {"en": "English", "de": "German", "fr": "French", "zh": "Chinese", "es": "Spanish", "it": "Italian",
           "pt": "Portuguese", "nl": "Dutch", "ru": "Russian", "ja": "Japanese", "ko": "Korean",
           "ar": "Arabic"},
    "zh": {"en": "英语", "de": "德语", "fr": "法语", "zh": "中文", "es": "西班牙语", "it": "意大利语",
           "pt": "葡萄牙语", "nl": "荷兰语", "ru": "俄语", "ja": "日语", "ko": "韩语",
           "ar": "阿拉伯语"},
}
UNKNOWN = {"en": ("Source", "Translation"), "zh": ("原文", "译文")}
COLON = {"en": ": ", "zh": "："}
WITHOUT_SPACES = ("zh", "ja")


def options_from_rows(rows: Sequence[Row], prompt_language: str) -> TaskOptions:
    """Nothing is learnt from the rows beforehand."""
    return TaskOptions((), prompt_language)


def cells_of(row: Row) -> dict[str, Any]:
    """The cells of our columns as they stand, None where absent.

    ``{"translation": {"en": …, "de": …}}`` is read too, also where the data layer renamed it ``target``.
    """
    values = row.values
    pairs = [cell for name in ("translation", "target") if isinstance(cell := values.get(name), Mapping)]
    if pairs and len(pairs[0]) == 2 and "source" not in values:
        (source_lang, source), (target_lang, target) = pairs[0].items()
        return {"source": source, "target": target, "source_lang": source_lang, "target_lang": target_lang}
    return {column.name: values.get(column.name) for column in COLUMNS}


def _main_code(language: str) -> str:
    """``zh`` of ``zh-CN`` and ``zh_Hans``."""
    return language.lower().replace("_", "-").split("-")[0]


def example_from_row(row: Row, options: TaskOptions, *, with_answer: bool = True) -> Example:
    """``English: …\\nGerman:`` and the translation; ``Source: …\\nTranslation:`` if languages are unknown."""
    cells = replace(row, values=cells_of(row))
    source = text_of(cells, "source")
    target = text_of(cells, "target") if with_answer or cells.values["target"] is not None else ""
    codes = (cells.values["source_lang"], cells.values["target_lang"])
    source_lang, target_lang = (code.strip() if isinstance(code, str) else "" for code in codes)
    asked = "zh" if options.prompt_language == "zh" else "en"
    names = LANGUAGE_NAMES[asked]
    unknown = UNKNOWN[asked]
    before = names.get(_main_code(source_lang), unknown[0]) + COLON[asked]
    after = "\n" + names.get(_main_code(target_lang), unknown[1]) + COLON[asked].rstrip()
    language = target_lang or ("zh" if has_chinese(target) else "")
    lead = "" if _main_code(language) in WITHOUT_SPACES else " "
    return Example(
        row=row.number, row_id=row.id, split=row.split,
        prompt=(PromptPart(before), PromptPart(source, cuttable=True), PromptPart(after)),
        completion=lead + " ".join(target.split()) if target else "", answers=(target,) if target else (),
        candidates={}, source=source, language=language,
        groups=groups_of(row, {column.name: 0 for column in COLUMNS}), instruction=options.instruction,
    )


def answer_from_text(text: str, example: Example) -> str:
    """The first line, white space squeezed."""
    return " ".join(text.strip().split("\n")[0].split())
