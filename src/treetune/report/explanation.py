"""What a page says of explanations: words for and against an answer, layers, attention, the source, training rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from treetune.core.language import say
from treetune.report.blocks import Block, Bullets, Cell, Chart, Marked, Paragraph, Piece, Section, Table, absent
from treetune.report.charts import BLUE, GREY, VERMILLION, Series, line_chart
from treetune.report.quality import shorten
from treetune.report.wording import clean, count, finite, number, p_text, percent, signed, with_interval

MOST_WORDS = 12
MAX_SHADE = 0.6
Record = Mapping[str, Any]


def method_name(method: str) -> str:
    """A method of explanation in the reader's language."""
    names = {
        "integrated_gradients": say("integrated gradients"), "gradient_x_input": say("gradient × input"),
        "shapley": say("Shapley values, sampled"), "occlusion": say("leaving one word out"),
        "random": say("random order"), "rare_words_first": say("rare words first"),
    }
    return names.get(method, clean(method))


def part_name(part: str) -> str:
    """Where a word stands."""
    names = {"source": say("your text"), "question": say("question"), "instruction": say("instruction")}
    return names.get(part, clean(part))


def explanation_sections(found: Record) -> list[Section]:
    """The sections of one explained answer; ``found`` as `treetune.workflow.explain` makes it."""
    sections = [
        Section("answer", say("Answer"), _answer(found)),
        Section("words", say("Which words speak for it"), words_blocks(found)),
        Section("tokens", say("Word by word of the answer"), _tokens(found)) if found.get("tokens") else None,
        Section("source", say("Does it use the source"), _reliance(found)) if found.get("reliance") else None,
        Section("layers", say("Layer by layer"), _lens(found)) if found.get("lens") else None,
        Section("attention", say("Where it looks"), _attention(found)) if found.get("attention") else None,
        Section("rows", say("Training rows behind it"), _rows(found)) if found.get("training_rows") else None,
        Section("coverage", say("Does the training data cover it"), _coverage(found))
        if found.get("coverage") else None,
        Section("true", say("Are the explanations true"), [*faithfulness_blocks(found.get("faithfulness") or {})]),
    ]
    return [section for section in sections if section]


def _answer(found: Record) -> list[Block]:
    rows = [(say("answer"), shorten(clean(found["answer"]))), (say("compared with"), shorten(clean(found["rival"]))),
            (say("log-odds, nats"), signed(found["score"])),
            (say("log-odds without the words"), signed(found["without"])),
            (say("method"), method_name(found["method"])), (say("seconds"), number(found["seconds"]))]
    if finite(found.get("gap")) is not None:
        rows.append((say("missing from the sum of the words"), percent(float(found["gap"]), 1)))
    return [Table("", (), [row for row in rows if row[1] not in ("", "–")])]


def words_blocks(found: Record) -> list[Block]:
    """The input with its words shaded, and the strongest ones as a list and a table: the same without colour."""
    words = found["words"]
    largest = max((abs(word["value"]) for word in words if word["value"] is not None), default=0.0) or 1.0
    blocks: list[Block] = []
    for part in dict.fromkeys(word["part"] for word in words):
        own = [word for word in words if word["part"] == part]
        blocks.append(Marked(part_name(part), [
            Piece(clean(word["text"]), word["value"], abs(word["value"] or 0.0) / largest,
                  bool(place and not own[place - 1]["start"] < word["start"] <= own[place - 1]["end"]))
            for place, word in enumerate(own)]))  # instruction words of two places have starts of their own
    blocks.append(Paragraph(say("Blue with a solid line: speaks for the answer. Orange with a dashed line: against it. "
                                "The stronger, the more.")))
    if found.get("note"):
        blocks.append(Paragraph(clean(found["note"])))
    return [*blocks, *_in_words(words), _table(words)]


def _in_words(words: Sequence[Record]) -> list[Block]:
    known = [word for word in words if word["value"] is not None]
    speaking = sorted((word for word in known if word["value"] > 0), key=lambda word: -word["value"])[:5]
    against = sorted((word for word in known if word["value"] < 0), key=lambda word: word["value"])[:5]
    lines = [(say("For the answer: {words}", words=_listed(speaking)), speaking),
             (say("Against it: {words}", words=_listed(against)), against)]
    return [Bullets([line for line, own in lines if own])] if speaking or against else []


