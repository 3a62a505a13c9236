"""Which rows of a step go into one pass where nothing is shared but a source. Plain numbers, so a plan can count alike.

Every function takes rows in any order, puts neighbours of like length together, and closes a pass before it would hold
more than ``rows_per_pass`` rows or ``max_tokens`` tokens; a single row may be longer than that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from treetune.core.records import TokenizedExample


def passes(lengths: Sequence[int], rows_per_pass: int, max_tokens: int) -> Iterator[list[int]]:
    """Places of rows that will be padded: ``max_tokens`` counts the padding."""
    yield from _closed_runs(_by_length(lengths), rows_per_pass, max_tokens,
                            lambda run: len(run) * max(lengths[place] for place in run))


def packed_passes(lengths: Sequence[int], rows_per_pass: int, max_tokens: int) -> Iterator[list[int]]:
    """Places of rows that will stand side by side: ``max_tokens`` counts the rows' own tokens."""
    yield from _closed_runs(_by_length(lengths), rows_per_pass, max_tokens,
                            lambda run: sum(lengths[place] for place in run))


def source_passes(rows: Sequence[TokenizedExample], rows_per_pass: int, max_tokens: int) -> Iterator[list[int]]:
    """Places of rows of an encoder-decoder: those of one source side by side, sources of like length together."""
    keys = [row.prompt_ids.tobytes() for row in rows]
    order = sorted(range(len(rows)), key=lambda place: (len(keys[place]), keys[place], place))
    yield from _closed_runs(order, rows_per_pass, max_tokens,
                            lambda run: sum(source_tokens([rows[place] for place in run])))


def source_tokens(rows: Sequence[TokenizedExample]) -> tuple[int, int]:
    """(source, answer) tokens computed for rows in one pass: each distinct source once, all padded."""
    sources = {row.prompt_ids.tobytes() for row in rows}
    return (len(sources) * max(len(row.prompt_ids) for row in rows),
            len(rows) * max(len(row.completion_ids) for row in rows))


def _by_length(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda place: (lengths[place], place))


def _closed_runs(
    order: Sequence[int], rows_per_pass: int, max_tokens: int, tokens_of: Callable[[list[int]], int]
) -> Iterator[list[int]]:
    run: list[int] = []
    for place in order:
        if run and (len(run) == rows_per_pass or tokens_of([*run, place]) > max_tokens):
            yield run
            run = []
        run.append(place)
    if run:
        yield run
