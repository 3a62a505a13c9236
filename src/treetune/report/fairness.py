"""What the page says of the audit: for whom the model fails, from ``record["fairness"]`` with its words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from treetune.core.language import say
from treetune.report.blocks import Block, Bullets, Chart, Paragraph, Section, Table, absent
from treetune.report.charts import Measured, interval_chart
from treetune.report.wording import clean, number, signed

Record = Mapping[str, Any]
MAX_BARS = 16
MAX_LINES = 12  # longer tables are folded


def fairness(record: Record) -> Section:
    """The audit: `treetune.audit.wording.in_words` of ``audit/fairness.json``."""
    audit = record.get("fairness") or {}
    title = say("For whom it fails")
    if not audit:
        return Section("fairness", title, absent(say("There is no audit yet: run treetune audit with labelled rows.")))
    tables = [Table(clean(each["caption"]), tuple(map(clean, each["head"])),
                    [tuple(map(clean, row)) for row in each["rows"]], folded=len(each["rows"]) > MAX_LINES)
              for each in audit["tables"]]
    notes: list[Block] = [Paragraph(say("How it was measured:")), Bullets([clean(line) for line in audit["notes"]])]
    return Section("fairness", title, [
        *(Paragraph(clean(line)) for line in audit["summary"]), *_chart(audit),
        *(Paragraph(clean(line), "warning") for line in audit["warnings"]), *tables,
        *(notes if audit["notes"] else []),
        Paragraph(say("What this does not say:")), Bullets([clean(line) for line in audit["limits"]]),
    ])


def _chart(audit: Record) -> list[Block]:
    """The gaps of quality, the widest first, those found in strong colour."""
    gaps = [each for each in audit["findings"] if (each["kind"], each["measure"]) == ("gap", "quality")]
    gaps = sorted(gaps, key=lambda each: -abs(each["value"]))[:MAX_BARS]
    if not gaps:
        return []
    title = say("Gaps of quality with their 95 % intervals; 0 is none")
    bars = [Measured(f"{clean(each['attribute'])}: {clean(each['group'])}",
                     f"{signed(each['value'])} [{number(each['low'])}, {number(each['high'])}]", each["value"],
                     each["low"], each["high"], each["found"])
            for each in gaps]
    return [Chart(interval_chart(title, bars), title)]