def _listed(words: Sequence[Record]) -> str:
    return ", ".join(f"{clean(word['text'])} ({signed(word['value'])})" for word in words)


def _table(words: Sequence[Record]) -> Table:
    head = (say("word"), say("place"), say("difference it makes, nats"))
    rows = [(clean(word["text"]), part_name(word["part"]), signed(word["value"])) for word in words]
    return Table(say("All words as numbers"), head, rows, folded=True)


def _tokens(found: Record) -> list[Block]:
    """Which words each token of a written answer comes from."""
    tokens, names = found["tokens"], found["varied_words"]
    weight = [sum(abs(token["values"][place]) for token in tokens) for place in range(len(names))]
    shown = sorted(sorted(range(len(names)), key=lambda place: -weight[place])[:MOST_WORDS])
    largest = max((abs(value) for token in tokens for value in token["values"]), default=0.0) or 1.0
    head = (say("written"), say("instead of"), *(clean(names[place]) for place in shown))
    rows: list[Sequence[str | Cell]] = [
        (clean(token["text"]), clean(token["rival"]),
         *(Cell(signed(token["values"][place]), MAX_SHADE * max(0.0, token["values"][place]) / largest)
           for place in shown))
        for token in tokens]
    note = say("Each line: one piece of the answer, and the difference that each word of the input makes to it against "
               "the piece that nearly stood there (gradient × input). The darker, the more it speaks for the piece.")
    return [Paragraph(note), Table(say("Input words by pieces of the answer"), head, rows)]


def _reliance(found: Record) -> list[Block]:
    own = found["reliance"]
    rows = [(say("log-probability with it"), number(own["with_source"])),
            (say("log-probability without it"), number(own["without"])),
            (say("difference it makes, nats"), signed(own["with_source"] - own["without"]))]
    blocks: list[Block] = [Table(say("The answer with the source and with all its words taken away"), (), rows)]
    if own["with_source"] <= own["without"]:
        blocks.append(Paragraph(say("The answer is no likelier with the source than without it: "
                                    "it does not rest on what was given."), "warning"))
    return blocks


def _lens(found: Record) -> list[Block]:
    layers = found["lens"]["layers"]
    lines = [Series(say("answer"), [(float(n), layer["answer"]) for n, layer in enumerate(layers)], BLUE),
             Series(say("runner-up"), [(float(n), layer["rival"]) for n, layer in enumerate(layers)], VERMILLION,
                    marks=True)]
    title = say("Probability of the answer's first token if each layer were the last")
    rows = [(count(number_of), number(layer["answer"]), number(layer["rival"]),
             f"{clean(layer['best'])!r} ({number(layer['best_probability'])})")
            for number_of, layer in enumerate(layers)]
    head = (say("layer"), say("answer"), say("runner-up"), say("likeliest token"))
    return [Chart(line_chart(title, say("layer, 0: the embedding"), lines), title), Table(title, head, rows)]


def _attention(found: Record) -> list[Block]:
    own = found["attention"]
    note = Paragraph(say("Attention shows where information could flow from, not why the answer is what it is."))
    best = sorted(range(len(own["words"])), key=lambda place: -own["rollout"][place])[:MOST_WORDS]
    head = (say("word"), say("all layers (rollout)"),
            *(say("layer {number}", number=n + 1) for n in range(len(own["layers"]))))
    rows: list[Sequence[str | Cell]] = [
        (clean(own["words"][place]), Cell(number(own["rollout"][place]), MAX_SHADE * _part(own["rollout"], place)),
         *(Cell(number(layer[place]), MAX_SHADE * _part(layer, place)) for layer in own["layers"]))
        for place in best]
    return [note, Table(say("Attention from where the answer begins, mean over heads"), head, rows)]


def _part(values: Sequence[float], place: int) -> float:
    return float(values[place] / (max(values) or 1.0))


