"""The claim: on real answers of tuned models the gate keeps its promise, and what should break it does.

    python benchmarks/gate_real.py NAME=RUN[:DATA[:WRONG]] … [--splits 500] [--write]
    python benchmarks/gate_real.py NAME=RUN --evidence agreement=5 distance=true

Each run's stored predictions (``treetune evaluate`` left them) with the labels of the file are dealt out anew
``splits`` times: half of the sources set the gate (two fifths of them tune, three fifths calibrate), the other half
shows whether it holds. A violation is counted where the share of wrong answers among the accepted fresh ones is above
the bound; the
fresh half is finite, so a gate exactly at the bound would be counted half of the time: an upper estimate. Checks stop
answers inside calibration as they do later.

Negative controls, at 10 % error: verdicts permuted against the scores; calibration rows drawn threefold, as
near-duplicates would be; no test at all (``best look``: the loosest threshold that seems good on the tune rows). The
first must accept next to nothing, the others must break the bound more often than the gate.

With ``--evidence`` the scores that cost more (`treetune.core.settings.EvidenceSettings`) are made for the stored
answers and stand among the candidates; the ranking of every single score is shown, too.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import yaml

from gate import halves, stored
from machine import RESULTS, conditions, facts, keep_results, table
from treetune.core.settings import EvidenceSettings, read_settings
from treetune.decide import scores as decide_scores
from treetune.decide.evidence import EVIDENCE
from treetune.decide.gate import scores_under, useless_checks
from treetune.decide.judged import Judged, one_per_group
from treetune.decide.scores import PLAIN, ScoreChoice, choose_score, features_of
from treetune.decide.sequence import Promise, thresholds_to_test, walk
from treetune.metrics.selective import auroc, prediction_rejection_ratio, risk_coverage

ERRORS = (0.01, 0.02, 0.05, 0.10)
CONFIDENCE = 0.95
CONTROL = 0.10
FLAGS = ("personal", "injection")
Outcome = tuple[float, bool]


def outcome(threshold: float | None, scores: Any, wrong: Any, max_error: float) -> Outcome:
    """Share accepted of the fresh rows, and whether more than the bound of them are wrong."""
    inside = scores >= (np.inf if threshold is None else threshold)
    return float(inside.mean()), bool(inside.any() and wrong[inside].mean() > max_error)


def gated(own: Any, tune: Judged, test: Any, wrong: Any, max_error: float) -> float | None:
    promise = Promise(max_error, CONFIDENCE)
    return walk(thresholds_to_test(own, tune.wrong, len(test), promise), test, wrong, promise).threshold


def best_look(scores: Any, wrong: Any, max_error: float) -> float | None:
    """The loosest threshold whose seen error is within the bound: what is done without a test."""
    if not np.isfinite(scores).any():
        return None
    curve = risk_coverage(scores, wrong)
    fits = np.flatnonzero(curve.risk <= max_error)
    return float(curve.thresholds[fits[-1]]) if len(fits) else None


def resplit(judged: Judged, splits: int) -> list[dict[str, Any]]:
    """Violations and acceptance of both scores at every bound, and the controls."""
    known = {id(each): features_of(each) for each in judged.predictions}  # the same in every split
    decide_scores.features_of = lambda prediction: known[id(prediction)]
    random, found = np.random.default_rng(1), {}

    def note(what: str, max_error: float, *each: Any) -> None:
        found.setdefault((what, max_error), []).append(outcome(*each, max_error))

    for tune, calibration, fresh in halves(judged, splits):
        checks = {each.code for own in tune.findings for each in own} - {*FLAGS, *useless_checks(tune, FLAGS)}
        choices = {"plain score": ScoreChoice(PLAIN),
                   "chosen score": choose_score(tune.predictions, tune.wrong, tune.groups)[0]}
        for name, choice in choices.items():
            own, test, new = (scores_under(choice, part, checks) for part in (tune, calibration, fresh))
            for max_error in ERRORS:
                note(name, max_error, gated(own, tune, test, calibration.wrong, max_error), new, fresh.wrong)
            if name == "plain score":
                mixed = random.permutation(calibration.wrong)
                note("permuted scores", CONTROL, gated(own, tune, test, mixed, CONTROL), new,
                     random.permutation(fresh.wrong))
                note("best look, no test", CONTROL, best_look(own, tune.wrong, CONTROL), new, fresh.wrong)
                copied = random.integers(0, len(test), size=3 * len(test))  # each row thrice, as near-duplicates would
                note("duplicated rows", CONTROL, gated(own, tune, test[copied], calibration.wrong[copied], CONTROL),
                     new, fresh.wrong)
    return [{"what": name, "max_error": max_error, "splits": len(values),
             "violations": float(np.mean([broken for _, broken in values])),
             "accepted": float(np.mean([share for share, _ in values])),
             "never": float(np.mean([share == 0 for share, _ in values]))}
            for (name, max_error), values in found.items()]


def ranking(judged: Judged, resamples: int = 500) -> dict[str, Any]:
    """AUROC and prediction-rejection ratio of the plain, the costly and the cross-fitted scores, with 95 % intervals
    over sources.
    """
    used = one_per_group(judged)
    sound = [place for place, each in enumerate(used.predictions) if not decide_scores.fault_of(each)]
    used = used.take(sound)
    names = decide_scores.feature_table(used.predictions)
    values = {PLAIN: names[PLAIN]}
    if len(names) > 1 and 10 <= used.wrong.sum() <= len(used) - 10:
        values |= {name: own for name, own in names.items() if name in EVIDENCE}
        values |= {name: decide_scores.cross_fitted(decide_scores.columns(names, own), used.wrong, used.groups)
                   for name, own in decide_scores.combinations(names).items()}
    random, result = np.random.default_rng(0), {}
    draws = [random.integers(0, len(used), size=len(used)) for _ in range(resamples)]
    for name, own in values.items():
        for metric, of in (("auroc", auroc), ("rejection_ratio", prediction_rejection_ratio)):
            drawn = [of(own[draw], used.wrong[draw]) for draw in draws]
            low, high = np.nanquantile(drawn, [0.025, 0.975]) if not np.isnan(drawn).all() else (np.nan, np.nan)
            result[f"{name} {metric}"] = [float(of(own, used.wrong)), float(low), float(high)]
    return result


def with_evidence(judged: Judged, run: str, data: str, wanted: EvidenceSettings) -> Judged:
    """The stored answers with the costly scores that are asked for."""
    from treetune.core.files import RunFolder, read_json
    from treetune.workflow.evidence import asked_for
    from treetune.workflow.gather import read_for, to_examples
    from treetune.workflow.run import open_run

    opened = open_run(run)
    rows = read_for(opened.task, data or read_json(RunFolder(opened.folder.root).evaluation)["data"], "test", {})
    examples = to_examples(opened.task, rows, opened.options, None, 1.0).examples
    evidence = asked_for(opened, wanted, "transformers")
    found = evidence.add(judged.predictions, examples)
    print({name: f"{seconds:.1f} s" for name, seconds in evidence.seconds.items()}, flush=True)
    return replace(judged, predictions=tuple(found))


def named(words: list[str], wanted: EvidenceSettings) -> Iterator[tuple[str, Judged, str]]:
    """Name, rows, definition of wrong, from ``NAME=RUN[:DATA[:WRONG]]``."""
    for word in words:
        name, _, rest = word.partition("=")
        run, data, wrong = [*rest.split(":", 2), "", ""][:3]
        judged = stored(run, data, wrong)
        yield name, with_evidence(judged, run, data, wanted) if wanted != EvidenceSettings() else judged, wrong


def shown(values: list[float]) -> str:
    return f"{values[0]:.3f} [{values[1]:.3f}, {values[2]:.3f}]"


def to_markdown(kept: dict[str, Any]) -> str:
    parts = ["# The gate on real answers\n\n`python benchmarks/gate_real.py NAME=RUN[:DATA[:WRONG]] … --write`\n"]
    for name, own in kept.items():
        if name == "conditions":
            continue
        lines = [[row["what"], f"{row['max_error']:.0%}", f"{row['violations']:.3f}", f"{row['accepted']:.3f}",
                  f"{row['never']:.3f}", str(row["splits"])] for row in own["rows"]]
        head = ["what", "bound", "violations", "accepted", "splits that accept nothing", "splits"]
        ranks = "; ".join(f"{key} {shown(value)}" for key, value in own["ranking"].items())
        parts.append(f"## {name}: {own['count']} rows, {own['error']:.1%} wrong ({own['wrong'] or 'default'})\n\n"
                     f"{table(head, lines)}\n\n{ranks}\n")
    return "\n".join([*parts, conditions(kept["conditions"]), ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--splits", type=int, default=500)
    parser.add_argument("--evidence", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    wanted = read_settings(EvidenceSettings, None, {name: yaml.safe_load(value) for name, _, value in (
        word.partition("=") for word in given.evidence)})
    for name, judged, wrong in named(given.runs, wanted):
        own = {"count": len(judged), "error": float(judged.wrong.mean()), "wrong": wrong,
               "rows": resplit(judged, given.splits), "ranking": ranking(judged)}
        print(name, f"{own['count']} rows, {own['error']:.1%} wrong", own["ranking"], flush=True)
        for row in own["rows"]:
            print("  ", *(f"{value:.4f}" if isinstance(value, float) else value for value in row.values()), flush=True)
        if given.write:
            keep_results("gate_real", {"conditions": facts(1), name: own}, to_markdown, RESULTS)


if __name__ == "__main__":
    main()
