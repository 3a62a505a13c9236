"""Numbers and names as a reader sees them; text from outside made safe to write."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from typing import Any

from treetune.core.language import say

KEPT_CONTROLS = "\n\t"
BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def clean(value: Any) -> str:
    """Any value as text that UTF-8 can hold, control and direction-override characters shown as U+FFFD."""
    return "".join("\ufffd" if _is_unsafe(character) else character for character in str(value))


def _is_unsafe(character: str) -> bool:
    if character in KEPT_CONTROLS:
        return False
    return character in BIDI_CONTROLS or unicodedata.category(character) in ("Cc", "Cs")


def finite(value: Any) -> float | None:
    """A finite number, or None for anything else (a missing loss, ``nan``, a text)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def number(value: Any) -> str:
    """A measured value: three decimals below 10, two up to 1000, then none; a dash when there is none."""
    found = finite(value)
    if found is None:
        return "–"
    decimals = 3 if abs(found) < 10 else 2 if abs(found) < 1000 else 0
    return f"{found:,.{decimals}f}"


def signed(value: Any) -> str:
    """`number` with its sign."""
    found = finite(value)
    return number(value) if found is None or found < 0 else f"+{number(value)}"


def count(value: Any) -> str:
    """A whole number with separators; a dash when there is none."""
    found = finite(value)
    return "–" if found is None else f"{round(found):,}"


def percent(part: float, whole: float) -> str:
    """A share with one decimal; a dash of nothing."""
    return f"{100 * part / whole:.1f} %" if whole else "–"


def with_interval(score: Mapping[str, Any], sign: bool = False) -> str:
    """``value [low, high]``."""
    show = signed if sign else number
    return f"{show(score.get('value'))} [{show(score.get('low'))}, {show(score.get('high'))}]"


def p_text(value: Any) -> str:
    """A p-value with three decimals; ``< 0.001`` below that."""
    found = finite(value)
    if found is None:
        return "–"
    return "< 0.001" if found < 0.001 else f"{found:.3f}"


def task_name(task: str) -> str:
    """A task in the reader's language."""
    names = {
        "translation": say("translation"),
        "summarization": say("summarization"),
        "sentiment": say("sentiment"),
        "question_answering": say("question answering"),
    }
    return names.get(task, clean(task))


def system_name(system: str) -> str:
    """A system of the evaluation in the reader's language."""
    names = {
        "tuned": say("tuned model"),
        "base": say("base model, untuned"),
        "majority": say("most frequent label"),
        "copy_source": say("source copied"),
        "lead_sentence": say("first sentence"),
        "lead_3": say("first three sentences"),
        "question_overlap_sentence": say("sentence most like the question"),
    }
    return names.get(system, clean(system))


def split_name(split: str) -> str:
    """A split in the reader's language."""
    names = {
        "train": say("training"),
        "validation": say("validation"),
        "calibration": say("calibration"),
        "test": say("test"),
    }
    return names.get(split, clean(split))


def family_name(family: Any) -> str:
    """The model's family in words; decoder where a record does not say."""
    names = {
        "encoder": say("encoder: reads the whole text, answers with a label or a span of it"),
        "seq2seq": say("encoder-decoder: reads the whole source, writes the answer"),
    }
    return names.get(str(family), say("decoder: reads from left to right, writes the answer"))
