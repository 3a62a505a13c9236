"""A plan as a person reads it on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from treetune.cli.table import table
from treetune.core.language import say
from treetune.plan.devices import PRICES_OF
from treetune.plan.energy import GRIDS_OF
from treetune.report.amounts import bytes_text, energy_text, mass_text, part_name, seconds_text, short, with_bounds

Record = Mapping[str, Any]

def show(found: Record) -> None:
    """The whole plan."""
    _model(found)
    if "paper" in found:
        _paper(found["paper"])
    _work(found)
    _memory(found)
    _time(found)
    _changes(found)
    _answers(found["answers"])
    _devices(found)


def _model(found: Record) -> None:
    model = found["model"]
    parts = "  ".join(f"{part_name(name)} {size:,}" for name, size in model["by_part"].items())
    print(say("{name}: {kind}, {parameters} parameters, {trained} of them trained", name=model["name"],
              kind=model["kind"], parameters=f"{model['parameters']:,}", trained=f"{model['trained']:,}"))
    print(f"  {parts}")
    if model["odd"]:
        print("  " + say("heads do not multiply out to the width ({odd}); kept as given", odd=model["odd"]))


def _paper(paper: Record) -> None:
    print(say("the paper: {parameters} parameters, {tokens} tokens: {flops} FLOPs, {days} PF-days; 6 N D gives "
              "{counted} and {counted_days}", parameters=f"{paper['parameters']:.4g}", tokens=f"{paper['tokens']:.0e}",
              flops=f"{paper['flops']:.3g}", days=f"{paper['pf_days']:,}", counted=f"{paper['counted_flops']:.3g}",
              counted_days=f"{paper['counted_pf_days']:,.4g}"))


def _work(found: Record) -> None:
    work, flops = found["tokens"], found["flops"]
    if found["assumed"]:
        print(say("assumed, as nobody said: {names}", names=", ".join(found["assumed"])))
    print(say("{rows} rows, {steps} steps: {row_tokens} tokens in rows, {tokens} computed ({shared} shared or "
              "padded), {labels} learnt from", rows=f"{work['rows']:,}", steps=f"{work['steps']:,}",
              row_tokens=f"{work['row_tokens']:,}", tokens=f"{work['tokens']:,}", shared=f"{work['shared']:,}",
              labels=f"{work['labels']:,}"))
    print(say("FLOPs: {paper} by the paper's convention (6 N D), {scores} with attention scores, {run} in this run; "
              "{days} PF-days", paper=f"{flops['paper']:.3g}", scores=f"{flops['with_attention']:.3g}",
              run=f"{flops['run']:.3g}", days=f"{flops['pf_days']:.3g}"))


def _memory(found: Record) -> None:
    memory = found["memory"]
    parts = "  ".join(f"{part_name(name)} {bytes_text(size)}" for name, size in memory["parts"].items() if size)
    print(say("memory of one device: {peak}, highest while {phase}", peak=with_bounds(memory["peak"], bytes_text),
              phase=part_name(memory["peak_phase"])))
    print(f"  {parts}")


def _time(found: Record) -> None:
    device = found["device"]
    print(say("time on {count} x {device}: {time}; {unknown} % of it is not measured", count=device["count"],
              device=device["name"], time=with_bounds(found["time"]["total"], seconds_text),
              unknown=f"{100 * found['unknown_share']:.0f}"))
    if found["lesson"]:
        print("  " + say("corrected by {runs} past runs", runs=found["lesson"]["runs"]))
    print(say("energy: {energy}; CO2: {co2} on the grid {grid} ({grams} g/kWh, {year})",
              energy=with_bounds(found["energy_kwh"], energy_text), co2=with_bounds(found["co2_g"], mass_text),
              grid=found["grid"], grams=f"{found['grams_per_kwh']['expected']:.0f}", year=GRIDS_OF))
    if found["cost"]:
        source = say("your prices") if found["cost"]["given"] else say("rough list prices of {year}, in USD",
                                                                          year=PRICES_OF)
        print(say("cost: {cost} ({source})", cost=with_bounds(found["cost"], short), source=source))
    else:
        print(say("cost: no price is known; give --price-per-hour or --price-per-kwh"))


def _changes(found: Record) -> None:
    room = bytes_text(found["device"]["memory_bytes"])
    if found["fits"]:
        print(say("it fits: {room} are there", room=room))
    elif found["fits"] is not None:
        print(say("it does not fit: {room} are there", room=room))
        for change in found["changes"]:
            names = ", ".join(f"{name} {value}" for name, value in change["settings"].items())
            line = say("fits with {names}: {peak}, {slower} times the operations", names=names,
                       peak=bytes_text(change["peak"]["expected"]), slower=f"{change['slower']:.2f}")
            print("  " + line + ("" if change["same_model"] else " " + say("(another result: adapters only)")))
        if not found["changes"]:
            print("  " + say("no change that is known here makes it fit"))
    for name in found["budgets_in_doubt"]:
        print(say("the budget {name} may not be enough", name=name))


def _answers(answers: Record) -> None:
    print(say("{count} answers, {samples} drawn for each: {time}, {energy}", count=f"{answers['count']:,}",
              samples=answers["samples"], time=with_bounds(answers["seconds"], seconds_text),
              energy=with_bounds(answers["energy_kwh"], energy_text)))


def _devices(found: Record) -> None:
    """Of each device the smallest number whose memory is enough; all of them are in ``--json``."""
    chosen: dict[str, Record] = {}
    for line in found["devices"]:
        if not chosen.get(line["device"], {}).get("fits"):
            chosen[line["device"]] = line
    rows = [
        [f"{line['count']} x {name}", seconds_text(line["seconds"]["expected"]),
         bytes_text(line["memory_bytes"]["expected"]) + ("" if line["fits"] else " " + say("(does not fit)")),
         energy_text(line["energy_kwh"]["expected"]), short(line["cost"]["expected"]) if line["cost"] else "–"]
        for name, line in chosen.items()
    ]
    table(say("the same run on other devices, from priors; cost in USD of {year}", year=PRICES_OF),
          [say("device"), say("time"), say("memory of each"), say("energy"), say("cost")], rows)


def show_curve(curve: Record) -> None:
    """The learning curve and what it advises."""
    rows = [[f"{point['rows']:,}", f"{point['score']:.3f}", seconds_text(point["seconds"])] for point in
            curve["points"]]
    table(say("score on {rows} validation rows ({metric})", rows=curve["validation_rows"], metric=curve["metric"]),
          [say("training rows"), say("score"), say("time")], rows)
    for ahead in curve["ahead"]:
        print(say("with {rows} rows: {expected} ({low} – {high})", rows=f"{ahead['rows']:,}",
                  expected=f"{ahead['score']['expected']:.3f}", low=f"{ahead['score']['low']:.3f}",
                  high=f"{ahead['score']['high']:.3f}"))
    print(curve["advice"])


def plan_line(event: Record) -> str:
    """The plan of a run in a line: before it starts, and again after its first steps."""
    if event["event"] == "no_plan":
        return say("no plan for this run ({why}); its account is kept all the same", why=event["why"])
    if event["event"] == "probe":
        return say("after {steps} steps: {time} in all, {unknown} % of it still unknown; peak memory {peak}",
                   steps=event["steps"], time=with_bounds(event["seconds"], seconds_text),
                   unknown=f"{100 * event['unknown_share']:.0f}", peak=bytes_text(event["peak_bytes"]))
    line = say("plan: {time}, peak memory {peak}, {energy}; nothing of it is measured yet",
               time=with_bounds(event["seconds"], seconds_text), peak=with_bounds(event["peak_bytes"], bytes_text),
               energy=with_bounds(event["energy_kwh"], energy_text))
    if event["shaped"]:
        line += "\n" + say("to keep to its memory: passes of at most {rows} rows and {tokens} tokens, activations "
                           "recomputed: {recomputed}", rows=event["shaped"]["rows_per_pass"],
                           tokens=event["shaped"]["max_tokens"],
                           recomputed=say("yes") if event["shaped"]["checkpointing"] else say("no"))
    for name in event["doubtful"]:
        line += "\n" + say("the budget {name} may not be enough", name=name)
    return line


def account_line(event: Record) -> str:
    """What a run used, beside what was planned."""
    actual, planned = event["actual"], event["planned"]
    planned_time = seconds_text(planned["seconds"]["expected"]) if planned else "–"
    planned_peak = bytes_text(planned["peak_bytes"]["expected"]) if planned else "–"
    how = say("measured") if actual["energy"]["measured"] else say("estimated")
    return say("took {time} (planned {planned_time}), peak memory {peak} (planned {planned_peak}), {energy} ({how}); "
               "{saved} of {tokens} tokens shared", time=seconds_text(actual["seconds"]), planned_time=planned_time,
               peak=bytes_text(actual["peak_bytes"]), planned_peak=planned_peak, how=how,
               energy=energy_text(actual["energy_kwh"]), saved=f"{max(0, actual['saved_tokens']):,}",
               tokens=f"{actual['row_tokens']:,}")
