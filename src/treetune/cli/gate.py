"""``treetune gate``: find out which answers of a run may be used without a person, under a stated error bound."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from treetune.cli.flags import parse_columns, with_more_flags
from treetune.cli.show import Watcher
from treetune.core.errors import EXIT_DONE, EXIT_GATE_REFUSED, UsageError
from treetune.core.language import say
from treetune.core.settings import EvidenceSettings


def set_or_show(
    run_folder: Annotated[str, typer.Argument(metavar="RUN", help="run folder that treetune tune wrote")],
    data: Annotated[str, typer.Option(help="labelled rows that were not in training: a file, a folder, or hub:NAME")
                    ] = "",
    max_error: Annotated[float, typer.Option(help="share of the accepted answers that may be wrong")] = 0.05,
    confidence: Annotated[float, typer.Option(help="chance that the gate keeps to it")] = 0.95,
    wrong: Annotated[str, typer.Option(
        help="when an answer is wrong: \"label differs\", \"f1<0.5\", \"chrf<40\", \"rougeL<0.2\"")] = "",
    tune_data: Annotated[str, typer.Option(help="other rows that choose score and thresholds [default: part of data]",
                                           show_default=False)] = "",
    by: Annotated[str, typer.Option(help="column whose groups each keep the bound")] = "",
    with_reviews: Annotated[bool, typer.Option(
        "--with-reviews", help="also use what treetune review was told; alone, without --data, too")] = False,
    columns: Annotated[list[str] | None, typer.Option(help="name of a column in your file: text=review")] = None,
    every_row: Annotated[bool, typer.Option(
        "--every-row", help="count rows that share a source as independent")] = False,
    max_refused_share: Annotated[float, typer.Option(help="stop when more rows than this are left out")] = 0.05,
    engine: Annotated[str, typer.Option(
        help="what computes the answers, as in treetune predict; the gate is void on any other")] = "transformers",
    engine_model: Annotated[str, typer.Option(help="name of the model on the server", show_default=False)] = "",
    drift: Annotated[bool, typer.Option(
        "--drift", help="set nothing: say whether the rows answered so far are still like the gate's")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
    more: Mapping[str, Any] = {},
) -> int:
    """Set a gate: which answers may be used without a person, under a stated bound on their errors."""
    from treetune.decide.wording import guarantee, outcome
    from treetune.workflow.gate import gate

    if drift:
        return show_drift(run_folder, json_output)
    record = gate(run_folder, data, Watcher(quiet=json_output), max_error=max_error, confidence=confidence,
                  wrong=wrong, tune_data=tune_data, columns=parse_columns(columns),
                  max_refused_share=max_refused_share, every_row=every_row, by=by, with_reviews=with_reviews,
                  engine=engine, engine_model=engine_model, **more)
    if json_output:
        print(json.dumps(record, ensure_ascii=False))
    else:
        for line in (*outcome(record), guarantee(record)):
            print(line)
        print(say("report: {path}", path=f"{run_folder}/report.html"))
    return EXIT_GATE_REFUSED if record["threshold"] is None else EXIT_DONE


run = with_more_flags(EvidenceSettings, set_or_show)


def show_drift(run_folder: str, json_output: bool) -> int:
    """What the watch says; exit code 4 when it has voided the gate.

    Raises:
        UsageError: E2506 the run has no gate that could be watched.
    """
    from pathlib import Path

    from treetune.core.files import RunFolder
    from treetune.decide.gate import Gate
    from treetune.decide.wording import drift_lines
    from treetune.workflow.decider import drift_state
    from treetune.workflow.gate_file import read_gate

    folder = RunFolder(Path(run_folder))
    found = read_gate(folder)
    if not isinstance(found, Gate):
        raise UsageError("E2506", "there is no gate in force in this run", where=str(folder.gate),
                         found=found or "no gate", do="run treetune gate with labelled rows")
    state: dict[str, Any] = drift_state(folder, found.record)
    if json_output:
        print(json.dumps(state, ensure_ascii=False))
    else:
        for line in drift_lines(state):
            print(line)
    return EXIT_GATE_REFUSED if state["alarm"] else EXIT_DONE
