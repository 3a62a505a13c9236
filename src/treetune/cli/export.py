"""``treetune export``: a run in a form that other tools read, proved on rows before it is called done."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from treetune.cli.flags import parse_columns
from treetune.core.language import say


def run(
    run_folder: Annotated[str, typer.Argument(metavar="RUN", help="run folder that treetune tune wrote")],
    to: Annotated[str, typer.Option(help="safetensors, adapter, gguf, ctranslate2 or onnx")],
    output: Annotated[str, typer.Option(help="folder to write; it must not be there yet")],
    data: Annotated[str | None, typer.Option(help="labelled rows to prove it on (64 at most); else the run's own "
                                                  "validation rows")] = None,
    columns: Annotated[list[str] | None, typer.Option(help="name of a column in your file: text=review")] = None,
    precision: Annotated[str, typer.Option(help="float32, or int8 for ctranslate2")] = "float32",
    max_length: Annotated[int, typer.Option(min=0, help="tokens a row may have in the new form; 0: as in the run")] = 0,
    min_equal: Annotated[float | None, typer.Option(
        min=0, max=1, help="share of equal answers asked for [default: 0.98, int8 0.9]")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> int:
    """Write a run's model for other tools; the same rows through both must give the same answers."""
    from treetune.workflow.export import export

    record = export(run_folder, to, output, data=data, columns=parse_columns(columns), precision=precision,
                    max_length=max_length, min_equal=min_equal)
    if json_output:
        print(json.dumps(record, ensure_ascii=False))
        return 0
    parity = record["parity"]
    print(say("{form} ({precision}) in {path}", form=to, precision=precision, path=output))
    print(say("on {rows} rows: {share:.1%} equal answers, log-probabilities at most {difference:.1e} nats apart",
              rows=parity["rows"], share=parity["equal_answers"], difference=parity["log_prob_difference"]))
    if "computed_in_float32" in parity:
        alone = parity["computed_in_float32"]
        print(say("the same file computed in float32: {share:.1%} equal answers, at most {difference:.1e} nats apart",
                  share=alone["equal_answers"], difference=alone["log_prob_difference"]))
    for name, each in parity["metrics"].items():
        print(say("{metric}: {original:.4f} in the run, {exported:.4f} exported ({change:+.4f})", metric=name, **each))
    if record["not_verified"]:
        print(say("not verified: {what}", what=record["not_verified"]))
    return 0
