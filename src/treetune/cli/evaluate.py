"""``treetune evaluate``: measure a run on labelled rows, beside its base and honest baselines."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from treetune.cli.flags import parse_columns
from treetune.cli.show import Watcher, scores_table
from treetune.core.language import say


def run(
    run_folder: Annotated[str, typer.Argument(metavar="RUN", help="run folder that treetune tune wrote")],
    data: Annotated[str, typer.Option(help="labelled rows: a file, a folder, or hub:NAME")],
    columns: Annotated[list[str] | None, typer.Option(help="name of a column in your file: text=review")] = None,
    base: Annotated[bool, typer.Option("--base/--no-base", help="also measure the untuned base")] = True,
    max_refused_share: Annotated[float, typer.Option(help="stop when more rows than this are refused")] = 0.05,
    json_output: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> int:
    """Measure a run on labelled rows: tuned, untuned and baselines, each with a 95 % interval."""
    from treetune.workflow.evaluate import evaluate

    record = evaluate(run_folder, data, Watcher(quiet=json_output), columns=parse_columns(columns),
                      compare_base=base, max_refused_share=max_refused_share)
    if json_output:
        print(json.dumps(record, ensure_ascii=False))
        return 0
    scores_table(record)
    for system, comparisons in record["comparisons"].items():
        first = comparisons[0]
        print(say("{system} - base: {metric} {value:+.3f} [{low:+.3f}, {high:+.3f}], p = {p:.4f}", system=system,
                  metric=first["metric"], value=first["value"], low=first["low"], high=first["high"],
                  p=first["p_value"]))
    ppl = record["perplexity"]["interval"]
    print(say("perplexity of the references {value:.2f} [{low:.2f}, {high:.2f}]; {unfinished} answers did not end",
              value=ppl["value"], low=ppl["low"], high=ppl["high"], unfinished=record["unfinished"]))
    print(say("report: {path}", path=f"{run_folder}/report.html"))
    return 0
