"""What is in the rows, before anything is trained on them: counts, balance, lengths, languages, leakage."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np

from treetune.core.records import Example, Row
from treetune.data.refusals import Refusal
from treetune.data.split import Overlap, duplicates, leakage

MIN_SHARE_KANA = 0.05
MIN_SHARE_SCRIPT = 0.2
MIN_STOP_WORD_SHARE = 0.08
SCRIPTS = ("latin", "han", "kana", "hangul", "cyrillic", "arabic", "other")
_RANGES: tuple[tuple[int, int, str], ...] = (
    (0x41, 0x24F, "latin"), (0x1E00, 0x1EFF, "latin"), (0xFF21, 0xFF5A, "latin"),
    (0x3400, 0x4DBF, "han"), (0x4E00, 0x9FFF, "han"), (0xF900, 0xFAFF, "han"), (0x20000, 0x323AF, "han"),
    (0x3040, 0x30FF, "kana"), (0x31F0, 0x31FF, "kana"), (0xFF66, 0xFF9F, "kana"),
    (0x1100, 0x11FF, "hangul"), (0x3130, 0x318F, "hangul"), (0xAC00, 0xD7AF, "hangul"),
    (0x400, 0x52F, "cyrillic"),
    (0x600, 0x6FF, "arabic"), (0x750, 0x77F, "arabic"), (0x8A0, 0x8FF, "arabic"), (0xFB50, 0xFDFF, "arabic"),
    (0xFE70, 0xFEFC, "arabic"),
)
_STOP_WORDS: Mapping[str, str] = {
    "en": """ the a an and of to in is are was were it that this with for on as at by not be i you he she they
        we his her my what who which when have has had from but or there """,
    "de": """ der die das und ein eine einen einem einer in im ist sind war waren es zu mit für auf als an
        am nicht ich du er sie wir von dem den des auch wie aus bei hat haben sich dass """,
    "fr": """ le la les un une des du de et à en est sont était il elle ils elles je tu nous vous que qui
        dans pour sur avec pas ne au aux ce cette son sa ses par l d c j n qu s """,
}
_LANGUAGES_OF: dict[str, set[str]] = {}
for _language, _words in _STOP_WORDS.items():
    for _word in _words.split():
        _LANGUAGES_OF.setdefault(_word, set()).add(_language)
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths of ``count`` texts; the median and p95 are lengths that occur (nearest rank)."""

    count: int
    minimum: int
    median: int
    p95: int
    maximum: int


@dataclass(frozen=True, slots=True)
class TextReport:
    """One text column of one split.

    Attributes:
        num_empty: cells that are missing, empty or not text.
        characters: lengths of the others in characters, None when there is none.
        scripts: script -> share of the letters.
        language_guess: language code, or script, -> rows. A guess: by script, and between English, German and
            French by a few stop words.
    """

    num_empty: int
    characters: Lengths | None
    scripts: Mapping[str, float]
    language_guess: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class SplitReport:
    """One split.

    Attributes:
        num_rows: accepted rows. refused: code -> records refused.
        duplicate_rows: rows with the texts of an earlier row.
        conflicting_labels: those of them whose label stands with this text for the first time.
        duplicate_ids: rows with the id of an earlier row.
        labels: label -> rows, most frequent first; {} without a label column.
        texts: column -> report; ``prompt`` and ``completion`` too where examples were given.
    """

    num_rows: int
    refused: Mapping[str, int]
    duplicate_rows: Overlap
    conflicting_labels: int
    duplicate_ids: int
    labels: Mapping[str, int]
    texts: Mapping[str, TextReport]


@dataclass(frozen=True, slots=True)
class Leak:
    """Rows of split ``later`` whose texts stand in split ``earlier`` as well."""

    earlier: str
    later: str
    overlap: Overlap


@dataclass(frozen=True, slots=True)
class DataReport:
    """What `treetune check` says of the rows.

    Attributes:
        splits: split -> report. leaks: one for each two splits, also where nothing leaks.
        token_lengths: split -> lengths in tokens. num_cut: split -> rows that lose tokens.
            Both None until the tokens stage fills them in (`dataclasses.replace`).
    """

    splits: Mapping[str, SplitReport]
    leaks: tuple[Leak, ...]
    token_lengths: Mapping[str, Lengths] | None = None
    num_cut: Mapping[str, int] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)


