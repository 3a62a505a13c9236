"""The texts that pretraining reads: what is held out, in which order, and how much of each source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from treetune.core.seeds import generator
from treetune.core.settings import PretrainSettings, TextSource
from treetune.data.cloze import with_questions
from treetune.data.text import documents

CHARACTERS_TO_READ = 8000
CHARACTERS_TO_ASK_ABOUT = 800  # short enough that a passage and its questions fit one window


def split_source(source: TextSource, settings: PretrainSettings) -> tuple[list[str], list[str]]:
    """(training, held out) documents of a source, in an order given by the seed.

    A source whose documents are lines of running text (novels) keeps its order within pieces of some lines.
    """
    from treetune.models.corpus import shuffled, split_documents

    texts = list(documents(source, Path(settings.data_root)))
    if source.document == "file":
        length = CHARACTERS_TO_ASK_ABOUT if source.cloze else CHARACTERS_TO_READ
        texts = [piece for text in texts for piece in pieces_of_lines(text.split("\n"), length)]
    mixed = shuffled(texts, settings.seed, source.path)
    return split_documents(mixed, lambda text: max(1, len(text) // 4), settings.held_out_tokens)


def pieces_of_lines(lines: Sequence[str], num_characters: int) -> list[str]:
    """Running text cut between lines into pieces of about ``num_characters``."""
    pieces: list[str] = []
    part: list[str] = []
    size = 0
    for line in lines:
        part.append(line)
        size += len(line)
        if size >= num_characters:
            pieces.append("\n".join(part))
            part, size = [], 0
    return [*pieces, "\n".join(part)] if part else pieces


def in_shares(
    settings: PretrainSettings, texts: dict[str, tuple[list[str], list[str]]],
    read: Callable[[Iterator[str], int, str], tuple[list[Any], int]],
) -> tuple[list[Any], dict[str, dict[str, float]]]:
    """Training rows of all sources in their shares; a source too small for its share is repeated, and that is counted.

    Args:
        read: (texts, tokens wanted at most, name of the stream of chance) -> rows of the first of them, their tokens.
    """
    total = sum(source.share for source in settings.data)
    result: list[Any] = []
    counts: dict[str, dict[str, float]] = {}
    for source in settings.data:
        wanted = int(settings.total_tokens * source.share / total)
        documents = texts[source.path][0]
        size, unique, turn = 0, 0, 0
        while documents and size < wanted:
            told = asked(source, documents, settings.seed, turn)
            rows, more = read(told, wanted - size, f"{source.path} {turn}")
            if not more:
                break
            result += rows
            size += more
            unique, turn = unique or size, turn + 1
        counts[source.path] = {"tokens": size, "passes": round(size / max(1, unique), 2) if turn > 1 else 1}
    return result, counts


def asked(source: TextSource, documents: Sequence[str], seed: int, turn: int) -> Iterator[str]:
    """The documents, with other questions made from them in every pass where the source wants questions."""
    draw = generator(seed, "cloze", source.path, turn)
    return (with_questions(each, source.cloze, draw) if source.cloze else each for each in documents)
