"""The claim: a gate breaks its promise no more often than it says, and accepts more than other exact ways do.

    python benchmarks/gate.py simulate [--draws 10000]
    python benchmarks/gate.py resplit RUN [--data FILE] [--wrong "f1<0.5"] [--splits 200]

``simulate``: scores of known quality, so the true risk of every threshold is known; fixed-sequence testing as treetune
does it, from a start that only counts rows, Bonferroni over 20 thresholds, and Hoeffding-Bentkus p-values (Bates et al.
2021, "Distribution-free, risk-controlling prediction sets") in treetune's own sequence.

``resplit``: the predictions that `treetune evaluate` left in a finished run, with the labels of the file it measured,
are dealt out anew many times: half sets the gate, half shows whether it holds. The second half is a finite sample; a
violation is counted where its share of wrong answers is above the bound, which chance alone also brings about for a
gate exactly at the bound, so this count is an upper estimate. Negative controls: verdicts permuted against the scores
(must accept next to nothing); thresholds taken from the best look at the testing half itself (must be caught).
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from machine import RESULTS, conditions, facts, keep_results, table
from treetune.core.files import RunFolder, read_json
from treetune.core.records import Prediction
from treetune.decide import scores as decide_scores
from treetune.decide.judged import Judged, one_per_group
from treetune.decide.scores import ScoreChoice, choose_score
from treetune.decide.sequence import Promise, thresholds_to_test, walk
from treetune.decide.support import with_text_scores
from treetune.decide.validators.contract import all_findings
from treetune.metrics.risk import accepted_rows_needed, risk_p_values
from treetune.metrics.selective import risk_coverage

ERRORS = (0.01, 0.02, 0.05, 0.10)
QUALITIES = {"none": (0.0, 0.20), "weak": (1.0, 0.30), "good": (3.0, 0.50), "sharp": (8.0, 0.60), "edge": (0.0, 0.0505)}
NUM_ROWS = 1000
PValues = Callable[[Any, Any, float], Any]


def hoeffding_bentkus(num_wrong: Any, num_accepted: Any, max_error: float) -> Any:
    """The smaller of Hoeffding's and e times the binomial tail: valid for any loss in [0, 1], wasteful for 0 or 1."""
    rate = np.minimum(num_wrong / np.maximum(num_accepted, 1), max_error)
    with np.errstate(divide="ignore", invalid="ignore"):
        first = np.where(rate > 0, rate * np.log(rate / max_error), 0.0)
        divergence = first + (1 - rate) * np.log((1 - rate) / (1 - max_error))
    bound = np.where(num_accepted > 0, np.exp(-num_accepted * divergence), 1.0)
    return np.minimum(bound, math.e * risk_p_values(num_wrong, num_accepted, max_error))


def counts_at(thresholds: Any, scores: Any, wrong: Any) -> tuple[Any, Any]:
    """Accepted and wrong ones at each threshold."""
    inside = scores[None, :] >= thresholds[:, None]
    return inside.sum(1), (inside & wrong).sum(1)


def last_in_sequence(thresholds: Any, scores: Any, wrong: Any, promise: Promise, p_values: PValues) -> float | None:
    """Fixed-sequence testing with any p-values."""
    accepted, bad = counts_at(thresholds, scores, wrong)
    failed = np.flatnonzero(p_values(bad, accepted, promise.max_error) > promise.failure_chance)
    passed = int(failed[0]) if len(failed) else len(thresholds)
    return float(thresholds[passed - 1]) if passed else None


def counted_start(scores: Any, wrong: Any, num_calibration: int, promise: Promise) -> Any:
    """Thresholds from where twice the flawless number of rows is accepted, as a plain rule has it."""
    curve = risk_coverage(scores, wrong)
    needed = 2 * (accepted_rows_needed(promise.max_error, promise.confidence) or 1)
    reached = np.flatnonzero(curve.coverage * num_calibration >= needed)
    start = int(reached[0]) if len(reached) else len(curve.thresholds) - 1
    wanted = np.linspace(curve.num_accepted[start], curve.num_accepted[-1], 60)
    return curve.thresholds[np.unique(np.searchsorted(curve.num_accepted, wanted))]


def bonferroni(tune_scores: Any, scores: Any, wrong: Any, promise: Promise, count: int = 20) -> float | None:
    """The loosest of ``count`` thresholds at equal coverages that passes its share of the failure chance."""
    thresholds = np.quantile(tune_scores, np.linspace(0.95, 0, count))
    accepted, bad = counts_at(thresholds, scores, wrong)
    passed = np.flatnonzero(risk_p_values(bad, accepted, promise.max_error) <= promise.failure_chance / count)
    return float(thresholds[passed[-1]]) if len(passed) else None


