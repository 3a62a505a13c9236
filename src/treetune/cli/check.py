"""``treetune check``: what a tuning would see in your data, before anything is spent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from treetune.cli.flags import with_flags
from treetune.cli.table import table
from treetune.core.errors import EXIT_DATA
from treetune.core.language import say
from treetune.core.settings import TuneSettings, read_settings

SHOWN = 400  # characters of a prompt at either end


def check(
    config: str | None, overrides: dict[str, Any], *,
    json_output: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False,
) -> int:
    """Check your data: faults, duplicates, leaks, balance, lengths, and two examples as the model reads them."""
    from treetune.workflow.check import check as check_data

    overrides.setdefault("output_dir", "unused")
    if overrides["output_dir"] is None:
        overrides["output_dir"] = "unused"
    settings = read_settings(TuneSettings, Path(config) if config else None, overrides)
    found = check_data(settings)
    if json_output:
        print(json.dumps(found, ensure_ascii=False))
    else:
        show(found)
    read = sum(split["num_rows"] for split in found["report"]["splits"].values()) + len(found["refused"])
    return EXIT_DATA if len(found["refused"]) > settings.max_refused_share * read else 0


def show(found: dict[str, Any]) -> None:
    """The report for a person."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    report = found["report"]
    rows = []
    for name, split in report["splits"].items():
        lengths = (report["token_lengths"] or {}).get(name)
        rows.append([
            name, str(split["num_rows"]), str(sum(split["refused"].values())),
            str(split["duplicate_rows"]["count"]), str(split["conflicting_labels"]),
            " ".join(f"{label}:{count}" for label, count in split["labels"].items()) or "-",
            f"{lengths['minimum']}/{lengths['median']:g}/{lengths['p95']:g}/{lengths['maximum']}" if lengths else "-",
            f"{found['cut'][name]['examples']}" if name in found["cut"] else "-",
        ])
    table(say("your data"), [say("split"), say("rows"), say("refused"), say("duplicates"), say("conflicting labels"),
                             say("labels"), say("tokens min/median/p95/max"), say("rows cut")], rows)
    for leak in report["leaks"]:
        if leak["overlap"]["count"]:
            console.print(say("{count} rows of {later} stand in {earlier} too, e.g. {examples}",
                              count=leak["overlap"]["count"], later=leak["later"], earlier=leak["earlier"],
                              examples=leak["overlap"]["examples"][:3]), markup=False)
    for ours, theirs in found["renamed"].items():
        console.print(say("column {theirs} is read as {ours}", theirs=ours, ours=theirs), markup=False)
    for refusal in found["refused"][:10]:
        console.print(f"{refusal['file']}, {say('line')} {refusal['line']}: {refusal['code']} {refusal['why']}",
                      markup=False, highlight=False)
    if len(found["refused"]) > 10:
        console.print(say("{count} rows refused in all", count=len(found["refused"])))
    for example in found["rendered"]:
        text = Text(both_ends(example["prompt"]), style="dim")
        text.append(example["completion"], style="bold green")
        console.print(text)
    console.print(say("dim: read only; bold green: learnt (carries the loss)"))


def both_ends(text: str) -> str:
    """The text, without the middle where it is long."""
    return text if len(text) <= 2 * SHOWN else f"{text[:SHOWN]} […] {text[-SHOWN:]}"


run = with_flags(TuneSettings, check)
