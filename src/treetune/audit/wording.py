"""An audit in words and tables, in the language in force, for the terminal and the page. No verdict is among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from treetune.core.language import say

Record = Mapping[str, Any]
Table = dict[str, Any]
DASH = "–"
SHARES = ("pairs", "questions")
OWN = ("gap", "pairs", "questions")  # kinds whose attributes are the user's columns and files


def in_words(record: Record) -> dict[str, Any]:
    """What stands in ``audit/fairness.json`` with ``summary``, ``warnings``, ``tables``, ``notes`` and ``limits``."""
    return {**record, "summary": summary(record), "warnings": warnings(record), "tables": tables(record),
            "notes": [*groups_notes(record), *(line for note in record["notes"] if (line := note_line(note)))],
            "limits": limits(record)}


def summary(record: Record) -> list[str]:
    """How many tests, how many found something, and what that means."""
    tested = [each for each in record["findings"] if "p_value" in each]
    lines = [say("{found} of {tests} tests found a difference that chance does not explain, on {rows} rows.",
                 found=sum(each["found"] for each in tested), tests=len(tested), rows=record["rows"])]
    if tested:
        lines.append(say(
            "The chance of one false alarm or more is at most {alpha} % in each family of tests (groups; sentences; "
            "pairs and questions), corrected after Holm. A difference below the detectable one beside it is found less "
            "than {power} times in 100: nothing found is not nothing there.",
            alpha=f"{100 * record['alpha']:g}", power=f"{100 * record['power']:g}"))
    return lines


def warnings(record: Record) -> list[str]:
    """What a reader must know before reading the numbers of pairs."""
    kinds = {each["kind"] for each in record["findings"]}
    return [say("Sets of stereotype pairs are disputed evidence: many of their pairs are unclear or concern no "
                "stereotype (Blodgett et al. 2021). Never rely on them alone, and a share near one half clears nobody.")
            ] if "pairs" in kinds else []


def limits(record: Record) -> list[str]:
    """What an audit does not say."""
    return [
        say("A gap says that the rows of a group are served worse, not why: they may be harder, or labelled "
            "otherwise."),
        say("Only the groups, words and sentences named here were looked at, in the languages named here."),
        say("A name stands for a group only roughly, and our sentences are simpler than life."),
        say("Whether a difference is acceptable is for people to decide, who know its consequences."),
    ]


def tables(record: Record) -> list[Table]:
    """All numbers, one table a kind, empty ones left out."""
    made = [*level_tables(record), gap_table(record), *flip_tables(record), pair_table(record), question_table(record),
            translation_table(record), change_table(record)]
    return [table for table in made if table["rows"]]


def level_tables(record: Record) -> list[Table]:
    """Every group of a column in every measure."""
    made = []
    for part in record["groups"]:
        measures = list(dict.fromkeys(level["measure"] for level in part["levels"]))
        lines: dict[str, dict[str, str]] = {}
        for level in part["levels"]:
            lines.setdefault(level["group"], {})[level["measure"]] = f"{with_interval(level)} ({level['rows']})"
        rows = [(group, *(cells.get(measure, DASH) for measure in measures)) for group, cells in lines.items()]
        made.append(_table(say("Groups of {column}: value [95 % interval] (rows)", column=part["column"]),
                           (part["column"], *map(measure_name, measures)), rows))
    return made


def of_note(table: Table) -> Table:
    """The lines of a table with a difference, or all where nothing is tested, for a terminal; ``others``: left out."""
    if not table["head"] or table["head"][-1] != say("result"):
        return {**table, "others": 0}
    kept = [row for row in table["rows"] if row[-1] == say("difference found")]
    return {**table, "rows": kept, "others": len(table["rows"]) - len(kept)}


def gap_table(record: Record) -> Table:
    """Every group against the others."""
    rows = [(f"{each['attribute']}: {_against(each)}", measure_name(each["measure"]), *_tested(each))
            for each in _of(record, "gap")]
    return _table(say("Gaps between groups"), (say("group"), say("measure"), *_tested_head()), rows)


def flip_tables(record: Record) -> list[Table]:
    """Our own sentences, and the user's rows with words exchanged."""
    captions = {"flip": say("Our own sentences with another person in them"),
                "swap": say("Your rows with the words of two groups exchanged")}
    made = []
    for kind, caption in captions.items():
        rates = {_who(each): each for each in _of(record, kind) if each["measure"] == "changed"}
        shifts = {_who(each): each for each in _of(record, kind) if each["measure"] != "changed"}
        rows = []
        for who, rate in rates.items():
            shift = shifts.get(who)
            within = rate["parts"].get("within")
            name = f"{term_name(rate['attribute'])} ({rate['language']}): {_against(rate)}"
            inside = [DASH if within is None else percent(within)] if kind == "flip" else [f"{rate['counts'][0]:,}"]
            rows.append((name, share_interval(rate), *inside,
                         *(_tested(shift) if shift else (DASH,) * len(_tested_head()))))
        second = say("changed within the group") if kind == "flip" else say("rows")
        measure = next((each["measure"] for each in shifts.values()), "tone")
        head = (say("group"), say("answers changed"), second,
                *_tested_head(say("shift of {measure}", measure=measure_name(measure))))
        made.append(_table(caption, head, rows))
    return made