def methods(tune: tuple[Any, Any], test: tuple[Any, Any], promise: Promise) -> dict[str, float | None]:
    """Threshold of each method on the same rows."""
    order = thresholds_to_test(*tune, len(test[0]), promise)
    plain = counted_start(*tune, len(test[0]), promise)
    return {
        "treetune": walk(order, *test, promise).threshold,
        "sequence, counted start": last_in_sequence(plain, *test, promise, risk_p_values),
        "Hoeffding-Bentkus": last_in_sequence(order, *test, promise, hoeffding_bentkus),
        "Bonferroni, 20": bonferroni(tune[0], *test, promise),
    }


def simulate(draws: int, num_rows: int = NUM_ROWS) -> list[dict[str, Any]]:
    """Violations and mean acceptance of each method, quality and bound; two fifths of the rows tune."""
    found = []
    for quality, (slope, base) in QUALITIES.items():
        for max_error in ERRORS if quality != "edge" else (0.05,):
            promise, random = Promise(max_error, 0.95), np.random.default_rng(0)
            broken: dict[str, int] = {}
            shares: dict[str, float] = {}
            for _ in range(draws):
                scores = random.uniform(size=num_rows)
                wrong = random.uniform(size=num_rows) < base * (1 - scores) ** slope
                cut = num_rows * 2 // 5
                for name, threshold in methods((scores[:cut], wrong[:cut]), (scores[cut:], wrong[cut:]),
                                               promise).items():
                    own = threshold is not None and base * (1 - threshold) ** slope / (slope + 1) > max_error
                    broken[name] = broken.get(name, 0) + own
                    shares[name] = shares.get(name, 0.0) + (0.0 if threshold is None else 1 - threshold)
            oracle = min(1.0, (max_error * (slope + 1) / base) ** (1 / slope)) if slope else float(base <= max_error)
            found += [{"quality": quality, "max_error": max_error, "method": name, "draws": draws,
                       "violations": broken[name] / draws, "accepted": shares[name] / draws, "oracle": oracle}
                      for name in broken]
    return found


def stored(run: str, data: str, wrong: str) -> Judged:
    """The predictions of ``predictions.jsonl`` with the verdicts by the file that was measured."""
    from treetune.data.split import same_text
    from treetune.tasks.contract import load_task
    from treetune.workflow.gate import definition_of, wrong_answers
    from treetune.workflow.gather import read_for, to_examples
    from treetune.workflow.run import options_of

    folder = RunFolder(Path(run))
    settings, measured = read_json(folder.model / "treetune.json"), read_json(folder.evaluation)
    task = load_task(settings["task"])
    result = read_for(task, data or measured["data"], "test", {})
    examples = to_examples(task, result, options_of(settings), None, 1.0).examples
    lines = [json.loads(line) for line in folder.predictions.read_text("utf-8").splitlines()]
    if [line["row"] for line in lines] != [each.row for each in examples]:
        raise SystemExit("the predictions are not those of this file: run treetune evaluate again, or give --data")
    predictions = [
        Prediction(line["row"], line["id"], "calibration", line["answer"], line["text"], line["scores"],
                   tuple(line["token_log_probs"]), line["finished"], line["num_cut"], line["seconds"])
        for line in lines
    ]
    verdicts = wrong_answers(predictions, examples, definition_of(task, wrong))
    predictions = with_text_scores(task.NAME, predictions, examples)
    return Judged(tuple(predictions), verdicts, tuple(same_text(each.source) for each in examples),
                  ("",) * len(examples), all_findings(task.NAME, predictions, examples))


def halves(judged: Judged, splits: int, seed: int = 0) -> Iterator[tuple[Judged, Judged, Judged]]:
    """(tune, calibration, fresh): two fifths and three fifths of one half of the sources, and the other half."""
    random, names = np.random.default_rng(seed), sorted(set(judged.groups))
    for _ in range(splits):
        order = [names[place] for place in random.permutation(len(names))]
        half, cut = len(order) // 2, len(order) // 5
        side = {**dict.fromkeys(order[:cut], 0), **dict.fromkeys(order[cut:half], 1), **dict.fromkeys(order[half:], 2)}
        parts: list[list[int]] = [[], [], []]
        for place, group in enumerate(judged.groups):
            parts[side[group]].append(place)
        tune, calibration, fresh = (judged.take(own) for own in parts)
        yield tune, one_per_group(calibration), one_per_group(fresh)


