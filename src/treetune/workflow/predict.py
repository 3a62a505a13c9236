"""Answers for new rows of a file of any size: one JSON object a row, in the order of the rows, each row once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from typing import Any

from treetune.core.errors import Interrupted, UsageError
from treetune.core.files import RunFolder
from treetune.core.language import language
from treetune.core.records import Example, Prediction
from treetune.data.refusals import Refusal
from treetune.data.walk import Source, refuse_changed
from treetune.workflow.answer_lines import as_dict, decision_as_dict, to_lines
from treetune.workflow.blocks import Block, Counted, blocks_of, count_rows, in_order, stop_at_too_many, usable
from treetune.workflow.decider import Decider, Recording
from treetune.workflow.engines import check_name, compare_with_default, kept_back, open_engine
from treetune.workflow.gate_file import read_gate
from treetune.workflow.gather import source_for
from treetune.workflow.journal import Journal, beside
from treetune.workflow.log import OnEvent
from treetune.workflow.output import STANDARD_OUTPUT, output_file
from treetune.workflow.processes import Processes
from treetune.workflow.run import Run, decoding_of, open_run, unloaded_run
from treetune.workflow.scope import ENGINE, name_of, parts_changed

__all__ = ["Asked", "as_dict", "decision_as_dict", "predict", "predict_file", "to_lines"]

BLOCK_ROWS = 256
AHEAD = 3  # blocks a process, under way or waiting for an earlier one
PACKAGES = ("treetune", "torch", "transformers", "ctranslate2")

OnBlock = Callable[[Sequence[Prediction]], None]
Answering = Callable[[Sequence[Example]], list[Prediction]]


@dataclass(frozen=True, slots=True)
class Asked:
    """How rows are to be answered.

    Attributes:
        columns: our name -> the user's column. max_refused_share: rows that may be left out, being unreadable. record:
            under a gate, watch for drift, log every decision and queue what a person should see. log_text: texts in
            the log, too. restart: throw away what a killed command has left. processes: that answer at a time.
        engine, model: see `treetune.workflow.engines.engine_for`. block_rows: rows that are answered together and
            written at once. parity_rows: rows to compare with the run's own engine first. min_equal: share of equal
            answers that is asked for then.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    max_refused_share: float = 0.0
    record: bool = True
    log_text: bool = False
    restart: bool = False
    processes: int = 1
    engine: str = ""
    model: str = ""
    block_rows: int = BLOCK_ROWS
    parity_rows: int = 0
    min_equal: float = 0.0


def predict(
    run_path: str, data: str, output: str | None = None, **options: Any,
) -> list[Prediction]:
    """Answer every row of ``data``, with a decision each; written to ``output`` (JSON lines) if given.

    The list holds all of them in memory; `predict_file` holds a few blocks, and goes on where it was killed.

    Args:
        options: see `Asked`.
    """
    found: list[Prediction] = []
    predict_file(run_path, data, output or STANDARD_OUTPUT, Asked(**{**options, "restart": True}), lambda event: None,
                 found.extend)
    return found


def predict_file(
    run_path: str, data: str, output: str, asked: Asked, on_event: OnEvent, on_block: OnBlock | None = None
) -> dict[str, Any]:
    """Answer every row of ``data`` into ``output``, block by block; the same call again goes on after a kill.

    A row that cannot be read stops the call before the first answer unless ``max_refused_share`` allows it; then it is
    listed in ``output``.quarantine.jsonl.

    Args:
        output: a file; ``-``: nothing is written, and nothing can be gone on with. on_block: told of the predictions
            of each block once they are written.

    Returns:
        What stands in ``output``.manifest.json: rows, refused ones, rows by verdict, digests, what made it.

    Raises:
        UsageError: E2030, E2031 no finished run, E2040 no such engine, E2043, E2044 of `output_file`. DataError: as
            `read_rows`, E1120 too many rows refused, E1124 they changed on the way. RunError: E5020 to E5022 of
            `Journal`, E5023 the engine answers otherwise, E5024, E5025 of `Processes`, E5001 to E5003 the disk.
            Interrupted: E5026 a signal came; the rows so far are kept.
    """
    check(asked)
    run = unloaded_run(run_path)
    target = output_file(output, data)
    quarantine = beside(target, "quarantine.jsonl") if target else None
    source = source_for(run.task, data, "test", asked.columns, with_answer=False)
    counted = count_rows(usable(run.task, run.options, source), quarantine)
    stop_at_too_many(counted, source.files, asked.max_refused_share, quarantine)
    on_event({"event": "rows", "rows": counted.rows, "refused": counted.refused})
    facts = {"refused": counted.refused, "parity": compared(run_path, source, asked, on_event)}
    with answering(run_path, asked) as (ask, scope), ExitStack() as stack:
        journal = stack.enter_context(
            Journal(target, binding_of(run, scope, source, asked), asked.restart)) if target else None
        record = answer_all(run, (ask, scope), Rows(source, counted), asked, journal, on_event, on_block)
        return {**record, **facts} if journal is None else journal.finish(facts)