def _rows(found: Record) -> list[Block]:
    head = (say("training row"), say("likeness"), say("label"), say("text"))
    blocks: list[Block] = []
    for name, rows in found["training_rows"].items():
        caption = (say("Nearest in the model's own representation") if name == "nearest"
                   else say("Whose gradient is most like the answer's (last layer or adapters only)"))
        blocks.append(Table(caption, head, [
            (clean(row["id"]), number(row["likeness"]), shorten(clean(row["answer"])), shorten(clean(row["text"])))
            for row in rows]))
    return blocks


def _coverage(found: Record) -> list[Block]:
    own = found["coverage"]
    rows = [(say("training rows that lie as far from their neighbours, or farther"), percent(own["density"], 1)),
            (say("words that stand somewhere in the training rows"), percent(own["known"], 1)),
            (say("pairs of words that do"), percent(own["pairs"], 1)),
            (say("longest span of the input that stands in a training row, words"), count(own["longest"]))]
    if own.get("copied") is not None:
        rows.append((say("share of the answer copied from training answers"), percent(own["copied"], 1)))
    blocks: list[Block] = [Table("", (), rows)]
    if own["density"] < 0.05:
        blocks.append(Paragraph(say("Hardly any training row lies this far out: "
                                    "what was measured on such rows does not speak for this one."), "warning"))
    if own["longest"]:
        blocks.append(Paragraph(say("In both: {span}", span=shorten(clean(own["span"])))))
    return blocks


def faithfulness_blocks(record: Record) -> list[Block]:
    """Whether the explanations beat chance, method by method, said in a sentence where they do not."""
    if not record.get("methods"):
        return absent(say("Not measured yet: run treetune explain RUN --faithfulness --data FILE."))
    methods = {name: one for name, one in record["methods"].items() if "against" in one}
    removal = say("deleted") if record.get("removal") == "deleted" else say("masked")
    blocks: list[Block] = [Paragraph(say(
        "Measured on {rows} rows: words are {removal} in the order of the explanation; the chance of the answer "
        "against its runner-up should fall faster than with words in random order.", rows=count(record["rows"]),
        removal=removal))]
    for name, one in methods.items():
        if not one["beats_random"]:
            blocks.append(Paragraph(say("{method}: not better than chance on these rows; do not rely on it here.",
                                        method=method_name(name)), "warning"))
    head = (say("method"), say("comprehensiveness"), say("sufficiency"), say("deletion area"), say("p-value"),
            say("seconds"))
    rows = [(method_name(name), *(with_interval(one["against"]["random"][metric]["interval"], sign=True)
                                  for metric in ("comprehensiveness", "sufficiency", "deletion")),
             p_text(one["against"]["random"]["deletion"]["p_value"]), number(one["seconds"]))
            for name, one in methods.items()]
    caption = say("Difference to random order, 95 % intervals: the first should be above 0, the others below")
    title = say("Chance of the answer while words are taken away")
    colours = {"random": GREY, "rare_words_first": VERMILLION}
    best = sorted(methods, key=lambda name: methods[name]["deletion"]["value"])[:1]
    shown = [*best, *(name for name in colours if name in record["methods"])]
    lines = [Series(method_name(name), [(10.0 * n, value) for n, value in enumerate(record["methods"][name]["curve"])],
                    colours.get(name, BLUE), marks=name in colours) for name in shown]
    chart = line_chart(title, say("% of the words taken away"), lines)
    return [*blocks, Table(caption, head, rows), Chart(chart, title)]


def explanations(record: Record) -> Section | None:
    """The report's section: are explanations true here, and some of them. None where none were made."""
    found = record.get("explanations") or {}
    if not found:
        return None
    blocks = faithfulness_blocks(found.get("faithfulness") or {})
    for place, one in enumerate(found.get("rows") or ()):
        text = say("Row {id}: why {answer!r} rather than {rival!r}", id=clean(one["id"]),
                   answer=shorten(clean(one["answer"])), rival=shorten(clean(one["rival"])))
        own = words_blocks(one)[:-1]  # the numbers are in explain.json; what the colours mean is said once
        blocks += [Paragraph(text), *(block for block in own if not (place and isinstance(block, Paragraph)))]
    return Section("explanations", say("Why these answers"), blocks)