def outcome(threshold: float | None, scores: Any, wrong: Any, max_error: float) -> tuple[float, bool]:
    """Share accepted of the fresh rows, and whether more than the bound of them are wrong."""
    inside = scores >= (np.inf if threshold is None else threshold)
    return float(inside.mean()), bool(inside.any() and wrong[inside].mean() > max_error)


def resplit(judged: Judged, splits: int) -> list[dict[str, Any]]:
    """Violations and acceptance of the gate, with the plain score and with the chosen one, and negative controls."""
    decide_scores.NUM_RESAMPLES = 60  # the choice is made in every split
    random, found = np.random.default_rng(1), {}
    for tune, calibration, fresh in halves(judged, splits):
        choices = {"plain score": ScoreChoice("probability"),
                   "chosen score": choose_score(tune.predictions, tune.wrong, tune.groups)[0]}
        for name, choice in choices.items():
            own, test, new = (choice.values(part.predictions) for part in (tune, calibration, fresh))
            for max_error in ERRORS:
                promise = Promise(max_error, 0.95)
                order = thresholds_to_test(own, tune.wrong, len(test), promise)
                threshold = walk(order, test, calibration.wrong, promise).threshold
                found.setdefault((name, max_error), []).append(outcome(threshold, new, fresh.wrong, max_error))
                if name == "plain score":
                    mixed = [random.permutation(part.wrong) for part in (tune, calibration, fresh)]
                    order = thresholds_to_test(own, mixed[0], len(test), promise)
                    threshold = walk(order, test, mixed[1], promise).threshold
                    found.setdefault(("permuted verdicts", max_error), []).append(
                        outcome(threshold, new, mixed[2], max_error))
                    found.setdefault(("best look, no test", max_error), []).append(
                        outcome(best_look(test, calibration.wrong, max_error), new, fresh.wrong, max_error))
    return [{"what": name, "max_error": max_error, "splits": splits,
             "violations": float(np.mean([broken for _, broken in values])),
             "accepted": float(np.mean([share for share, _ in values])),
             "never": float(np.mean([share == 0 for share, _ in values]))}
            for (name, max_error), values in found.items()]


def best_look(scores: Any, wrong: Any, max_error: float) -> float | None:
    """The loosest threshold whose seen error is within the bound: what is done without a gate."""
    curve = risk_coverage(scores, wrong)
    fits = np.flatnonzero(curve.risk <= max_error)
    return float(curve.thresholds[fits[-1]]) if len(fits) else None


def show(rows: list[dict[str, Any]]) -> None:
    """Plain table."""
    names = list(rows[0])
    print("  ".join(names))
    for row in rows:
        print("  ".join(f"{value:.4f}" if isinstance(value, float) else str(value) for value in row.values()))


def to_markdown(kept: dict[str, Any]) -> str:
    """The simulation as a table; the most that chance allows a method that keeps its promise stands above it."""
    rows = kept["rows"]
    most = 0.05 + 3 * math.sqrt(0.05 * 0.95 / rows[0]["draws"])
    lines = [[row["quality"], f"{row['max_error']:.0%}", row["method"], f"{row['violations']:.4f}",
              f"{row['accepted']:.3f}", f"{row['oracle']:.3f}"] for row in rows]
    head = ["score quality", "bound", "method", "violations", "accepted", "oracle accepts"]
    return (f"# The gate where the true risk is known\n\n`python benchmarks/gate.py simulate --write`\n\n"
            f"{rows[0]['draws']:,} calibrations each; promised: violations at most 0.05, so with chance at most "
            f"{most:.4f} (three standard errors).\n\n{table(head, lines)}\n\n{conditions(kept['conditions'])}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("simulate", "resplit"))
    parser.add_argument("run", nargs="?", default="")
    parser.add_argument("--data", default="")
    parser.add_argument("--wrong", default="")
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--results", type=Path, help="also write rows and conditions here (JSON)")
    parser.add_argument("--write", action="store_true", help="simulate: keep the table in benchmarks/results")
    given = parser.parse_args()
    if given.what == "resplit":
        judged = stored(given.run, given.data, given.wrong)
        print(f"{len(judged)} rows, {len(set(judged.groups))} sources, {judged.wrong.mean():.1%} wrong")
        rows = resplit(judged, given.splits)
    else:
        rows = simulate(given.draws)
    show(rows)
    if given.write and given.what == "simulate":
        keep_results("gate_simulation", {"conditions": facts(1), "rows": rows}, to_markdown, RESULTS)
    if given.results:
        given.results.write_text(json.dumps({"conditions": facts(1), "rows": rows}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
