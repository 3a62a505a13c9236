"""The claim: the audit cries wolf in at most 5 of 100 models without bias, and finds one above the gap that it prints.

    python benchmarks/fairness.py [--models 500] [--planted 60] [--seeds 0 1] [--part groups sentences planted]

Simulated answers, so that what is true is known. ``without bias``: rows in four unequal groups of one column and two of
another; whether an answer is right depends on the row's difficulty only, confidence is calibrated, a gate accepts the
surer ones; and our own English sentences, where a model reacts to the sentence and to each name by chance, but not to
the group (where a group is a single word, to the sentence only). A false alarm is any difference found in a family.
``planted``: one group's rows are wrong more often, or its sentences get another tone, by a share of the gap that the
audit prints for it; counted is how often that very difference is found.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from machine import RESULTS, conditions, facts, keep_results, table
from treetune.audit.cases import Case, cases_of
from treetune.audit.flips import measure_flips
from treetune.audit.gaps import measure_gaps, row_measures
from treetune.audit.measured import findings
from treetune.core.records import FloatArray
from treetune.core.seeds import generator
from treetune.metrics.interval import wilson

ROWS = 400
LABELS = ("positive", "negative", "neutral")
COLUMNS = {"region": ((0.5, 0.25, 0.15, 0.10), "abcd"), "device": ((0.7, 0.3), "xy")}
PARTS = ("groups", "sentences", "planted")
SIZES = (0.5, 1.0, 1.5)  # of the printed detectable gap
MANY_WORDS = ("names: gender", "region", "age")  # a group of one word is that word: its effect would be bias
ATTRIBUTES = ("names: gender", "age")  # of the sentences; two groups each


def group_tests(random: np.random.Generator, planted: float = 0.0) -> list[dict[str, Any]]:
    """All findings of simulated rows; ``planted``: how much more often rows of region b are wrong."""
    grouped = {name: random.choice(list(letters), size=ROWS, p=shares) for name, (shares, letters) in COLUMNS.items()}
    confidence = random.beta(5, 1.2, size=ROWS)
    chance = np.clip(confidence - planted * (grouped["region"] == "b"), 0, 1)
    right = random.random(ROWS) < chance
    expected = random.choice(LABELS, size=ROWS)
    other = random.choice(LABELS, size=ROWS)
    answers = np.where(right, expected, np.where(other == expected, "none of them", other))
    measures = row_measures(right.astype(np.float64), confidence, ~right, confidence > 0.8, expected.tolist(),
                            answers.tolist(), LABELS)
    seed = int(random.integers(1 << 31))
    return findings([test for name, groups in grouped.items()
                     for test in measure_gaps(name, groups.tolist(), measures, None, seed=seed).tests])


def sentence_tests(cases: list[Case], random: np.random.Generator, planted: float = 0.0) -> list[dict[str, Any]]:
    """All findings of simulated tones; ``planted``: how much lower the tone of men's names is."""
    sentences = {(case.attribute, case.template): random.normal(0, 0.5) for case in cases}
    words = {case.term: random.normal(0, 0.05) if case.attribute in MANY_WORDS else 0.0 for case in cases}
    tone = np.array([sentences[case.attribute, case.template] + words[case.term] + random.normal(0, 0.05)
                     - planted * (case.group == "men") for case in cases])
    answers = np.where(tone > 0.2, "positive", np.where(tone < -0.2, "negative", "neutral")).tolist()
    return findings(measure_flips(cases, tone, answers, "tone", seed=int(random.integers(1 << 31))))


def false_alarms(family: str, models: int, seed: int) -> Iterator[dict[str, Any]]:
    """Share of models without bias in which anything at all is found in a family. Seed 0 gives the models of before."""
    cases = [case for case in cases_of("sentiment", "en") if not case.attribute.startswith("names: origin")]
    make = group_tests if family == "groups" else lambda random: sentence_tests(cases, random)
    alarms = tests = 0
    for number in range(models):
        stream = (family,) if not seed else (family, str(seed))
        result = [each for each in make(generator(number, "fairness", *stream)) if "p_value" in each]
        alarms += any(each["found"] for each in result)
        tests = len(result)
    share = wilson(alarms / models, models)
    yield {"family": family, "seed": seed, "models": models, "tests": tests, "alarms": alarms, "share": share.value,
           "low": share.low, "high": share.high}


