"""What the page says of the rows, the training, the compute and the limits, from plain records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from treetune.core.language import say
from treetune.report.amounts import seconds_text
from treetune.report.blocks import Block, Bullets, Chart, Code, Paragraph, Section, Table, absent
from treetune.report.charts import BLUE, GREEN, VERMILLION, Point, Series, line_chart
from treetune.report.wording import (
    clean,
    count,
    family_name,
    finite,
    number,
    percent,
    split_name,
    task_name,
)

MAX_TABLE_LINES = 20
FEW_ROWS = 200
Record = Mapping[str, Any]


def what_it_is(record: Record) -> Section:
    """Task, model, date, seed, version."""
    seed = (record.get("settings") or {}).get("seed")
    facts = [
        (say("task"), task_name(str(record.get("task", "")))),
        (say("base model"), clean(record.get("model", ""))),
        (say("model family"), family_name(record.get("family"))),
        (say("created"), clean(record.get("created") or "–")),
        (say("seed"), count(seed)),
        (say("treetune version"), clean(record.get("treetune_version") or "–")),
    ]
    text = say("A language model tuned for one task on its owner's rows, and what was measured of it.")
    return Section("about", say("What this is"), [Paragraph(text), facts_table("", facts)])


def facts_table(caption: str, facts: Sequence[tuple[str, str]], folded: bool = False) -> Table:
    """Two columns: name and value."""
    return Table(caption, (), facts, folded)


def data_check(record: Record) -> Section:
    """Rows, refusals, duplicates, leakage, balance of labels, tokens cut off."""
    data = record.get("data") or {}
    splits: Record = data.get("splits") or {}
    title = say("Data check")
    if not splits:
        return Section("data", title, absent(say("The data check is not there yet.")))
    blocks: list[Block] = [_splits_table(splits), *_leakage(data.get("leaks") or ())]
    if any(split.get("labels") for split in splits.values()):
        blocks.append(_labels_table(splits))
    if lengths := data.get("token_lengths"):
        blocks.append(_lengths_table(lengths, data.get("num_cut") or {}))
    return Section("data", title, [*blocks, *_cut(record)])


def _splits_table(splits: Record) -> Table:
    head = (say("split"), say("rows"), say("refused"), say("duplicates"), say("conflicting labels"),
            say("duplicate ids"))
    rows = [
        (split_name(name), count(split.get("num_rows")), _refused(split.get("refused") or {}),
         count((split.get("duplicate_rows") or {}).get("count")), count(split.get("conflicting_labels")),
         count(split.get("duplicate_ids")))
        for name, split in splits.items()
    ]
    return Table(say("Rows of each split"), head, rows)


def _refused(codes: Mapping[str, int]) -> str:
    total = count(sum(codes.values()))
    return f"{total} ({', '.join(f'{clean(code)}: {number}' for code, number in codes.items())})" if codes else total


def _leakage(leaks: Sequence[Record]) -> list[Block]:
    if not leaks:
        return []
    rows, leaked = [], 0
    for leak in leaks:
        overlap = leak.get("overlap") or {}
        leaked += int(overlap.get("count", 0))
        shown = "; ".join(f"{clean(earlier)} = {clean(later)}" for earlier, later in overlap.get("examples") or ())
        names = f"{split_name(str(leak.get('earlier')))} → {split_name(str(leak.get('later')))}"
        rows.append((names, count(overlap.get("count")), shown or "–"))
    head = (say("splits"), say("rows in both"), say("for example (ids)"))
    blocks: list[Block] = [Table(say("Leakage: rows that stand in two splits"), head, rows)]
    if leaked:
        blocks.append(Paragraph(
            say("{rows} rows stand in two splits; numbers measured on them look better than they are.",
                rows=count(leaked)), "warning"))
    return blocks


def _labels_table(splits: Record) -> Table:
    names = list(dict.fromkeys(label for split in splits.values() for label in split.get("labels") or {}))
    rows = [
        (clean(label) or say("(no label)"), *(_share(split.get("labels") or {}, label) for split in splits.values()))
        for label in names
    ]
    return Table(say("Label balance"), (say("label"), *map(split_name, splits)), rows)


def _share(labels: Mapping[str, int], label: str) -> str:
    found = labels.get(label, 0)
    return f"{count(found)} ({percent(found, sum(labels.values()))})"


def _lengths_table(lengths: Record, cut: Mapping[str, int]) -> Table:
    head = (say("split"), say("shortest"), say("median"), say("95th percentile"), say("longest"), say("rows cut"))
    rows = [
        (split_name(name), *(count(one.get(key)) for key in ("minimum", "median", "p95", "maximum")),
         count(cut.get(name)))
        for name, one in lengths.items()
    ]
    return Table(say("Length of the rows in tokens"), head, rows)


def _cut(record: Record) -> list[Block]:
    found: list[Block] = []
    for event in events_of(record, "tokens")[-1:]:
        cut = event.get("cut") or {}
        if cut.get("examples"):
            text = say("{examples} of {rows} rows are longer than the window: {tokens} tokens cut off their sources",
                       examples=cut["examples"], rows=event.get("rows"), tokens=cut.get("tokens"))
            found.append(Paragraph(text, "warning"))
    return found


def events_of(record: Record, kind: str) -> list[Record]:
    """Events of one kind, oldest first."""
    return [event for event in record.get("events") or () if event.get("event") == kind]


def training(record: Record) -> Section:
    """Loss, learning rate, throughput and, where it was logged, memory over steps, as charts; losses as a table."""
    steps, evaluations = events_of(record, "step"), events_of(record, "evaluation")
    title = say("Training")
    if not steps and not evaluations:
        return Section("training", title, absent(say("The training curve is not there yet.")))
    loss = line_chart(say("Loss over steps"), say("step"), [
        Series(say("training loss"), _points(steps, "loss"), BLUE),
        Series(say("validation loss"), _points(evaluations, "loss"), VERMILLION, marks=True),
    ])
    rate = line_chart(say("Learning rate over steps"), say("step"), [
        Series(say("learning rate"), _points(steps, "learning_rate"), GREEN),
    ])
    speed = line_chart(say("Throughput of each step"), say("step"), [
        Series(say("tokens a second"), _speeds(steps), BLUE),
    ])
    memory = line_chart(say("Peak memory of each step"), say("step"), [
        Series(say("gigabytes"), [(x, y / 1e9) for x, y in _points(steps, "peak_bytes")], VERMILLION),
    ])
    captions = ((loss, say("Loss in nats a label; lower is better.")), (rate, say("Learning rate of each step.")),
                (speed, say("Tokens of the rows computed a second.")), (memory, say("Memory in use while training.")))
    charts = [Chart(svg, caption) for svg, caption in captions if svg]
    return Section("training", title, [*charts, *_best(evaluations), *_curve_table(steps, evaluations)])


def _points(events: Sequence[Record], key: str) -> list[Point]:
    pairs = [(finite(event.get("step")), finite(event.get(key))) for event in events]
    return [(x, y) for x, y in pairs if x is not None and y is not None]


def _speeds(steps: Sequence[Record]) -> list[Point]:
    """Tokens of the separate rows a second, of each logged step."""
    found = []
    for event in steps:
        step, tokens, seconds = (finite(event.get(key)) for key in ("step", "row_tokens", "seconds"))
        if step is not None and tokens is not None and seconds:
            found.append((step, tokens / seconds))
    return found


def _best(evaluations: Sequence[Record]) -> list[Block]:
    if not evaluations or finite(evaluations[-1].get("best_loss")) is None:
        return []
    last = evaluations[-1]
    return [Paragraph(say("The weights kept are those of step {step}, validation loss {loss}.",
                          step=count(last.get("best_step")), loss=number(last.get("best_loss"))))]


def _curve_table(steps: Sequence[Record], evaluations: Sequence[Record]) -> list[Block]:
    every = -(-len(steps) // MAX_TABLE_LINES) or 1
    shown = {id(event) for event in steps[every - 1 :: every]} | {id(event) for event in steps[-1:]}
    lines = {event.get("step"): event for event in steps if id(event) in shown}
    checked = {event.get("step"): event.get("loss") for event in evaluations[-MAX_TABLE_LINES:]}
    order = sorted({*lines, *checked}, key=lambda step: finite(step) or 0.0)
    rows = [
        (count(step), number(lines.get(step, {}).get("loss")), number(checked.get(step)),
         _rate(lines.get(step, {}).get("learning_rate")))
        for step in order
    ]
    head = (say("step"), say("training loss"), say("validation loss"), say("learning rate"))
    caption = say("The curves as numbers: one log line of {every}, the last {most} validations", every=every,
                  most=MAX_TABLE_LINES)
    return [Table(caption, head, rows, folded=True)]


def _rate(value: Any) -> str:
    found = finite(value)
    return "–" if found is None else f"{found:.3g}"


def compute(record: Record) -> Section:
    """Time, tokens, what sharing saved, parameters, machine."""
    seconds, tokens = finite(record.get("seconds")), finite(record.get("tokens"))
    in_rows = finite(record.get("row_tokens"))
    facts = []
    if seconds is not None:
        facts.append((say("training time"), seconds_text(seconds)))
    if tokens is not None:
        facts.append((say("tokens computed"), count(tokens)))
    if in_rows is not None:
        facts.append((say("tokens of the separate rows"), count(in_rows)))
    if tokens is not None and in_rows:
        saved = f"{count(in_rows - tokens)} ({percent(in_rows - tokens, in_rows)})"
        facts.append((say("tokens saved by sharing prefixes"), saved))
    if seconds and in_rows:
        facts.append((say("row tokens a second"), count(in_rows / seconds)))
    if record.get("parameters") is not None:
        facts.append((say("parameters"), count(record["parameters"])))
    if record.get("machine"):
        facts.append((say("machine"), clean(record["machine"])))
    blocks: list[Block] = [facts_table("", facts)] if facts else absent(say("The compute is not there yet."))
    return Section("compute", say("Compute"), [*blocks, *_exactness(record)])


def _exactness(record: Record) -> list[Block]:
    blocks: list[Block] = []
    for event in events_of(record, "exactness")[-1:]:
        text = say("Before training, the gradients of {layout} batches were compared with those of separate rows on "
                   "this model: largest relative difference {difference}; {used} batches were used.",
                   layout=clean(event.get("layout")), difference=_rate_or_text(event.get("difference")),
                   used=clean(event.get("used")))
        blocks.append(Paragraph(text, "plain" if event.get("used") == event.get("layout") else "warning"))
    return blocks


def _rate_or_text(value: Any) -> str:
    return clean(value) if finite(value) is None else _rate(value)


def reproduce(record: Record) -> Section:
    """The command and all settings."""
    command, settings = record.get("command"), record.get("settings") or {}
    blocks: list[Block] = []
    if command:
        blocks += [Paragraph(say("The same command, data, versions and machine give the same model.")),
                   Code(clean(command))]
    else:
        blocks += absent(say("The command is not there yet."))
    if settings:
        facts = [(clean(key), clean(value)) for key, value in settings.items()]
        blocks.append(facts_table(say("All settings"), facts, folded=True))
    return Section("reproduce", say("How to reproduce"), blocks)


def limit_sentences(record: Record) -> list[str]:
    """What the numbers do not say, as sentences."""
    found = [
        say("The numbers hold for rows like those measured; rows of another source, time or language may do worse."),
        say("The intervals show the chance in the choice of test rows, not that of another training seed."),
        say("A probability of the model is not calibrated by itself: a sure answer can be wrong."),
        say("The model keeps the errors and prejudices of its base and of the training rows; "
            "the licence of the base applies to it, too."),
    ]
    evaluation = record.get("evaluation") or {}
    rows = finite((evaluation.get("counts") or {}).get("rows"))
    if not evaluation.get("scores"):
        found.insert(0, say("The quality was not measured on labelled test rows yet."))
    elif rows is not None and rows < FEW_ROWS:
        found.insert(0, say("Only {rows} rows were measured: small differences cannot be seen.", rows=count(rows)))
    return found


def limits(record: Record) -> Section:
    """`limit_sentences` as a section."""
    return Section("limits", say("Limits"), [Bullets(limit_sentences(record))])