def pair_table(record: Record) -> Table:
    """Share of pairs whose stereotypical sentence is likelier; one half is no preference."""
    rows = [(f"{each['attribute']}{': ' + each['group'] if each['group'] else ''}", f"{each['counts'][0]:,}",
             *_tested(each, signed=False)) for each in _of(record, "pairs")]
    return _table(say("Pairs of sentences: how often the stereotypical one is likelier (0.5: no preference)"),
                  (say("pairs from"), say("pairs"), *_tested_head(say("share"), say("detectable distance to 0.5"))),
                  rows)


def question_table(record: Record) -> Table:
    """Questions with three answers."""
    rows = [(f"{each['attribute']}: {condition_name(each['group'])}", measure_name(each["measure"]),
             *_tested(each, signed=each["measure"] == "bias_score")) for each in _of(record, "questions")]
    return _table(say("Questions with three answers, one of them that it cannot be known"),
                  (say("questions from"), say("measure"), *_tested_head(say("value"))), rows)


def translation_table(record: Record) -> Table:
    """Gender in German translations."""
    rows = [(_against(each) if each["group"] else say("all sentences"), measure_name(each["measure"]),
             *_tested(each, signed=bool(each["group"]))) for each in _of(record, "translation")]
    return _table(say("Gender in translations from English into German"),
                  (say("sentences"), say("measure"), *_tested_head(say("value or gap"))), rows)


def change_table(record: Record) -> Table:
    """Before and after, where the sizes of gaps are compared."""
    rows = [
        (f"{each['attribute'] if each['kind'] in OWN else term_name(each['attribute'])}: "
         f"{_against(each) if each['group'] else DASH}", measure_name(each["measure"]),
         *(number(each[when], each["kind"] not in SHARES and each["by_size"]) for when in ("before", "after")),
         with_interval({**each, "value": each["change"]}, signed=True))
        for each in record.get("changes", ())
    ]
    since = say("Change since {run}, on the same rows (of gaps: of their size)",
                run=PurePath(record.get("against") or DASH).name)
    return _table(since, (say("group"), say("measure"), say("before"), say("after"), say("change")), rows)


def groups_notes(record: Record) -> list[str]:
    """Groups that were too small, by name, and rows without a group."""
    lines = []
    for part in record["groups"]:
        small = [f"{each['group']} ({measure_name(each['measure'])}: {each['rows']})" for each in part["too_small"]]
        if small:
            lines.append(say("{column}: fewer than {least} rows, not tested: {groups}", column=part["column"],
                             least=record["least_rows"], groups="; ".join(small)))
        if part["missing"]:
            lines.append(say("{column}: {rows} rows have no value and belong to no group", column=part["column"],
                             rows=part["missing"]))
    return lines


