"""What the page says of the run's plan and of its account: what was expected, what happened, how far apart they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from treetune.core.language import say
from treetune.plan.energy import GRIDS_OF
from treetune.report.amounts import (
    bytes_text,
    energy_source,
    energy_text,
    mass_text,
    part_name,
    seconds_text,
    short,
    with_bounds,
)
from treetune.report.blocks import Block, Paragraph, Section, Table
from treetune.report.wording import clean, count, percent

Record = Mapping[str, Any]


def account(record: Record) -> Section | None:
    """Plan against actual, energy with its method, tokens saved; None where the run has no account."""
    found = record.get("account")
    if not found:
        return None
    actual = found["actual"]
    blocks: list[Block] = [_against(found)]
    blocks.append(Paragraph(say(
        "Energy: {source}. CO2 is energy times the grid {grid}: yearly means of {year}, which hour and region change "
        "by half.", source=energy_source(actual["energy"]), grid=clean(found["grid"]), year=GRIDS_OF)))
    tokens, rows = actual["tokens"], actual["row_tokens"]
    blocks.append(Paragraph(say(
        "{tokens} tokens were computed for {row_tokens} tokens of rows in this account's {steps} steps; sharing saved "
        "{saved}.", tokens=count(tokens), row_tokens=count(rows),
        steps=count(actual["steps"]), saved=percent(max(0, rows - tokens), rows))))
    if found.get("planned"):
        blocks.append(_parts(found["planned"]))
    if found["attempts"] > 1:
        blocks.append(Paragraph(say("The run was taken up {count} times; its attempts are added up.",
                                    count=count(found["attempts"] - 1))))
    return Section("account", say("Plan and account"), blocks)


def _against(found: Record) -> Table:
    planned, probe, actual = found.get("planned") or {}, found.get("probe") or {}, found["actual"]
    rows = [
        _line(say("time"), seconds_text, planned.get("seconds"), probe.get("seconds"), actual["seconds"]),
        _line(say("peak memory"), bytes_text, planned.get("peak_bytes"), probe.get("peak_bytes"),
              actual["peak_bytes"]),
        _line(say("energy"), energy_text, planned.get("energy_kwh"), probe.get("energy_kwh"), actual["energy_kwh"]),
        _line("CO2", mass_text, planned.get("co2_g"), probe.get("co2_g"), actual["co2_g"]),
    ]
    if actual["cost"] is not None:
        rows.append(_line(say("cost"), short, planned.get("cost"), probe.get("cost"), actual["cost"]))
    head = ("", say("planned"), say("after {steps} steps", steps=probe.get("steps", "–")), say("actual"),
            say("off by"))
    return Table(say("Plan against actual"), head, rows)


def _line(
    name: str, text: Callable[[float], str], planned: Record | None, probed: Any, actual: Any
) -> tuple[str, ...]:
    """One quantity; ``actual`` is a number, or bounds where it was not measured."""
    middle = actual["expected"] if isinstance(actual, Mapping) else actual
    off = f"{100 * (planned['expected'] - middle) / middle:+.0f} %" if planned and middle else "–"
    return (name, with_bounds(planned, text) if planned else "–", _shown(probed, text), _shown(actual, text), off)


def _shown(value: Any, text: Callable[[float], str]) -> str:
    if value is None:
        return "–"
    return with_bounds(value, text) if isinstance(value, Mapping) else text(value)


def _parts(planned: Record) -> Table:
    """Where the plan saw time and memory go."""
    rows = [(part_name(name), seconds_text(value), "–") for name, value in planned["parts"].items() if value]
    rows += [(part_name(name), "–", bytes_text(value)) for name, value in planned["memory_parts"].items() if value]
    return Table(say("The plan by part"), (say("part"), say("time"), say("memory")), rows, folded=True)
