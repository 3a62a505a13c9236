"""What the page says of the gate: what it promises and does not, risk over coverage, reliability, the tests,
the checks of content, the groups, and whether new rows are still like these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from treetune.core.language import say
from treetune.report.blocks import Block, Bullets, Chart, Paragraph, Section, Table, absent
from treetune.report.charts import BLUE, GREY, VERMILLION, Series, line_chart
from treetune.report.wording import clean, count, number, percent

Record = Mapping[str, Any]


def trust(record: Record) -> Section:
    """The gate, from ``record["gate"]``: the fields of ``gate.json``, ``sentence``, ``outcome``, ``limits``, and where
    there are such ``void``, ``drift_lines`` and ``planted`` (how each check did on planted defects).
    """
    gate = record.get("gate") or {}
    title = say("When to trust an answer")
    if not gate:
        return Section("gate", title, absent(say("There is no gate yet: run treetune gate with labelled rows.")))
    return Section("gate", title, [
        Paragraph(clean(gate["sentence"]),
                  "plain" if gate["threshold"] is not None and not gate.get("void") else "warning"),
        *(Paragraph(clean(line)) for line in gate["outcome"]),
        Paragraph(say("What this does not say:")), Bullets([clean(line) for line in gate["limits"]]),
        *_charts(gate), _facts(gate), *_groups(gate), *_drift(gate), *_checks(gate), *_scores(gate), *_sets(gate),
    ])


def _charts(gate: Record) -> list[Block]:
    measured = gate["measured"]
    if "curve" not in measured:
        return []
    curve = list(zip(measured["curve"]["coverage"], measured["curve"]["risk"], strict=True))
    bound = [(0.0, gate["max_error"]), (1.0, gate["max_error"])]
    lines = [Series(say("seen"), curve, BLUE), Series(say("allowed"), bound, VERMILLION)]
    if gate["threshold"] is not None:
        share, accepted = gate["accepted"]["share"]["value"], gate["accepted"]
        lines.append(Series(say("this gate"), [(share, accepted["wrong"] / accepted["rows"])], GREY, marks=True))
    risk = say("Share of wrong answers among those accepted")
    bins = measured["reliability"]
    right = list(zip(bins["confidence"], bins["right"], strict=True))
    ends = (min(bins["confidence"]), max(bins["confidence"]))
    reliable = say("Share of right answers at each confidence")
    return [
        Chart(line_chart(risk, say("share of all answers that is accepted"), lines), risk),
        Chart(line_chart(reliable, say("confidence"), [
            Series(say("seen"), right, BLUE, marks=True), Series(say("ideal"), [(x, x) for x in ends], GREY),
        ]), reliable),
    ]


def _facts(gate: Record) -> Table:
    rows, measured = gate["rows"], gate["measured"]
    found = [
        (say("rows that chose score and thresholds"), count(rows["tune"])),
        (say("rows that tested them"), f"{count(rows['tested'])} / {count(rows['calibration'])}"),
        (say("share of wrong answers without a gate"), percent(measured["error"], 1)),
        (say("score"), clean(gate["score"]["name"])), (say("calibrator"), clean(gate["calibrator"]["kind"])),
    ]
    if "expected_calibration_error" in measured:
        error = measured["expected_calibration_error"]
        found.append((say("expected calibration error"),
                      f"{number(error['value'])} [{number(error['low'])}, {number(error['high'])}]"))
    return Table(say("How the gate was set"), (), found)


def _groups(gate: Record) -> list[Block]:
    by = gate.get("by")
    if not by:
        return []
    rows = [
        (clean(name), count(each["rows"]), f"{count(each['accepted'])} ({percent(each['share']['value'], 1)})",
         f"{count(each['wrong'])}", say("holds") if each["threshold"] is not None else say("not proved")
         if each["tested"] else say("too few rows: {needed} without an error would be needed", needed=by["rows_each"]))
        for name, each in by["groups"].items()
    ]
    head = (say("group"), say("rows"), say("accepted"), say("wrong among accepted answers"), say("outcome"))
    caption = say("The bound in each group of {column}, each at {confidence} % confidence", column=clean(by["column"]),
                  confidence=f"{100 * by['confidence_each']:.4g}")
    return [Table(caption, head, rows)]


def _drift(gate: Record) -> list[Block]:
    lines = gate.get("drift_lines") or []
    alarm = bool((gate.get("drift") or {}).get("alarm"))
    return [Paragraph(say("Are the new rows still like these?")),
            *(Paragraph(clean(line), "warning" if alarm else "plain") for line in lines)] if lines else []


def _checks(gate: Record) -> list[Block]:
    checks, planted = gate.get("checks"), gate.get("planted") or {}
    if not checks:
        return []
    rows = [
        (clean(name), say("stops the answer") if name in checks["stop"] else say("flags it only"),
         count(fired["rows"]), percent(fired["wrong"] / fired["rows"], 1) if fired["rows"] else "–",
         _rate(planted.get(name, {}).get("precision")), _rate(planted.get(name, {}).get("recall")))
        for name, fired in checks["fired"].items()
    ]
    head = (say("check"), say("effect"), say("fired"), say("wrong among these"), say("precision"), say("recall"))
    caption = say("What the checks did on the rows that set the gate, and on planted defects")
    return [Table(caption, head, rows)]


def _rate(value: Record | None) -> str:
    return "–" if not value else f"{number(value['value'])} [{number(value['low'])}, {number(value['high'])}]"


def _scores(gate: Record) -> list[Block]:
    rows = [
        (clean(each["name"]), number(each["auroc"]), number(each["rejection_ratio"]),
         f"{number(each['gain'])} [{number(each['low'])}, {number(each['high'])}]" if each["name"] != "probability"
         else "–")
        for each in gate["candidates"]
    ]
    if not rows:
        return []
    head = (say("score"), "AUROC", say("prediction-rejection ratio"), say("area gained over the plain probability"))
    return [Table(say("How well each score tells right from wrong (tune rows)"), head, rows, folded=True)]


def _sets(gate: Record) -> list[Block]:
    sets = gate["sets"]
    if not sets:
        return []
    rows = [(clean(label), number(limit), count(sets["rows"][label])) for label, limit in sets["limits"].items()]
    head = (say("label"), say("smallest probability"), say("rows"))
    caption = say("Labels that stay possible: the right one is among them in at least {share} % of each label's rows",
                  share=f"{100 * (1 - sets['miss_rate']):g}")
    return [Table(caption, head, rows, folded=True)]
