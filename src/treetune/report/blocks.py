"""What a page is made of: sections of paragraphs, tables, charts, commands and examples, free of HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Text; ``tone`` says whether it is a warning or a note that something is not there yet."""

    kind: ClassVar = "paragraph"
    text: str
    tone: Literal["plain", "warning", "absent"] = "plain"


@dataclass(frozen=True, slots=True)
class Cell:
    """A table cell with a background of strength ``shade`` (0-1)."""

    text: str
    shade: float = 0.0


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose first column names the line.

    Attributes:
        folded: shown only when opened (always printed).
    """

    kind: ClassVar = "table"
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """An SVG element made by `treetune.report.charts`, the only text that is not escaped."""

    kind: ClassVar = "chart"
    svg: str
    caption: str


@dataclass(frozen=True, slots=True)
class Code:
    """Something to copy."""

    kind: ClassVar = "code"
    text: str


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list of sentences."""

    kind: ClassVar = "bullets"
    items: Sequence[str]


@dataclass(frozen=True, slots=True)
class Sample:
    """One row with its answer: (name, text) pairs. ``correct`` also stands in the first pair as a word."""

    kind: ClassVar = "sample"
    correct: bool
    parts: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Piece:
    """A word of a text with what it adds to the answer.

    Attributes:
        value: above 0 for the answer, below 0 against it; None: a word that was not looked at.
        shade: 0-1, its size beside the largest. space: whether white space stood before it.
    """

    text: str
    value: float | None
    shade: float = 0.0
    space: bool = True


@dataclass(frozen=True, slots=True)
class Marked:
    """A text whose words are shaded: blue and underlined for, orange and dashed against; ``rest`` in words."""

    kind: ClassVar = "marked"
    title: str
    pieces: Sequence[Piece]
    rest: str = ""


Block = Paragraph | Table | Chart | Code | Bullets | Sample | Marked


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with what stands under it; ``id`` is its anchor and the same in every language."""

    id: str
    title: str
    blocks: Sequence[Block]


def absent(text: str) -> list[Block]:
    """The content of a section that has nothing to show yet."""
    return [Paragraph(text, "absent")]
