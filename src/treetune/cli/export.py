"""``treetune export``: a run in a form that other tools read, proved on rows before it is called done."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from treetune.cli.flags import parse_columns
from treetune.core.errors import UsageError
from treetune.core.language import say

if TYPE_CHECKING:
    from treetune.workflow.push import Plan


def run(
    run_folder: Annotated[str, typer.Argument(metavar="RUN", help="run folder that treetune tune wrote")],
    to: Annotated[str, typer.Option(help="safetensors, adapter, gguf, ctranslate2 or onnx")] = "safetensors",
    output: Annotated[str, typer.Option(help="folder to write; it must not be there yet [default: RUN/export/FORM]",
                                        show_default=False)] = "",
    data: Annotated[str | None, typer.Option(help="labelled rows to prove it on (64 at most); else the run's own "
                                                  "validation rows")] = None,
    columns: Annotated[list[str] | None, typer.Option(help="name of a column in your file: text=review")] = None,
    precision: Annotated[str, typer.Option(help="float32, or int8 for ctranslate2")] = "float32",
    max_length: Annotated[int, typer.Option(min=0, help="tokens a row may have in the new form; 0: as in the run")] = 0,
    min_equal: Annotated[float | None, typer.Option(
        min=0, max=1, help="share of equal answers asked for [default: 0.98, int8 0.9]")] = None,
    push: Annotated[str, typer.Option(metavar="OWNER/NAME", help="then send it to this repository of the Hugging Face "
                                      "hub, in one commit; the token is that of hf auth login or HF_TOKEN",
                                      show_default=False)] = "",
    public: Annotated[bool, typer.Option("--public", help="everybody may read the repository; else it is private")
                      ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="overwrite and delete what the repository holds")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be sent; nothing goes out")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="send without asking")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> int:
    """Write a run's model for other tools; the same rows through both must give the same answers."""
    target = output or str(Path(run_folder) / "export" / to)
    options: dict[str, Any] = {"data": data, "columns": parse_columns(columns), "precision": precision,
                               "max_length": max_length, "min_equal": min_equal}
    if push:
        if not dry_run:
            refuse_unready(yes)
        from treetune.workflow.push import push as push_export

        record = push_export(run_folder, to, target, push, public=public, replace=replace,
                             agreed=lambda plan: show_plan(plan) and not dry_run and (yes or is_wanted()), **options)
    else:
        from treetune.workflow.export import export

        record = export(run_folder, to, target, **options)
    if json_output:
        print(json.dumps(record, ensure_ascii=False))
    else:
        show(record, target)
    return 0


def refuse_unready(yes: bool) -> None:
    """What can be known before an export that may take long.

    Raises:
        UsageError: E2811 no token, E2820 nobody is there to ask.
    """
    from treetune.models.push import refuse_without_token

    refuse_without_token()
    if not yes and not sys.stdin.isatty():
        raise UsageError("E2820", "nobody is here to say that it may be sent", where="--push",
                         found="standard input is no terminal", allowed="--yes, --dry-run",
                         do="look at the list with --dry-run, then give --yes")


def show_plan(plan: Plan) -> bool:
    """Every file with its size, on standard error; True."""
    seen = say("public") if plan.public else say("private")
    print(say("to {name} at {endpoint}, {seen}:", name=plan.name, endpoint=plan.endpoint, seen=seen), file=sys.stderr)
    for way, size in plan.sizes.items():
        print(f"  {size:>14,}  {way}", file=sys.stderr)
    print(say("{files} files, {bytes:,} bytes, in one commit", files=len(plan.files), bytes=sum(plan.sizes.values())),
          file=sys.stderr)
    return True


def is_wanted() -> bool:
    """Ask; anything but a plain yes is a no."""
    print(say("Send them? [y/N]"), end=" ", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes", "是")


def show(record: dict[str, Any], target: str) -> None:
    """The comparison in lines, and what became of the push."""
    parity = record["parity"]
    print(say("{form} ({precision}) in {path}", form=record["form"], precision=record["precision"], path=target))
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
    if "push" in record:
        show_push(record["push"])


def show_push(pushed: dict[str, Any]) -> None:
    """What the hub has now."""
    if pushed["sent"] is None:
        print(say("nothing was sent"))
    elif pushed["sent"] or pushed["deleted"]:
        print(say("{files} files sent, {deleted} deleted: {url}", files=len(pushed["sent"]),
                  deleted=len(pushed["deleted"]), url=pushed["url"]))
    else:
        print(say("it is all there already: {url}", url=pushed["url"]))
    if pushed.get("private") is not None:
        print(say("only you and those you let in can read it") if pushed["private"] else say("everybody can read it"))
