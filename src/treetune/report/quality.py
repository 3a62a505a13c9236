"""What the page says of the quality: scores, comparisons, confusion, right and wrong answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from treetune.core.language import say
from treetune.report.blocks import Block, Cell, Chart, Paragraph, Sample, Section, Table, absent
from treetune.report.charts import Measured, interval_chart
from treetune.report.wording import clean, count, finite, number, p_text, system_name, with_interval

MAX_EXAMPLES = 5
MAX_CHARACTERS = 1200
MAX_SHADE = 0.6
Record = Mapping[str, Any]


def quality(record: Record) -> Section:
    """Every system's scores with intervals, and the paired differences."""
    evaluation = record.get("evaluation") or {}
    title = say("Quality")
    if not evaluation.get("scores"):
        return Section("quality", title, absent(say("The quality is not there yet: run treetune evaluate.")))
    return Section("quality", title, [
        scores_table(evaluation), *_charts(evaluation), *_comparisons(evaluation), *_further(evaluation),
        Paragraph(_how_measured(evaluation)),
    ])


def metric_names(evaluation: Record) -> list[str]:
    """Metrics in the order of the evaluation."""
    rows = evaluation["scores"].values()
    return list(dict.fromkeys(str(score.get("metric")) for row in rows for score in row))


def scores_table(evaluation: Record) -> Table:
    """System x metric, each as value [low, high]."""
    metrics = metric_names(evaluation)
    rows = []
    for system, scores in evaluation["scores"].items():
        found = {str(score.get("metric")): with_interval(score) for score in scores}
        rows.append((system_name(system), *(found.get(metric, "–") for metric in metrics)))
    caption = say("Scores with {level} % intervals; higher is better", level=_level(evaluation["scores"]))
    return Table(caption, (say("system"), *map(clean, metrics)), rows)


def _level(by_system: Mapping[str, Sequence[Record]]) -> str:
    levels = {f"{100 * (finite(one.get('level')) or 0.95):g}" for row in by_system.values() for one in row}
    return ", ".join(sorted(levels)) or "95"


def _charts(evaluation: Record) -> list[Block]:
    blocks: list[Block] = []
    for metric in metric_names(evaluation):
        measured = [
            one for system, scores in evaluation["scores"].items() for score in scores
            if score.get("metric") == metric and (one := _measured(system, score))
        ]
        title = say("{metric} of each system", metric=clean(metric))
        if svg := interval_chart(title, measured):
            blocks.append(Chart(svg, title))
    return blocks


def _measured(system: str, score: Record) -> Measured | None:
    value, low, high = (finite(score.get(key)) for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return None
    return Measured(system_name(system), number(value), value, low, high, strong=system == "tuned")


def _comparisons(evaluation: Record) -> list[Block]:
    comparisons = evaluation.get("comparisons") or {}
    rows = [
        (system_name(system), clean(one.get("metric")), with_interval(one, sign=True), p_text(one.get("p_value")))
        for system, row in comparisons.items() for one in row
    ]
    if not rows:
        return []
    reference = system_name(str(evaluation.get("reference_system", "")))
    caption = say("Difference to {system} on the same rows", system=reference)
    head = (say("system"), say("metric"), say("difference"), say("p-value"))
    note = say("p is the chance of a difference this large between systems that are equally good; "
               "it is not corrected for several comparisons.")
    return [Table(caption, head, rows), Paragraph(note)]


def _further(evaluation: Record) -> list[Block]:
    rows = []
    if interval := (evaluation.get("perplexity") or {}).get("interval"):
        rows.append((say("perplexity of the reference answers (lower is better)"), with_interval(interval)))
    named = (("unfinished", say("answers that did not end by themselves")),
             ("cut", say("test rows cut to fit the window")), ("refused", say("test rows refused")))
    rows += [(name, count(evaluation[key])) for key, name in named if key in evaluation]
    return [Table(say("Of the tuned model"), (), rows)] if rows else []


def _how_measured(evaluation: Record) -> str:
    counts = evaluation.get("counts") or {}
    return say("Measured on {rows} rows ({units} drawn as units); intervals from {resamples} resamples, seed {seed}.",
               rows=count(counts.get("rows")), units=count(counts.get("units")),
               resamples=count(evaluation.get("num_resamples")), seed=count(evaluation.get("seed")))


def confusion(record: Record) -> Section | None:
    """Expected against answered labels of the first system; None for tasks without labels."""
    evaluation = record.get("evaluation") or {}
    labels = [clean(label) for label in evaluation.get("labels") or ()]
    tables: Record = evaluation.get("confusion") or {}
    if not labels or not tables:
        return None
    blocks: list[Block] = [
        _confusion_table(system, labels, table, folded=place > 0)
        for place, (system, table) in enumerate(tables.items())
    ]
    note = Paragraph(say("Line: the expected label. Column: the answer. The darker, the larger its share of the line."))
    return Section("confusion", say("Confusion matrix"), [note, *blocks])


def _confusion_table(system: str, labels: Sequence[str], table: Sequence[Sequence[int]], folded: bool) -> Table:
    head = (say("expected \\ answered"), *labels, say("no label"))
    rows: list[Sequence[str | Cell]] = []
    for label, line in zip(labels, table, strict=False):
        total = sum(line) or 1
        rows.append((label, *(Cell(count(found), MAX_SHADE * found / total) for found in line)))
    return Table(system_name(system), head, rows, folded)


def examples(record: Record) -> Section:
    """Up to five right and five wrong answers."""
    given = record.get("examples") or ()
    title = say("Examples")
    if not given:
        return Section("examples", title, absent(say("Examples are not there yet.")))
    right = [one for one in given if one.get("correct")][:MAX_EXAMPLES]
    wrong = [one for one in given if not one.get("correct")][:MAX_EXAMPLES]
    blocks: list[Block] = [
        Paragraph(say("Chosen to show both kinds; how many of each are shown says nothing about the quality.")),
        *map(_sample, [*right, *wrong]),
    ]
    return Section("examples", title, blocks)


def _sample(example: Record) -> Sample:
    correct = bool(example.get("correct"))
    verdict = say("equals a reference") if correct else say("differs from the reference")
    return Sample(correct, [
        (say("result"), f"{'✓' if correct else '✗'} {verdict}"),
        (say("input"), shorten(clean(example.get("input", "")))),
        (say("reference"), shorten(clean(example.get("reference", "")))),
        (say("answer"), shorten(clean(example.get("answer", "")))),
        (say("probability"), number(example.get("probability"))),
    ])


def shorten(text: str) -> str:
    """The text, or its start with a note of how much is not shown."""
    if len(text) <= MAX_CHARACTERS:
        return text
    more = say("{characters} more characters", characters=count(len(text) - MAX_CHARACTERS))
    return f"{text[:MAX_CHARACTERS]} … ({more})"