def planted_gaps(models: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """How often a planted gap is found, by its size as a share of the printed detectable one."""
    cases = [case for case in cases_of("sentiment", "en") if case.attribute in ATTRIBUTES]
    makers = {"rows: quality of region b": (group_tests, ("quality", "b")),
              "sentences: tone of women against men": (lambda random, gap=0.0: sentence_tests(cases, random, gap),
                                                       ("tone", "women"))}
    for name, (make, wanted) in makers.items():
        printed = float(np.mean([_the_one(make(generator(number, "printed", name)), wanted)["detectable"]
                                 for number in range(10)]))
        for size in SIZES:
            gap = size * printed if name.startswith("sent") else _solved(size * printed)
            results = [_the_one(make(generator(number, "planted", name, str(size), str(seed)), gap), wanted)
                       for number in range(models)]
            seen = np.array([each["found"] for each in results])
            gaps = np.array([each["value"] for each in results])
            share = wilson(float(seen.mean()), models)
            inside = np.mean([each["low"] <= gaps.mean() <= each["high"] for each in results])
            yield {"what": name, "size": size, "printed": printed, "planted": float(np.abs(gaps).mean()),
                   "models": models, "found": share.value, "low": share.low, "high": share.high,
                   "covered": float(inside)}


def _solved(gap: float) -> float:
    """What to take off the chance of each row so that the mean falls by ``gap``: chances end at 0."""
    sample: FloatArray = generator(0, "solve").beta(5, 1.2, size=20_000)
    steps = np.linspace(0, 1, 401)
    lost = np.array([(sample - np.clip(sample - step, 0, 1)).mean() for step in steps])
    return float(np.interp(gap, lost, steps))


def _the_one(found: list[dict[str, Any]], wanted: tuple[str, str]) -> dict[str, Any]:
    return next(each for each in found if (each["measure"], each["group"]) == wanted)


def _together(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """All seeds of a family as one line, where there are several."""
    if len(rows) < 2:
        return []
    models, alarms = (sum(each[name] for each in rows) for name in ("models", "alarms"))
    share = wilson(alarms / models, models)
    return [{**rows[0], "seed": "all", "models": models, "alarms": alarms, "share": share.value, "low": share.low,
             "high": share.high}]


def to_markdown(kept: dict[str, Any]) -> str:
    """The page of results."""
    alarms = [[each["family"], str(each["seed"]), str(each["tests"]), f"{each['models']:,}", str(each["alarms"]),
               f"{100 * each['share']:.1f} % [{100 * each['low']:.1f}, {100 * each['high']:.1f}]"]
              for part in ("groups", "sentences") for each in [*kept.get(part, ()), *_together(kept.get(part, ()))]]
    planted = [[each["what"], f"{each['printed']:.3f}", f"{each['planted']:.3f} ({each['size']:g} ×)",
                f"{100 * each['found']:.1f} % [{100 * each['low']:.1f}, {100 * each['high']:.1f}]",
                f"{100 * each['covered']:.1f} %"] for each in kept.get("planted", ())]
    return "\n".join([
        "# Audit: false alarms and planted bias, simulated", "", "Models without bias: anything found at all is a "
        "false alarm; at most 5 % are allowed.", "",
        table(["family of tests", "seed", "tests an audit", "models", "with a false alarm", "share [95 %]"], alarms),
        "",
        "Planted bias: how often that difference is found. The printed gap is the one found 80 times in 100.", "",
        table(["what", "printed detectable gap", "planted gap, mean seen", "found [95 %]", "interval covers it"],
              planted), "",
        f"`{kept['command']}`", "", conditions(kept["machine"]), "",
    ])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--models", type=int, default=500)
    parser.add_argument("--planted", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of the models without bias")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    seeds = " ".join(map(str, given.seeds))
    command = f"python benchmarks/fairness.py --models {given.models} --planted {given.planted} --seeds {seeds}"
    for part in given.part:
        sections: dict[str, Any] = {"machine": facts(1), "command": command, part: []}
        found = (planted_gaps(given.planted) if part == "planted" else
                 chain.from_iterable(false_alarms(part, given.models, seed) for seed in given.seeds))
        for each in found:
            sections[part].append(each)
            print(each, flush=True)
            _, page = keep_results("fairness", sections, to_markdown, given.out)
    print(page.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
