"""From `pip install` to the first answer on a fresh environment, and the size of the package.

    python benchmarks/install.py [--work FOLDER] [--out FOLDER]

Builds the wheel from this tree, makes a new virtual environment, installs the wheel with constraints.txt through pip,
and asks the installed command for the words behind a text. What pip fetches depends on the network and its cache; the
table says how many bytes were on the wire where pip tells. Nothing of this tree is on the path of the new environment.
"""

from __future__ import annotations

import argparse
import os
import resource
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

from machine import RESULTS, conditions, facts, keep_results, table

ROOT = Path(__file__).resolve().parents[1]
QUESTION = "The capital of France is"


def run(words: list[str], **more: Any) -> tuple[dict[str, float], str]:
    """(``seconds``, and ``cpu`` seconds of the processor, which others' load does not lengthen), and what it printed.

    Stops where the command fails.
    """
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(words, capture_output=True, text=True, check=False, **more)
    if done.returncode:
        sys.exit(f"{shlex.join(words)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(time.perf_counter() - began, 1), "cpu": round(cpu, 1)}, done.stdout


def size_of(folder: Path) -> int:
    """Bytes of all files below."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def measure(work: Path) -> dict[str, Any]:
    """All steps, timed."""
    found = facts(os.cpu_count() or 1)
    shutil.rmtree(work, ignore_errors=True)
    (work / "wheel").mkdir(parents=True)
    source = work / "source"  # a build writes beside what it builds
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(
        ".git", "runs", "build", "dist", ".venv", "__pycache__", "*.egg-info", ".*_cache"))
    wheels = str(work / "wheel")
    built, _ = run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", wheels, str(source)])
    [wheel] = (work / "wheel").glob("*.whl")
    made, _ = run([sys.executable, "-m", "venv", str(work / "venv")])
    python = work / "venv" / "bin" / "python"
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    before = size_of(work / "venv")
    constraints = str(ROOT / "constraints.txt")
    installed, _ = run([str(python), "-m", "pip", "install", "--quiet", "-c", constraints, str(wheel)], env=clean)
    after = size_of(work / "venv")
    command = [str(work / "venv" / "bin" / "treetune"), "predict", "gpt3", "--next", QUESTION]
    first, answer = run(command, env=clean, cwd=work)
    second, _ = run(command, env=clean, cwd=work)
    with zipfile.ZipFile(wheel) as content:
        inside = {entry.filename: entry.file_size for entry in content.infolist()}
    model = sum(size for name, size in inside.items() if "/embedded/gpt3/" in name)
    _, listed = run([str(python), "-m", "pip", "list", "--format=freeze"], env=clean)
    return {
        "wheel_bytes": wheel.stat().st_size, "unpacked_bytes": sum(inside.values()), "model_bytes": model,
        "environment_bytes": after - before, "packages": len(listed.split()),
        "build": built, "venv": made, "install": installed, "first_answer": first, "second_answer": second,
        "answer": answer.strip().splitlines()[:4],
        "command": shlex.join(["python", "benchmarks/install.py"]), "facts": found,
    }


def page(kept: dict[str, Any]) -> str:
    """The results as Markdown."""
    found = kept["install"]
    million = 1e6
    lines = [
        ["wheel", f"{found['wheel_bytes'] / million:.1f} MB"],
        ["unpacked", f"{found['unpacked_bytes'] / million:.1f} MB"],
        ["of that the shipped model", f"{found['model_bytes'] / million:.1f} MB"],
        [f"environment with all {found['packages']} packages", f"{found['environment_bytes'] / million:.0f} MB"],
    ]
    steps = [("`python -m venv`", ("venv",)), ("`pip install`", ("install",)),
             ("first answer after that", ("first_answer",)),
             ("from `pip install` to the first answer", ("install", "first_answer")),
             ("the same answer again", ("second_answer",))]
    lines += [[name, f"{sum(found[part]['seconds'] for part in parts):.1f} s "
               f"({sum(found[part]['cpu'] for part in parts):.1f} s of processor)"] for name, parts in steps]
    asked = f'`treetune predict gpt3 --next "{QUESTION}"`'
    return "\n".join(["# Installing", "", table(["what", "measured"], lines), "", f"Asked: {asked}; "
                      f"`{found['command']}`.", "", conditions(found["facts"]), ""])


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "install")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    result = measure(options.work.resolve())
    print(keep_results("install", {"install": result}, page, options.out)[1].read_text("utf-8"))
    shutil.rmtree(options.work, ignore_errors=True)


if __name__ == "__main__":
    main()
