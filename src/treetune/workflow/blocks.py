"""Rows of a file of any size in blocks: read, answered, written and forgotten one after the other.

A block's rows are answered together, so rows on one passage share its computation: a run of rows on one source is not
cut in two unless it is longer than a block. Where a file is cut depends on its rows alone, so that a command that was
killed goes on at an edge.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from treetune.core.errors import DataError
from treetune.core.files import write_chunks
from treetune.core.records import Example, Row
from treetune.data.read import MAX_REFUSALS_SHOWN, too_many
from treetune.data.refusals import Refusal, refuse
from treetune.data.walk import Source, walk
from treetune.tasks.contract import Task, TaskOptions

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Usable = tuple[Row, Example]


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbouring rows. ``number``: place among the blocks, from 0."""

    number: int
    rows: tuple[Row, ...]
    examples: tuple[Example, ...]


@dataclass(slots=True)
class Counted:
    """What a first look found. ``first``: the first refusals, for messages."""

    rows: int = 0
    refused: int = 0
    first: list[Refusal] = field(default_factory=list)


def usable(task: Task, options: TaskOptions, source: Source) -> Iterator[Usable | Refusal]:
    """Every record in order: with its example, or why it cannot be used."""
    for row in walk(source):
        if isinstance(row, Refusal):
            yield row
            continue
        try:
            yield row, task.example_from_row(row, options, with_answer=False)
        except DataError as error:
            yield refuse(error, row.file, row.line, dict(row.values))


def count_rows(found: Iterable[Usable | Refusal], quarantine: Path | None) -> Counted:
    """Count everything; the refused ones are listed in ``quarantine``, and an older list there is taken away.

    Raises:
        RunError: E5001 to E5003 when the disk refuses.
    """
    counted = Counted()

    def refusals() -> Iterator[Refusal]:
        for each in found:
            if not isinstance(each, Refusal):
                counted.rows += 1
                continue
            counted.refused += 1
            if len(counted.first) < MAX_REFUSALS_SHOWN:
                counted.first.append(each)
            yield each

    rest = refusals()
    first = next(rest, None)
    if first is None:
        if quarantine:
            quarantine.unlink(missing_ok=True)
    elif quarantine:
        write_chunks(quarantine, ((json.dumps(asdict(each), ensure_ascii=False) + "\n").encode()
                                  for each in chain([first], rest)))
    else:
        deque(rest, maxlen=0)
    return counted


def stop_at_too_many(counted: Counted, files: tuple[str, ...], max_share: float, quarantine: Path | None) -> None:
    """Go on only if few enough rows were refused and one at least is left.

    Raises:
        DataError: E1120.
    """
    num_read = counted.rows + counted.refused
    if not counted.rows or counted.refused > max_share * num_read:
        raise too_many(counted.first, counted.refused, num_read, files, max_share, quarantine)


def cut(items: Iterable[Item], key: Callable[[Item], Any], size: int) -> Iterator[list[Item]]:
    """Lists of at least ``size`` neighbours and less than twice as many; the last one may be shorter.

    A run of equal keys that is no longer than ``size`` stays in one list.
    """
    held: list[Item] = []
    last: Any = None
    for item in items:
        own = key(item)
        if held and ((len(held) >= size and own != last) or len(held) >= 2 * size - 1):
            yield held
            held = []
        held.append(item)
        last = own
    if held:
        yield held


def blocks_of(found: Iterable[Usable | Refusal], size: int) -> Iterator[Block]:
    """The usable rows in blocks."""
    pairs = (each for each in found if not isinstance(each, Refusal))
    for number, part in enumerate(cut(pairs, lambda pair: pair[1].source, size)):
        rows, examples = zip(*part, strict=True)
        yield Block(number, rows, examples)


def in_order(
    items: Iterable[Item], ask: Callable[[Item], Answer], num_askers: int, ahead: int
) -> Generator[tuple[Item, Answer], None, None]:
    """Each item with its answer, in the order of the items; several are asked at a time.

    Args:
        num_askers: threads that ask; 0: this one. ahead: items that may be under way or waiting for an earlier one.
    """
    if not num_askers:
        for item in items:
            yield item, ask(item)
        return
    with ThreadPoolExecutor(num_askers) as pool:
        waiting: deque[tuple[Item, Future[Answer]]] = deque()
        try:
            for item in items:
                waiting.append((item, pool.submit(ask, item)))
                if len(waiting) >= ahead:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
