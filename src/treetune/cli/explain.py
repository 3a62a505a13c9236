"""``treetune explain``: why an answer is what it is, whether explanations are true here, which rows are suspicious."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from treetune.cli.flags import parse_columns
from treetune.cli.show import Watcher
from treetune.cli.table import table
from treetune.core.errors import UsageError
from treetune.core.files import write_text
from treetune.core.language import say

OUTPUTS = ("terminal", "html", "json")


def run(
    run_folder: Annotated[str, typer.Argument(metavar="RUN", help="run folder that treetune tune wrote")],
    text: Annotated[str | None, typer.Option(help="a text to answer and explain: the task's first column")] = None,
    field: Annotated[list[str] | None, typer.Option(help="another column of the task: question=...")] = None,
    data: Annotated[str | None, typer.Option(help="rows: a file, a folder, or hub:NAME")] = None,
    row: Annotated[str | None, typer.Option(help="the row of --data to explain: its id or its number from 0")] = None,
    method: Annotated[str, typer.Option(
        help="integrated_gradients, gradient_x_input, occlusion, shapley; with --suspects a ranking")] = "",
    against: Annotated[str, typer.Option(help="why not this label [default: the runner-up]")] = "",
    token: Annotated[int | None, typer.Option(help="of a written answer, explain this token alone, from 0")] = None,
    with_instruction: Annotated[bool, typer.Option(
        "--with-instruction", help="explain the prompt's own words, too")] = False,
    training_rows: Annotated[bool, typer.Option(
        "--training-rows", help="also the training rows behind it, and whether they cover it")] = False,
    faithfulness: Annotated[bool, typer.Option(
        "--faithfulness", help="are explanations true on the rows of --data? kept for the report")] = False,
    rows: Annotated[int, typer.Option(min=2, help="with --faithfulness: how many rows")] = 50,
    suspects: Annotated[bool, typer.Option("--suspects", help="training rows that may carry a wrong label")] = False,
    top: Annotated[int, typer.Option(min=1, help="with --suspects: how many")] = 50,
    contamination: Annotated[bool, typer.Option(
        "--contamination", help="rows of --data that share long spans with training rows")] = False,
    columns: Annotated[list[str] | None, typer.Option(help="name of a column in your file: text=review")] = None,
    output: Annotated[str, typer.Option(help="terminal, html or json")] = "terminal",
    output_file: Annotated[str | None, typer.Option(help="where html goes [default: RUN/explanations/]")] = None,
    seed: Annotated[int, typer.Option(min=0, help="seed of what is sampled")] = 0,
    json_output: Annotated[bool, typer.Option("--json", help="the same as --output json")] = False,
) -> int:
    """Explain an answer: words for and against it, layers, attention, the source, training rows."""
    output = "json" if json_output else output
    if output not in OUTPUTS:
        raise UsageError("E2612", "there is no such output", found=output, allowed=", ".join(OUTPUTS),
                         do="choose one of them")
    asked = [text is not None, row is not None, faithfulness, suspects, contamination]
    if sum(asked) != 1 or ((row is not None or faithfulness or contamination) and data is None):
        raise UsageError(
            "E2613", "explain needs exactly one thing to explain",
            allowed="--text TEXT; --row ID --data FILE; --faithfulness --data FILE; --suspects; "
                    "--contamination --data FILE", do="give one of them")
    from treetune.workflow import explain as work

    if suspects:
        return show_suspects(work.find_suspects(run_folder, Watcher(quiet=output == "json"), method=method, count=top),
                             output, run_folder)
    if contamination:
        return show_contamination(work.find_contamination(run_folder, str(data), columns=parse_columns(columns)),
                                  output)
    if faithfulness:
        chosen = method.split(",") if method else list(work.QUICK_METHODS)
        kept = work.measure_explanations(run_folder, str(data), Watcher(quiet=output == "json"), rows=rows,
                                         methods=chosen, columns=parse_columns(columns), seed=seed)
        return show_faithfulness(kept, output, run_folder)
    wanted = work.Wanted(method or work.DEFAULT_METHOD, against, token, with_instruction, True, training_rows, seed)
    found = (work.explain_text(run_folder, text, parse_columns(field), wanted) if text is not None else
             work.explain_row(run_folder, str(data), str(row), wanted, parse_columns(columns)))
    return show_explanation(found, output, run_folder, output_file)


def show_explanation(found: dict[str, Any], output: str, run_folder: str, output_file: str | None) -> int:
    """One explanation as JSON, as a page, or in the terminal."""
    if output == "json":
        print(json.dumps(found, ensure_ascii=False))
        return 0
    if output == "html":
        from treetune.core.version import __version__
        from treetune.report.explanation import explanation_sections
        from treetune.report.page import render_page

        name = re.sub(r"[^\w.-]+", "-", str(found["id"]))[:60].strip(".-") or "row"
        path = Path(output_file) if output_file else Path(run_folder) / "explanations" / f"{name}.html"
        title = say("Why this answer: row {id}", id=found["id"])
        write_text(path, render_page(title, explanation_sections(found), __version__))
        print(say("explanation: {path}", path=str(path)))
        return 0
    show_words(found)
    return 0


def show_words(found: dict[str, Any]) -> None:
    """The words in the terminal: bold blue with a plus for the answer, bold red with a minus against it."""
    from rich.console import Console
    from rich.text import Text

    from treetune.report.explanation import method_name, words_blocks

    console = Console(soft_wrap=True)
    console.print(Text(say("{answer!r} rather than {rival!r}: log-odds {score:+.2f} nats ({method}, {seconds:.2f} s)",
                           answer=found["answer"], rival=found["rival"], score=found["score"],
                           method=method_name(found["method"]), seconds=found["seconds"])))
    largest = max((abs(word["value"] or 0) for word in found["words"]), default=0.0) or 1.0
    line, end, part = Text(), 0, ""
    for word in found["words"]:
        anew = word["part"] != part or word["start"] < end  # a run's instruction and the task's own words are one part
        gap = "\n" if part and anew else " " if word["start"] > end else ""
        strong = abs(word["value"] or 0) >= largest / 4
        sign = ("+" if word["value"] > 0 else "-") if strong else ""
        style = "dim" if word["value"] is None else "bold blue" if sign == "+" else "bold red" if sign else ""
        line.append(gap).append(f"{word['text']}{sign}", style=style)
        end, part = word["end"], word["part"]
    console.print(line)
    for block in words_blocks(found):
        for item in getattr(block, "items", ()):
            console.print(Text(item))
    gain = found["reliance"]["with_source"] - found["reliance"]["without"]
    console.print(Text(say("with the source the answer's log-probability rises by {nats:.2f} nats", nats=gain)
                       if gain >= 0 else
                       say("with the source the answer's log-probability falls by {nats:.2f} nats", nats=-gain)))
    for one in found.get("training_rows", {}).get("nearest", ())[:3]:
        console.print(Text(say("near training row {id} ({answer}): {text}", id=one["id"], answer=one["answer"],
                               text=one["text"][:100])))
    if "coverage" in found:
        console.print(Text(say("{share:.0%} of the training rows lie as far out as this input, or farther",
                               share=found["coverage"]["density"])))
    measured = found.get("faithfulness", {}).get("methods", {}).get(found["method"])
    if measured is None:
        console.print(Text(say("Not measured yet: run treetune explain RUN --faithfulness --data FILE.")))
    elif not measured["beats_random"]:
        console.print(Text(say("{method}: not better than chance on these rows; do not rely on it here.",
                               method=method_name(found["method"]))))


def show_faithfulness(kept: dict[str, Any], output: str, run_folder: str) -> int:
    """Each method against random order."""
    if output == "json":
        print(json.dumps(kept, ensure_ascii=False))
        return 0
    from treetune.report.blocks import Paragraph, Table
    from treetune.report.explanation import faithfulness_blocks

    for block in faithfulness_blocks(kept["faithfulness"]):
        if isinstance(block, Paragraph):
            print(block.text)
        elif isinstance(block, Table):
            table(block.caption, block.head, [[str(cell) for cell in row] for row in block.rows])
    print(say("report: {path}", path=f"{run_folder}/report.html"))
    return 0


def show_suspects(found: list[dict[str, Any]], output: str, run_folder: str) -> int:
    """Suspicious rows, the worst first."""
    if output == "json":
        print(json.dumps({"suspects": found}, ensure_ascii=False))
        return 0
    table(say("Training rows that may carry a wrong label, the worst first"),
          [say("row"), say("label"), say("score"), say("text")],
          [[each["id"], each["label"], f"{each['score']:.3f}", each["text"][:100]] for each in found[:20]])
    print(say("{rows} rows in {path}", rows=len(found), path=f"{run_folder}/suspects.jsonl"))
    return 0


def show_contamination(found: dict[str, Any], output: str) -> int:
    """Rows that training has seen in part."""
    if output == "json":
        print(json.dumps(found, ensure_ascii=False))
        return 0
    print(say("{hit} of {rows} rows have at least {least:.0%} of their words in spans of {span} or more that stand in "
              "training rows", hit=found["contaminated"], rows=found["rows"], least=found["least"], span=found["span"]))
    for each in found["found"][:20]:
        print(f"  {each['id']}  {each['share']:.0%}")
    return 0