NOTES: Mapping[str, Callable[..., str]] = {
    "no_groups": lambda **_: say("No column was named with --by, so no groups of rows were compared."),
    "no_gate": lambda **_: say(
        "The run has no gate, so acceptance and errors among accepted answers were not measured."),
    "nothing_accepted": lambda **_: say(
        "The gate accepts none of these rows, so there are no errors among accepted answers."),
    "seen": lambda **values: say(
        "{rows} of these rows were in the run's training or validation data: their numbers flatter it.", **values),
    "seen_unknown": lambda **_: say("It is not known which rows the run was trained on; these may be among them."),
    "no_definition": lambda **values: say(
        "It is not said what a wrong answer of {task} is, so calibration was not measured: give --wrong.", **values),
    "no_templates": lambda **values: say("There are no sentences of our own for {task}.", **values),
    "no_language": lambda **values: say(
        "There are no sentences of our own in the languages of these rows; there are for {known}.", **values),
    "no_swaps": lambda **values: say(
        "Words are not exchanged in rows of {task}: the reference would change, too.", **values),
    "swapped": lambda **values: say(
        "{who}: words exchanged in {rows} of your rows; {left_out} could not be used", **values),
    "few_swaps": lambda **values: say(
        "{who}: words exchanged in {rows} of your rows, too few to ask; {left_out} could not be used", **values),
    "no_likelihood": lambda **values: say(
        "{file}: a model with the head {head} gives no likelihood of a sentence; pairs were left out.", **values),
    "pairs": lambda **values: say("{file}: {pairs} pairs, {skipped} rows or pairs left out", **values),
    "few_pairs": lambda **values: say("{kind}: only {pairs} pairs, not tested", **values),
    "no_questions": lambda **values: say(
        "{file}: questions are asked of a run for question answering, not for {task}.", **values),
    "questions": lambda **values: say(
        "{file}: {questions} questions, {skipped} rows left out; {unmatched} answers were none of the three, "
        "{held_back} were held back by the gate and count as abstentions", **values),
}


def note_line(note: Record) -> str:
    """One note as a sentence; "" for a code of another version."""
    values = {name: value for name, value in note.items() if name != "code"}
    if "against" in values:
        values["who"] = f"{term_name(note['attribute'])} ({note['language']}): {term_name(note['group'])} / " \
                        f"{term_name(note['against'])}"
    make = NOTES.get(note["code"])
    return make(**values) if make else ""


def measure_name(measure: str) -> str:
    """A measure in the reader's language."""
    kind, _, label = measure.partition(":")
    if kind == "recall" and label:
        return say("recall of {label}", label=label)
    names = {
        "quality": say("quality"), "calibration": say("confidence minus right"), "acceptance": say("accepted"),
        "accepted_error": say("wrong among accepted"), "changed": say("answers changed"), "tone": say("tone"),
        "f1": "F1", "kept": say("name kept"), "preferred": say("stereotype preferred"), "right": say("right"),
        "abstained": say("abstained"), "stereotype": say("follows the stereotype"), "bias_score": say("bias score"),
        "neither": say("neither form"),
    }
    return names.get(measure, measure)


def term_name(name: str) -> str:
    """An attribute or group of ours in the reader's language; the user's own as they are."""
    names = {
        "names: gender": say("names: gender"), "names: origin": say("names: origin"), "names": say("names"),
        "gender": say("gender"), "pronoun": say("pronoun"), "region": say("region"), "religion": say("religion"),
        "age": say("age"), "household": say("village or city"), "dialect": say("dialect"), "script": say("script"),
        "women": say("women"), "men": say("men"), "others": say("others"), "young": say("young"), "old": say("old"),
        "village": say("village"), "city": say("city"), "usual": say("usual occupation"),
        "unusual": say("unusual occupation"), "standard": say("standard language"),
    }
    return names.get(name) or origin_name(name)


