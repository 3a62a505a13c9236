"""Translation: a sentence in one language in, the same in another out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from treetune.core.records import Example, OutputKind, PromptPart, Row
from treetune.tasks.contract import Column, TaskOptions, groups_of, has_chinese, row_error

NAME = "translation"
OUTPUT = OutputKind.TEXT
COLUMNS = (
    Column("source", "what is translated", aliases=("src", "text", "原文")),
    Column("target", "its translation", aliases=("tgt", "译文", "translated")),
    Column("source_lang", "language code of the source", required=False, aliases=("src_lang", "from")),
    Column("target_lang", "language code of the target", required=False, aliases=("tgt_lang", "to")),
)
ANSWER_COLUMNS = ("target",)
METRICS = ("chrf", "bleu")
BASELINES = ("copy_source",)
MAX_NEW_TOKENS = 128

LANGUAGE_NAMES = {
    "en": {"en": "English", "de": "German", "fr": "French", "zh": "Chinese", "es": "Spanish", "it": "Italian",
           "pt": "Portuguese", "nl": "Dutch", "ru": "Russian", "ja": "Japanese", "ko": "Korean", "ar": "Arabic"},
    "zh": {"en": "英语", "de": "德语", "fr": "法语", "zh": "中文", "es": "西班牙语", "it": "意大利语",
           "pt": "葡萄牙语", "nl": "荷兰语", "ru": "俄语", "ja": "日语", "ko": "韩语", "ar": "阿拉伯语"},
}
UNKNOWN = {"en": ("Source", "Translation"), "zh": ("原文", "译文")}
COLON = {"en": ": ", "zh": "："}
WITHOUT_SPACES = ("zh", "ja")


def options_from_rows(rows: Sequence[Row], prompt_language: str) -> TaskOptions:
    """Nothing is learnt from the rows beforehand."""
    return TaskOptions((), prompt_language)


def cells_of(row: Row) -> tuple[str, str, str, str]:
    """source, target, source language, target language; ``""`` where unknown. Reads ``{"translation": {…}}`` too."""
    pair = row.values.get("translation")
    if isinstance(pair, Mapping) and len(pair) == 2 and "source" not in row.values:
        (source_lang, source), (target_lang, target) = pair.items()
        return str(source or "").strip(), str(target or "").strip(), str(source_lang), str(target_lang)
    names = ("source", "target", "source_lang", "target_lang")
    values = [row.values.get(name) for name in names]
    source, target, source_lang, target_lang = (v.strip() if isinstance(v, str) else "" for v in values)
    return source, target, source_lang, target_lang


def example_from_row(row: Row, options: TaskOptions, *, with_answer: bool = True) -> Example:
    """``English: …\\nGerman:`` and the translation; without known languages ``Source: …\\nTranslation:``."""
    source, target, source_lang, target_lang = cells_of(row)
    for name, text in (("source", source), ("target", target)):
        if not text and (name == "source" or with_answer):
            raise row_error(row, name, "E1202", "the cell is empty or not text", found=repr(row.values.get(name)),
                            allowed="text of at least one character")
    asked = "zh" if options.prompt_language == "zh" else "en"
    names = LANGUAGE_NAMES[asked]
    unknown = UNKNOWN[asked]
    before = names.get(source_lang, unknown[0]) + COLON[asked]
    after = "\n" + names.get(target_lang, unknown[1]) + COLON[asked].rstrip()
    language = target_lang or ("zh" if has_chinese(target) else "")
    lead = "" if language in WITHOUT_SPACES else " "
    return Example(
        row=row.number, row_id=row.id, split=row.split,
        prompt=(PromptPart(before), PromptPart(source, cuttable=True), PromptPart(after)),
        completion=lead + target if target else "", answers=(target,) if target else (), candidates={},
        source=source, language=language,
        groups=groups_of(row, {column.name: 0 for column in COLUMNS}),
    )


def answer_from_text(text: str, example: Example) -> str:
    """The first line, white space squeezed."""
    return " ".join(text.strip().split("\n")[0].split())
