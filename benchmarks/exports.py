"""What each export of tuned runs costs in answers: `treetune export` on the runs' own validation rows, as a table.

    python benchmarks/exports.py RUN … --max-length 128

Writes ``results/exports.md`` and ``.json``. A form that a run cannot have stands there with its code.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from machine import RESULTS, conditions, facts, keep_results, table
from treetune.core.errors import TreetuneError
from treetune.workflow.export import export

FORMS = (("safetensors", "float32"), ("gguf", "float32"), ("ctranslate2", "float32"), ("ctranslate2", "int8"),
         ("onnx", "float32"))
HEAD = ["run", "form", "rows", "equal answers", "log-prob. apart, nats", "first metric: run", "exported", "change"]


def measure(run: str, form: str, precision: str, max_length: int) -> dict[str, Any]:
    """One export's record, or its code. ``min_equal=0``: a miss is a number here, not an end."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            record = export(run, form, Path(folder) / "out", precision=precision, max_length=max_length, min_equal=0.0)
        except TreetuneError as error:
            return {"run": run, "form": form, "precision": precision, "code": error.code}
    return {"run": run, "form": form, "precision": precision, "max_length": record["max_length"],
            "task": record["task"], "parity": record["parity"], "as_one_text": record["as_one_text"]}


def lines_of(found: dict[str, Any]) -> list[list[str]]:
    """A line a form; for 8 bits a second one, of the same file computed in float32."""
    name = f"{found['form']} {found['precision']}"
    run = Path(found["run"]).name
    if "code" in found:
        return [[run, name, found["code"], *[""] * 5]]
    parity = found["parity"]
    lines = [line(run, name, parity["rows"], parity)]
    if "computed_in_float32" in parity:
        lines.append(line(run, f"{name}, computed in float32", parity["rows"], parity["computed_in_float32"]))
    return lines


def line(run: str, name: str, rows: int, parity: dict[str, Any]) -> list[str]:
    """One comparison as cells."""
    metric, values = next(iter(parity["metrics"].items()))
    return [run, name, str(rows), f"{parity['equal_answers']:.1%}", f"{parity['log_prob_difference']:.1e}",
            f"{metric} {values['original']:.3f}", f"{values['exported']:.3f}", f"{values['change']:+.3f}"]


def to_markdown(kept: dict[str, Any]) -> str:
    """All runs in one table, and what a prompt given as one text does."""
    found = [each for section in kept.values() for each in section["forms"]]
    texts = {Path(each["run"]).name: each["as_one_text"] for each in found if each.get("as_one_text")}
    said = [f"- {run}, prompt given as one text: {text['same_ids']:.0%} of rows become the same ids, "
            f"{text['equal_answers']:.1%} of answers stay the same." for run, text in texts.items()]
    last = list(kept.values())[-1]
    lines = [cells for each in found for cells in lines_of(each)]
    return "\n".join(["# Exports against their runs", "", table(HEAD, lines), "", *said, "",
                      f"Command: `{last['command']}`", "", conditions(last["machine"]), ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--max-length", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    import torch

    for run in options.runs:
        began = facts(torch.get_num_threads())
        forms = [measure(run, *each, options.max_length) for each in FORMS]
        name = Path(run).name
        command = f"python benchmarks/exports.py {name} --max-length {options.max_length}"
        section = {"machine": began, "command": command, "forms": [{**each, "run": name} for each in forms]}
        _, page = keep_results("exports", {name: section}, to_markdown, options.results)
        print(page.read_text(encoding="utf-8"), flush=True)


if __name__ == "__main__":
    main()