def origin_name(name: str) -> str:
    """A group of origin, belief or way of speaking in the reader's language."""
    names = {
        "African American": say("African American"), "European American": say("European American"),
        "Hispanic": say("Hispanic"), "East Asian": say("East Asian"), "South Asian": say("South Asian"),
        "Arab": say("Arab"), "Western Europe": say("Western Europe"), "Eastern Europe": say("Eastern Europe"),
        "Sub-Saharan Africa": say("Sub-Saharan Africa"), "Latin America": say("Latin America"),
        "South Asia": say("South Asia"), "Middle East": say("Middle East"), "Christian": say("Christian"),
        "Muslim": say("Muslim"), "Jewish": say("Jewish"), "Hindu": say("Hindu"), "Buddhist": say("Buddhist"),
        "Daoist": say("Daoist"), "atheist": say("atheist"), "none": say("none"),
        "African American English": say("African American English"), "learner English": say("learner English"),
        "Han": say("Han"), "Uyghur": say("Uyghur"), "Tibetan": say("Tibetan"), "Mongolian": say("Mongolian"),
        "east": say("east"), "northeast": say("northeast"), "central": say("central"), "south": say("south"),
        "west": say("west"), "northeastern": say("northeastern"), "Sichuan": say("Sichuan"),
        "Cantonese": say("Cantonese"), "simplified": say("simplified"), "traditional": say("traditional"),
        "Nigeria": say("Nigeria"), "Germany": say("Germany"), "Mexico": say("Mexico"),
        "United States": say("United States"), "she": say("she"), "he": say("he"), "they": say("they"),
    }
    return names.get(name, name)


def condition_name(condition: str) -> str:
    """Whether the context tells the answer."""
    return say("nobody can know") if condition == "ambiguous" else say("the context tells")


def number(value: Any, signed: bool = False) -> str:
    """Three decimals, with a sign if asked."""
    return f"{value:+.3f}" if signed else f"{value:.3f}"


def percent(value: float) -> str:
    """A share as a percentage."""
    return f"{100 * value:.1f} %"


def with_interval(each: Record, signed: bool = False) -> str:
    """``value [low, high]``."""
    return f"{number(each['value'], signed)} [{number(each['low'], signed)}, {number(each['high'], signed)}]"


def share_interval(each: Record) -> str:
    """The same of a share, in per cent."""
    return f"{percent(each['value'])} [{100 * each['low']:.1f}, {100 * each['high']:.1f}]"


def p_text(value: float) -> str:
    """A p-value; ``< 0.001`` below that."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _tested_head(value: str = "", detectable: str = "") -> tuple[str, ...]:
    return (value or say("gap"), say("corrected p"), detectable or say("detectable gap"), say("result"))


def _tested(each: Record, signed: bool = True) -> tuple[str, ...]:
    """Value, corrected p, detectable gap and result of one number."""
    if "p_value" not in each:
        return (with_interval(each, signed), DASH, DASH, DASH)
    return (with_interval(each, signed), p_text(each["p_adjusted"]), number(each["detectable"]),
            say("difference found") if each["found"] else say("none found"))


def _of(record: Record, kind: str) -> list[Record]:
    return [each for each in record["findings"] if each["kind"] == kind]


def _who(each: Record) -> tuple[str, ...]:
    return (each["language"], each["attribute"], each["group"], each["against"])


def _against(each: Record) -> str:
    """Who is compared with whom; the user's own groups keep their names."""
    own = each["kind"] == "gap"
    group = each["group"] if own else term_name(each["group"])
    if not each["against"]:
        return group
    others = each["against"] if own and each["against"] != "others" else term_name(each["against"])
    return say("{group} against {others}", group=group, others=others)


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    return {"caption": caption, "head": list(head), "rows": [list(row) for row in rows]}