def inspect(
    rows_by_split: Mapping[str, Sequence[Row]],
    examples: Mapping[str, Sequence[Example]] | None = None,
    *,
    text_columns: Sequence[str],
    label_column: str | None = None,
    refused: Mapping[str, Sequence[Refusal]] | None = None,
) -> DataReport:
    """Look at all rows.

    Args:
        rows_by_split: in the order train, validation, ... that leaks are named in.
        examples: the same rows as a task understood them, by split; adds lengths of prompt and completion.
        text_columns: columns of text; together they say whether two rows are the same.
        label_column: column to count the labels of. refused: refusals by split.
    """
    reports = {}
    for split, rows in rows_by_split.items():
        texts = {column: [_text(row.values.get(column)) for row in rows] for column in text_columns}
        if of_split := (examples or {}).get(split):
            texts |= {"prompt": [example.prompt_text for example in of_split],
                      "completion": [example.completion for example in of_split]}
        reports[split] = SplitReport(
            num_rows=len(rows),
            refused=dict(sorted(Counter(one.code for one in (refused or {}).get(split, ())).items())),
            duplicate_rows=(same := duplicates(rows, text_columns)),
            conflicting_labels=_conflicts(rows, text_columns, label_column, same.count),
            duplicate_ids=len(rows) - len({row.id for row in rows}),
            labels=label_counts(rows, label_column) if label_column else {},
            texts={column: describe(values) for column, values in texts.items()},
        )
    leaks = tuple(
        Leak(earlier, later, leakage(rows_by_split[earlier], rows_by_split[later], text_columns))
        for earlier, later in combinations(rows_by_split, 2)
    )
    return DataReport(reports, leaks)


def _conflicts(rows: Sequence[Row], columns: Sequence[str], label: str | None, num_same: int) -> int:
    """Duplicate rows that bring a label their text has not had before."""
    return num_same - duplicates(rows, [*columns, label]).count if label and num_same else 0


def _text(value: Any) -> str:
    """A cell as text: of a list its texts, one a line; "" where there is none."""
    if isinstance(value, list | tuple):
        return "\n".join(part for part in value if isinstance(part, str))
    return value if isinstance(value, str) else ""


def label_counts(rows: Iterable[Row], column: str) -> dict[str, int]:
    """Label -> rows, most frequent first, then by name; a missing label counts as ""."""
    counts = Counter("" if (value := row.values.get(column)) is None else str(value) for row in rows)
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def describe(texts: Sequence[str]) -> TextReport:
    """Lengths in characters, scripts and guessed languages of texts; empty ones are only counted."""
    filled = [text for text in texts if text.strip()]
    scripts: Counter[str] = Counter()
    guesses: Counter[str] = Counter()
    for text in filled:
        of_text = script_counts(text)
        scripts.update(of_text)
        guesses[guess_language(text, of_text)] += 1
    return TextReport(
        num_empty=len(texts) - len(filled),
        characters=lengths_of([len(text) for text in filled]) if filled else None,
        scripts=shares_of(scripts),
        language_guess=dict(guesses.most_common()),
    )


def lengths_of(lengths: Sequence[int]) -> Lengths:
    """Minimum, median, 95th percentile and maximum of at least one length, in the unit of the lengths."""
    values = np.asarray(lengths, dtype=np.int64)
    low, median, p95, high = np.quantile(values, [0, 0.5, 0.95, 1], method="inverted_cdf")
    return Lengths(len(values), int(low), int(median), int(p95), int(high))


def shares_of(counts: Counter[str]) -> dict[str, float]:
    """Script -> share of the letters, rounded to 4 places, largest first; {} where there is no letter."""
    total = counts.total()
    return {script: round(count / total, 4) for script, count in counts.most_common()}


def script_counts(text: str) -> Counter[str]:
    """Script -> letters of it in the text."""
    counts: Counter[str] = Counter()
    for character, count in Counter(text).items():
        if script := _script_of(character):
            counts[script] += count
    return counts


@cache
def _script_of(character: str) -> str:
    """The script of a letter; "" for anything else."""
    if not character.isalpha():
        return ""
    code = ord(character)
    return next((script for low, high, script in _RANGES if low <= code <= high), "other")


def guess_language(text: str, scripts: Counter[str]) -> str:
    """``en``, ``de``, ``fr``, ``zh``, ``ja``, ``ko``, else the main script, else ``unknown``. A guess."""
    total = scripts.total()
    if not total:
        return "unknown"
    if scripts["kana"] >= MIN_SHARE_KANA * total:
        return "ja"
    for script, language in (("hangul", "ko"), ("han", "zh")):
        if scripts[script] >= MIN_SHARE_SCRIPT * total:
            return language
    main: str = scripts.most_common(1)[0][0]
    return _guess_latin(text) if main == "latin" else main


def _guess_latin(text: str) -> str:
    """``en``, ``de`` or ``fr`` if its stop words are enough and more than the others', else ``latin``."""
    words = _WORD.findall(text.lower())
    hits = Counter(language for word in words for language in _LANGUAGES_OF.get(word, ()))
    (best, most), (_, second) = [*hits.most_common(2), ("latin", 0), ("latin", 0)][:2]
    return best if most >= MIN_STOP_WORD_SHARE * len(words) and most > second else "latin"
