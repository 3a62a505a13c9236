"""What a gate promises, and what it does not, in plain sentences of the language in force."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from treetune.core.language import say
from treetune.decide.wrong import parse_wrong


def guarantee(record: Mapping[str, Any]) -> str:
    """The promise of a gate (the record of ``gate.json``) in one sentence."""
    if record["threshold"] is None:
        return say("No guarantee: this gate accepts nothing and sends every answer to a person.")
    if record.get("by"):
        return say(
            "Of the answers this gate accepts within each group of {column}, at most {max_error} % are wrong, where "
            "wrong means: {wrong}; a gate set this way on other rows would break that promise for any group at most "
            "{failures} times in 100.", column=record["by"]["column"], max_error=percent(record["max_error"]),
            wrong=parse_wrong(record["wrong"]).in_words(), failures=percent(1 - record["confidence"]),
        )
    return say(
        "Of the answers this gate accepts, at most {max_error} % are wrong, where wrong means: {wrong}; a gate set "
        "this way on other rows would break that promise at most {failures} times in 100.",
        max_error=percent(record["max_error"]), wrong=parse_wrong(record["wrong"]).in_words(),
        failures=percent(1 - record["confidence"]),
    )


def void_guarantee(changed: Sequence[str]) -> str:
    """What is left of the promise when its scope is broken."""
    return say("No guarantee: the gate was set for something else ({what}). Run treetune gate again.",
               what=", ".join(changed))


def limits(record: Mapping[str, Any]) -> list[str]:
    """What the promise does not say."""
    sentences = [
        say("It is about many accepted answers together, not about any one of them."),
        say("It holds for rows like those it was set on; for other topics, other styles or another language it says "
            "nothing."),
        say("It knows only this definition of wrong: {wrong}.", wrong=parse_wrong(record["wrong"]).in_words()),
        say("It ends with any change of the model, its tokenizer, its settings or its prompt."),
    ]
    if record["rows"]["every_row"]:
        sentences.append(say("Rows that share a source were counted as independent, as asked for."))
    else:
        sentences.append(say("Every source counts once, however many rows share it."))
    return sentences


def outcome(record: Mapping[str, Any]) -> list[str]:
    """What came out, for the terminal and the report."""
    accepted, rows = record["accepted"], record["rows"]
    if record["threshold"] is not None:
        share = accepted["share"]
        return [say("accepts {share} % of the rows [{low}, {high}]; of {count} accepted calibration rows {wrong} were "
                    "wrong", share=percent(share["value"]), low=percent(share["low"]), high=percent(share["high"]),
                    count=accepted["rows"], wrong=accepted["wrong"])]
    needed = record["needed"]
    lines = [say("Nothing can be accepted: {rows} calibration rows do not prove that at most {max_error} % are wrong. "
                 "Every answer goes to a person.", rows=rows["tested"], max_error=percent(record["max_error"]))]
    lines.append(say("Without a single error, {count} accepted calibration rows would prove it.",
                     count=needed["accepted_if_flawless"]))
    if needed["total"] is None:
        lines.append(say("If its surest answers are as often wrong as in these rows, no number of rows would do. "
                         "Allow more errors or tune a better model."))
    elif needed["total"] > needed["have"]:
        lines.append(say("At the error rate seen so far it takes about {total} labelled rows in all; there are {have}.",
                         total=needed["total"], have=needed["have"]))
    else:
        lines.append(say("At the error rate seen so far these {have} rows are close to enough; some more may do.",
                         have=needed["have"]))
    return lines


def drift_lines(state: Mapping[str, Any]) -> list[str]:
    """What the watch over the rows that come in says (`treetune.workflow.decider.drift_state`)."""
    audited, lines = state["audited"], []
    if state["alarm_chance"] is None:
        return [say("There is nothing to compare new rows with: its file was changed. Set the gate again.")]
    if state["raised_at"] is not None:
        lines.append(say("Alarm after {raised} of {rows} rows: they are not like those the gate was set on. Nothing is "
                         "accepted until it is set again.", raised=state["raised_at"], rows=state["rows"]))
    else:
        lines.append(say("Quiet after {rows} rows (evidence {capital}, alarm at {limit}; a false alarm ever has chance "
                         "{chance} %).", rows=state["rows"], capital=f"{state['capital']:.3g}",
                         limit=f"{1 / state['alarm_chance']:g}", chance=percent(state["alarm_chance"])))
    if audited["alarm"] is not None:
        lines.append(say("Alarm by {rows} accepted answers that people looked at: {wrong} were wrong, more than the "
                         "gate allows.", rows=audited["rows"], wrong=audited["wrong"]))
    elif audited["rows"]:
        lines.append(say("Of {rows} accepted answers that people looked at {wrong} were wrong: error between {low} and "
                         "{high} % at any time so far.", rows=audited["rows"], wrong=audited["wrong"],
                         low=percent(audited["low"]), high=percent(audited["high"])))
    else:
        lines.append(say("No accepted answer of the random sample was reviewed yet: run treetune review."))
    return lines


def percent(share: float) -> str:
    """0.05 -> ``5``; at most four figures."""
    return f"{100 * share:.4g}"
