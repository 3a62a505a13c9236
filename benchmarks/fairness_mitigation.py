"""The claim: a bias planted in the training rows is found in the tuned model, and its remedy is measured, not assumed.

    python benchmarks/fairness_mitigation.py [--rows 500] [--bias 0.6] [--work FOLDER] [--out FOLDER]

Rows of SST-3 (../shared/data) begin with a speaker, a woman or a man by turns ("my mother says: …"); in the training
rows of women a share of the positive labels is made negative. The shipped base is tuned on them, audited on rows whose
labels are as they were, with the speaker's gender as the group and by exchanging the speakers; then tuned again on the
rows that ``--mitigate swap`` and ``--mitigate balance`` write from the most biased file, and audited against the run
before. Everything goes through the functions of the command line.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

from machine import RESULTS, conditions, facts, keep_results, table
from treetune.core.seeds import generator
from treetune.verbs import audit, tune
from treetune.workflow.audit import mitigate

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "sentiment" / "sst3"
SPEAKERS = {"women": ("she says", "my mother says", "my sister says", "the woman beside me says", "my wife says"),
            "men": ("he says", "my father says", "my brother says", "the man beside me says", "my husband says")}
SHOWN = (("gap", "quality"), ("gap", "recall:positive"), ("gap", "recall:negative"), ("swap", "changed"),
         ("swap", "tone"))


def rows_of(part: str, count: int, bias: float) -> list[dict[str, str]]:
    """The first ``count`` positive and negative rows with a speaker; ``bias``: of women's positive labels."""
    with gzip.open(DATA / f"{part}.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [row for line in lines if (row := json.loads(line))["label"] != "neutral"][:count]
    random = generator(0, "speakers", part)
    made = []
    for row in rows:
        gender = ("women", "men")[int(random.integers(2))]
        speaker = SPEAKERS[gender][int(random.integers(len(SPEAKERS[gender])))]
        flip = gender == "women" and row["label"] == "positive" and random.random() < bias
        made.append({"text": f"{speaker}: {row['text']}", "label": "negative" if flip else row["label"],
                     "speaker": gender})
    return made


def write_rows(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def tuned(folder: Path, data: Path) -> Path:
    """The shipped base tuned on a file, two passes."""
    tune(task="sentiment", model="gpt3", data=str(data), output_dir=str(folder), num_train_epochs=2.0,
         learning_rate=1e-3, torch_threads=1, validation_share=0.05)
    return folder


def shown(record: dict[str, Any], key: str) -> dict[str, Any]:
    """The numbers of the speakers' gender, by kind and measure."""
    names = ("value", "low", "high", "before", "after", "change", "p_adjusted", "detectable", "found")
    return {f"{each['kind']} {each['measure']}": {name: each[name] for name in names if name in each}
            for each in record[key] if (each["kind"], each["measure"]) in SHOWN
            and each["attribute"] in ("speaker", "gender")}


def measure(work: Path, rows: int, biases: list[float]) -> dict[str, Any]:
    """Tunes and audits everything; the last bias is the one to remedy."""
    test = write_rows(work / "test.jsonl", rows_of("validation", 400, 0.0))
    found: dict[str, Any] = {"audits": [], "changes": []}
    run = train = work
    for bias in biases:
        train = write_rows(work / f"train-{bias:g}.jsonl", rows_of("train", rows, bias))
        run = tuned(work / f"run-{bias:g}", train)
        record = audit(str(run), str(test), by=["speaker"], templates=False)
        found["audits"].append({"bias": bias, "rows": record["rows"], "numbers": shown(record, "findings")})
    for method, by in (("swap", []), ("balance", ["speaker"])):
        changed = work / f"{method}.jsonl"
        facts_of = mitigate(str(run), str(train), str(changed), method, by=by)
        record = audit(str(tuned(work / f"run-{method}", changed)), str(test), by=["speaker"], against=str(run),
                       templates=False)
        quality = [each for each in record["groups"][0]["levels"] if each["measure"] == "quality"]
        found["changes"].append({"method": method, "rows": facts_of["written"], "numbers": shown(record, "changes"),
                                 "quality": {each["group"]: each["value"] for each in quality}})
    return found


def to_markdown(kept: dict[str, Any]) -> str:
    """The page of results."""
    audits = [[f"{100 * each['bias']:g} %", name, _interval(number, "value"),
               f"{number['p_adjusted']:.4f}" if "p_adjusted" in number else "–",
               f"{number['detectable']:.3f}" if "detectable" in number else "–",
               {True: "found", False: "not found", None: "–"}[number.get("found")]]
              for each in kept["audits"] for name, number in each["numbers"].items()]
    changed = [[each["method"], name, f"{number['before']:+.3f}", f"{number['after']:+.3f}",
                _interval(number, "change")] for each in kept["changes"] for name, number in each["numbers"].items()]
    levels = [[each["method"], str(each["rows"]), *(f"{each['quality'][name]:.3f}" for name in SPEAKERS)]
              for each in kept["changes"]]
    return "\n".join([
        "# Audit of a model tuned on biased rows, and two remedies", "", f"{kept['rows']} training rows, "
        f"{kept['audits'][0]['rows']} test rows; women's positive labels made negative in the share named.", "",
        table(["planted", "women against men", "value [95 %]", "corrected p", "detectable", "result"], audits), "",
        "Remedies of the most biased rows; of gaps the size is compared, below 0 is smaller.", "",
        table(["remedy", "number", "before", "after", "change [95 %]"], changed), "",
        table(["remedy", "training rows", "accuracy women", "accuracy men"], levels), "",
        f"`{kept['command']}`", "", conditions(kept["machine"]), "",
    ])


def _interval(number: dict[str, Any], name: str) -> str:
    return f"{number[name]:+.3f} [{number['low']:+.3f}, {number['high']:+.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--bias", type=float, nargs="+", default=[0.6])
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    if not DATA.is_dir():
        raise SystemExit(f"the rows are not there: {DATA}")
    with tempfile.TemporaryDirectory() as scratch:
        work = given.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        machine = facts(1)
        found = measure(work, given.rows, given.bias)
    command = f"python benchmarks/fairness_mitigation.py --rows {given.rows} --bias {' '.join(map(str, given.bias))}"
    _, page = keep_results("fairness_mitigation", {"machine": machine, "command": command, "rows": given.rows, **found},
                           to_markdown, given.out)
    print(page.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