def check(asked: Asked) -> None:
    """Numbers that can be used.

    Raises:
        UsageError: E2041, E2040.
    """
    check_name(asked.engine)
    numbers = (("--processes", asked.processes, 1, 1024), ("--block-rows", asked.block_rows, 1, 10**6),
               ("--parity-rows", asked.parity_rows, 0, 10**6), ("--min-equal", asked.min_equal, 0, 1))
    for name, value, low, high in numbers:
        if not low <= value <= high:
            raise UsageError("E2041", "the number is out of range", where=name, found=str(value),
                             allowed=f"{low} to {high}", do="give another number")


@contextmanager
def answering(run_path: str, asked: Asked) -> Iterator[tuple[Answering, dict[str, str]]]:
    """What answers examples, here or in several processes, and the scope of what it has loaded."""
    if asked.processes == 1:
        opened = open_engine(run_path, asked.engine, asked.model)
        yield opened.engine.predict, opened.scope
        return
    found = Processes({"run": run_path, "engine": asked.engine, "model": asked.model, "language": language()},
                      asked.processes)
    try:
        yield found, found.scope
    finally:
        found.close()


@dataclass(frozen=True, slots=True)
class Rows:
    """What is to be answered."""

    source: Source
    counted: Counted


def answer_all(
    run: Run, answers: tuple[Answering, dict[str, str]], rows: Rows, asked: Asked, journal: Journal | None,
    on_event: OnEvent, on_block: OnBlock | None,
) -> dict[str, Any]:
    """Every block that is not written yet: answered, decided in the order of the rows, written."""
    from treetune.train.signals import stop_on_signal

    ask, scope = answers
    decider = decider_for(run, scope, Recording(asked.record, asked.log_text))
    done, verdicts = 0, Counter[str]()
    blocks: Iterator[Block] = blocks_of(usable(run.task, run.options, rows.source), asked.block_rows)
    if journal is not None and journal.done.blocks:
        done = journal.done.rows
        on_event({"event": "going_on", "path": str(journal.partial), "rows": done, "of": rows.counted.rows,
                  "damage": journal.done.damage})
        blocks = islice(blocks, journal.done.blocks, None)
    began, before = time.monotonic(), done
    threads = asked.processes if asked.processes > 1 else 0
    pairs = in_order(blocks, lambda each: ask(each.examples), threads, AHEAD * max(1, threads))
    with stop_on_signal() as stopped, closing(pairs):
        for block, found in pairs:
            refuse_changed(rows.source)
            decided = [kept_back(one, two) for one, two in
                       zip(found, decider.decide(found, block.examples, block.rows), strict=True)]
            counts = Counter(each.decision.verdict for each in decided if each.decision)
            if journal is not None:
                journal.append(to_lines(decided), len(decided), counts)
            if on_block is not None:
                on_block(decided)
            done, verdicts = done + len(decided), verdicts + counts
            on_event({"event": "answered", "rows": done, "of": rows.counted.rows, "refused": rows.counted.refused,
                      "rows_per_second": (done - before) / max(1e-9, time.monotonic() - began)})
            if stopped() and done < rows.counted.rows:
                raise Interrupted("E5026", "stopped by {signal} after {rows} of {of} rows", signal=stopped(), rows=done,
                                  of=rows.counted.rows, do="give the same command again to go on" if journal else
                                  "with --output FILE the same command could go on")
    return {"rows": done, "verdicts": dict(verdicts)}


def decider_for(run: Run, scope: Mapping[str, str], recording: Recording) -> Decider:
    """The door for these answers; a gate that was set for another engine, or another anything, is void."""
    gate = read_gate(run.folder)
    bound = {} if gate is None or isinstance(gate, str) else gate.scope
    changed = [f"{name_of(part)} ({scope[part]})" if part == "engine" else name_of(part)
               for part in (parts_changed(bound, scope) if bound else ())]
    return Decider(run, recording, changed=changed)


def compared(run_path: str, source: Source, asked: Asked, on_event: OnEvent) -> dict[str, Any] | None:
    """The engine beside the run's own on the first rows; None where nobody asked."""
    if not asked.parity_rows or asked.engine in ("", ENGINE):
        return None
    run = open_run(run_path)
    found = (each for each in usable(run.task, run.options, source) if not isinstance(each, Refusal))
    examples = [example for _, example in islice(found, asked.parity_rows)]
    record = compare_with_default(run, asked.engine, asked.model, examples, asked.min_equal)
    on_event({"event": "parity", **record})
    return record


def binding_of(run: Run, scope: Mapping[str, str], source: Source, asked: Asked) -> dict[str, Any]:
    """All that makes the answers what they are; where it changes, a file that was begun is not gone on with."""
    return {
        "data": source.digest, "columns": source.renamed, "task": run.task.NAME, **scope,
        "gate": gate_digest(run.folder), "decoding": asdict(decoding_of(run)), "rows_per_block": asked.block_rows,
        "recording": [asked.record, asked.log_text], "software": software(),
    }


def gate_digest(folder: RunFolder) -> str:
    """Of the gate in force; "" where there is none."""
    gate = read_gate(folder)
    return "" if gate is None else gate if isinstance(gate, str) else str(gate.record["digest"])


def software() -> dict[str, str]:
    """Versions of what computes."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # not installed, or run from its source
            continue
    return found
