"""``treetune audit``: find out for whom a run fails, and write training rows that may help."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from treetune.cli.flags import parse_columns
from treetune.cli.show import Watcher
from treetune.core.errors import UsageError
from treetune.core.language import say


def run(
    run_folder: Annotated[str, typer.Argument(metavar="RUN", help="run folder that treetune tune wrote")],
    data: Annotated[str, typer.Option(help="labelled rows not in training; with --mitigate the training rows")],
    by: Annotated[list[str] | None, typer.Option(help="column whose values are groups; may be given again")] = None,
    pairs: Annotated[list[str] | None, typer.Option(
        help="file of stereotype pairs, pronoun pairs or questions with three answers; may be given again")] = None,
    templates: Annotated[bool, typer.Option("--templates/--no-templates", help="ask our own sentences")] = True,
    swaps: Annotated[bool, typer.Option("--swaps/--no-swaps", help="ask your rows with words exchanged")] = True,
    against: Annotated[str, typer.Option(help="another run, asked the same: say what changed since it")] = "",
    wrong: Annotated[str, typer.Option(help="when an answer is wrong [default: as the gate or the task says]",
                                       show_default=False)] = "",
    mitigate: Annotated[str, typer.Option(help="write changed training rows instead: swap or balance")] = "",
    output: Annotated[str, typer.Option(help="file for the changed training rows, .jsonl")] = "",
    columns: Annotated[list[str] | None, typer.Option(help="name of a column in your file: text=review")] = None,
    max_refused_share: Annotated[float, typer.Option(help="stop when more rows than this are refused")] = 0.05,
    json_output: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> int:
    """Audit a run: gaps between groups, answers that change with a name, stereotype pairs, each with its interval."""
    if bool(mitigate) != bool(output):
        raise UsageError("E2715", "--mitigate and --output go together", found=mitigate or output,
                         allowed="--mitigate swap --output FILE.jsonl", do="give both, or neither to audit")
    if mitigate:
        return change_rows(run_folder, data, output, mitigate, by or [], columns, max_refused_share, json_output)
    from treetune.audit.wording import in_words
    from treetune.workflow.audit import audit

    record = audit(run_folder, data, Watcher(quiet=json_output), by=by or (), pairs=pairs or (), templates=templates,
                   swaps=swaps, against=against, wrong=wrong, columns=parse_columns(columns),
                   max_refused_share=max_refused_share)
    if json_output:
        print(json.dumps(record, ensure_ascii=False))
        return 0
    show(in_words(record))
    print(say("report: {path}", path=f"{run_folder}/report.html"))
    return 0


def show(audit: dict[str, Any]) -> None:
    """Summary first, then what was found, a line each, then what to know. All numbers are in the report."""
    from treetune.audit.wording import of_note

    for line in (*audit["summary"], *audit["warnings"]):
        print(line)
    for each in map(of_note, audit["tables"]):
        print(f"\n{each['caption']}")
        for row in each["rows"]:
            print(f"  {row[0]}  " + "; ".join(f"{name} {cell}" for name, cell in zip(each["head"][1:], row[1:],
                                                                                    strict=True)))
        if each["others"]:
            print("  " + say("{others} lines without a difference found are in the report", others=each["others"]))
    print()
    for line in (*audit["notes"], *audit["limits"]):
        print(f"- {line}")


def change_rows(
    run_folder: str, data: str, output: str, method: str, by: list[str], columns: list[str] | None,
    max_refused_share: float, json_output: bool,
) -> int:
    """Write training rows that may teach less bias, and say what to do with them."""
    from treetune.workflow.audit import mitigate

    facts = mitigate(run_folder, data, output, method, by=by, columns=parse_columns(columns),
                     max_refused_share=max_refused_share)
    if json_output:
        print(json.dumps(facts, ensure_ascii=False))
        return 0
    print(say("{written} rows in {output}, from {rows}", written=facts["written"], output=facts["output"],
              rows=facts["rows"]))
    for name, value in (facts.get("copies") or facts.get("weights") or {}).items():
        print(f"  {name}: {value:g}")
    print(say("Tune on this file, then see what it changed: treetune audit NEW_RUN --data TEST --against {run}",
              run=run_folder))
    return 0
