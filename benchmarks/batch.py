"""The claim: `treetune predict` answers files at least five times as fast as transformers' pipeline, and as well.

    python benchmarks/batch.py --run runs/sentiment --rows 320 --threads 2

The same rows and weights by every system: `treetune predict` in one process and in two that share the threads, with
its CTranslate2 engine in float32 and int8; transformers' pipelines (scoring every label, and ``text-generation``
writing it) at several batch sizes; CTranslate2's own ``score_batch`` and ``generate_batch``. treetune reads the file,
decides, and writes every block durably inside its time; the others only answer prompts that lie ready as texts. Loading
is counted for nobody. Each run is a process of its own; the rounds after the first let treetune and each peer's fastest
batch size take turns. Answers are compared row by row with treetune's, and with the labels. At the end the command is
killed (SIGKILL) at random moments and given again, and its rows are counted.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from children import add_options, memory_now, run_child, serve_child, take_turns
from machine import conditions, facts, has_peer, keep_results, table
from rows import SETS, is_there, place_of

LABELLED = "labelled.jsonl"
TWO = "treetune-2-processes"
WINDOW = 128  # tokens a row may have in the exports: what a banded GPT-3 may have as a GPT-2
BATCH_SIZES = (1, 8, 32, 128)
LABELS = ("treetune", TWO, "treetune-ctranslate2-float32", "treetune-ctranslate2-int8",
          *(f"pipeline-score-{size}" for size in BATCH_SIZES), *(f"pipeline-write-{size}" for size in BATCH_SIZES),
          *(f"ctranslate2-{form}-score-{size}" for form in ("float32", "int8") for size in (32, 128)))
TEXTS = ("treetune", TWO, "treetune-ctranslate2-float32", "treetune-ctranslate2-int8",
         *(f"pipeline-write-{size}" for size in BATCH_SIZES),
         *(f"ctranslate2-{form}-write-{size}" for form in ("float32", "int8") for size in (32, 128)))


def work(job: dict[str, Any]) -> dict[str, Any]:
    """What a child does."""
    from batch_killed import killed

    return {"export": export_all, "answer": answer, "killed": killed}[job["do"]](job)


def export_all(job: dict[str, Any]) -> dict[str, Any]:
    """The run's weights as a plain GPT-2 for transformers, and for CTranslate2 in both precisions."""
    from treetune.workflow.export import export

    folder = Path(job["folder"])
    done = {}
    for name, form, precision in (("plain", "safetensors", "float32"), ("float32", "ctranslate2", "float32"),
                                  ("int8", "ctranslate2", "int8")):
        record = export(job["run"], form, folder / name, data=str(folder / LABELLED), precision=precision,
                        max_length=WINDOW, min_equal=0.0)
        done[name] = record["parity"]["equal_answers"]
    return {"equal_answers": done}


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """Run ``job["system"]``; seconds, answers, peak memory in MiB (of this process)."""
    system = job["system"]
    found = ours(job) if system.startswith("treetune") else theirs(job)
    return {**found, "peak_memory": memory_now()}


def ours(job: dict[str, Any]) -> dict[str, Any]:
    """The command as it is: rows read, answered, decided, written block by block."""
    from treetune.workflow.predict import Asked, predict_file

    _, *form = job["system"].split("-", 1)
    kind = form[0] if form else ""
    asked = Asked(processes=2 if kind == "2-processes" else 1, max_refused_share=0.05, restart=True,
                  engine=f"ctranslate2:{job['folder']}/{kind.split('-')[1]}" if "ctranslate2" in kind else "")
    speeds: list[float] = []

    def watch(event: dict[str, Any]) -> None:
        if event["event"] == "answered":
            speeds.append(event["rows"] / event["rows_per_second"])

    output = Path(job["folder"]) / "answers.jsonl"
    predict_file(job["run"], job["data"], str(output), asked, watch)
    answers = [json.loads(line)["answer"] for line in output.read_text("utf-8").splitlines()]
    return {"seconds": speeds[-1], "answers": answers}


def theirs(job: dict[str, Any]) -> dict[str, Any]:
    """A peer on the prompts of the same rows."""
    from treetune.models.load import load_tokenizer
    from treetune.workflow.gather import read_for, to_examples
    from treetune.workflow.run import unloaded_run

    run = unloaded_run(job["run"])
    rows = read_for(run.task, job["data"], "test", {}, with_answer=False)
    examples = to_examples(run.task, rows, run.options, None, 0.05, with_answer=False).examples
    system, _, size = job["system"].rpartition("-")
    longest = run.max_new_tokens
    if system == "pipeline-write":
        write = pipeline_writer(job, int(size), longest)
        began = time.perf_counter()
        texts = write([each.prompt_text for each in examples])
        answers = [label_in(text, each) if each.candidates else run.task.answer_from_text(text, each)
                   for text, each in zip(texts, examples, strict=True)]
        return {"seconds": time.perf_counter() - began, "answers": answers}
    tokenizer, _ = load_tokenizer(str(run.folder.model))
    if system == "pipeline-score":
        from transformers import AutoModelForCausalLM

        from answers import pipeline_scorer

        model = AutoModelForCausalLM.from_pretrained(f"{job['folder']}/plain").eval()
        return scored(examples, tokenizer, pipeline_scorer(model, tokenizer, int(size)))
    return by_ctranslate2(job, system, int(size), (examples, tokenizer, run, longest))


def pipeline_writer(job: dict[str, Any], size: int, longest: int) -> Callable[[list[str]], list[str]]:
    """``text-generation`` as its documentation shows it, greedy."""
    from transformers import AutoTokenizer, pipeline

    tokenizer = AutoTokenizer.from_pretrained(f"{job['folder']}/plain", padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    pipe = pipeline("text-generation", model=f"{job['folder']}/plain", tokenizer=tokenizer, batch_size=size,
                    device="cpu")
    return lambda prompts: [found[0]["generated_text"] for found in pipe(
        prompts, max_new_tokens=longest, do_sample=False, return_full_text=False, truncation=True,
        max_length=None, pad_token_id=tokenizer.eos_token_id)]


def label_in(text: str, example: Any) -> str:
    """The label that was written, "" where it is none."""
    return next((name for name, written in example.candidates.items() if text.strip().startswith(written.strip())), "")


def scored(examples: Sequence[Any], tokenizer: Any, score: Callable[[Any], list[float]]) -> dict[str, Any]:
    """Labels by the likelihood of each."""
    from treetune.models.tokens import tokenize_candidates

    began = time.perf_counter()
    totals = iter(score(tokenize_candidates(examples, tokenizer, WINDOW)))
    answers = []
    for each in examples:
        own = {name: next(totals) for name in each.candidates}
        answers.append(max(own, key=own.__getitem__))
    return {"seconds": time.perf_counter() - began, "answers": answers}


def by_ctranslate2(job: dict[str, Any], system: str, size: int, what: tuple[Any, ...]) -> dict[str, Any]:
    """CTranslate2's own batches, sorted by length by itself."""
    import ctranslate2

    from treetune.models.tokens import tokenize

    examples, tokenizer, run, longest = what
    _, precision, way = system.split("-")
    generator = ctranslate2.Generator(f"{job['folder']}/{precision}", device="cpu", compute_type=precision,
                                      intra_threads=job["threads"])

    def words(*ids: Any) -> list[str]:
        return list(tokenizer.convert_ids_to_tokens([int(each) for part in ids for each in part]))

    def score(rows: Any) -> list[float]:
        found = generator.score_batch([words(row.prompt_ids, row.completion_ids) for row in rows], max_batch_size=size,
                                      max_input_length=0)
        return [sum(each.log_probs[-len(row.completion_ids) :]) for row, each in zip(rows, found, strict=True)]

    if way == "score":
        return scored(examples, tokenizer, score)
    began = time.perf_counter()
    rows = tokenize(examples, tokenizer, WINDOW - longest, with_completion=False)
    found = generator.generate_batch([words(row.prompt_ids) for row in rows], max_batch_size=size, max_length=longest,
                                     include_prompt_in_result=False, end_token=[int(tokenizer.eos_token_id)])
    texts = [tokenizer.decode(each.sequences_ids[0]) for each in found]
    answers = [run.task.answer_from_text(text, each) for text, each in zip(texts, examples, strict=True)]
    return {"seconds": time.perf_counter() - began, "answers": answers}


def measure(options: argparse.Namespace, task: str, folder: Path) -> dict[str, Any]:
    """All rounds: the first runs every setting, later ones treetune's and the fastest of each peer."""
    data = folder / "rows.jsonl"
    references = write_rows(options.set, options.rows, data, task)
    job = {"run": options.run, "data": str(data), "folder": str(folder), "threads": options.threads}
    found = facts(options.threads)
    exported = run_child(__file__, {**job, "do": "export"}, options.timeout)
    if "error" in exported:
        return exported

    def run(name: str) -> dict[str, Any]:
        threads = max(1, options.threads // 2) if name == TWO else options.threads  # of each of its processes
        one = run_child(__file__, {**job, "do": "answer", "system": name, "threads": threads}, options.timeout)
        print(f"  {name:32s} " + (one.get("error") or f"{one['seconds']:8.2f} s  "
                                  f"{len(one['answers']) / one['seconds']:8.1f} rows/s"), flush=True)
        return one

    done = take_turns(LABELS if task == "sentiment" else TEXTS, options.repeats, finalists, run)
    killed = run_child(__file__, {**job, "do": "killed", "kills": options.kills}, options.timeout)
    return {"conditions": found, "rows": len(references), "task": task, "repeats": options.repeats, "killed": killed,
            "run": Path(options.run).name, "systems": {
                name: summary(runs, done["treetune"], references) for name, runs in done.items()}}


def write_rows(name: str, count: int, path: Path, task: str) -> list[str]:
    """The first rows of the validation split that fit the exports' window; their right answers.

    Beside ``path`` the same rows with these, for the exports' own proof.
    """
    from treetune.data.read import read_rows

    asked, right = {"sentiment": ("text", "label"), "translation": ("source", "target")}[task]
    rows = read_rows(place_of(name, "validation"), split="test", aliases={}, columns={}).rows
    short = [row.values for row in rows if len(str(row.values[asked]).split()) <= WINDOW // 4][:count]
    for file, columns in ((path, (asked,)), (path.with_name(LABELLED), (asked, right))):
        file.write_text("".join(json.dumps({name: row[name] for name in columns}, ensure_ascii=False) + "\n"
                                for row in short), "utf-8")
    return [str(row[right]) for row in short]


def family_of(name: str) -> str:
    """A system without its batch size."""
    return name.rpartition("-")[0] if name.rpartition("-")[2].isdigit() else name


def finalists(done: dict[str, list[dict[str, Any]]]) -> list[str]:
    """treetune's, and each peer's fastest."""
    usable = {name: runs[0]["seconds"] for name, runs in done.items() if "error" not in runs[0]}
    families = {family_of(name) for name in usable}
    return [min((name for name in usable if family_of(name) == family), key=usable.__getitem__) for family in
            sorted(families)]


def summary(runs: list[dict[str, Any]], ours_: list[dict[str, Any]], references: list[str]) -> dict[str, Any]:
    """Medians, share of answers equal to treetune's, share of right ones."""
    if any("error" in run for run in runs):
        return {"error": next(run["error"] for run in runs if "error" in run)}
    seconds = sorted(run["seconds"] for run in runs)
    answers = runs[0]["answers"]
    equal = None if "error" in ours_[0] else sum(
        one == two for one, two in zip(answers, ours_[0]["answers"], strict=True)) / len(answers)
    return {"rows_per_second": len(answers) / median(seconds), "low": len(answers) / seconds[-1],
            "high": len(answers) / seconds[0], "runs": len(runs), "equal": equal,
            "right": sum(one == two for one, two in zip(answers, references, strict=True)) / len(answers),
            "peak_memory": median(run["peak_memory"] for run in runs)}


def section_to_markdown(key: str, section: dict[str, Any]) -> str:
    """One table."""
    if "error" in section:
        return f"## {key}\n\nfailed: {section['error']}\n"
    base = section["systems"]["treetune"].get("rows_per_second")
    right = "right" if section["task"] == "sentiment" else "same as reference"
    lines = []
    for name, found in section["systems"].items():
        if "error" in found:
            lines.append([name, "failed", found["error"].replace("|", "/")[:80], "", "", "", ""])
            continue
        lines.append([
            name, f"{found['rows_per_second']:.1f}", f"{found['low']:.1f} to {found['high']:.1f} ({found['runs']})",
            f"{base / found['rows_per_second']:.2f}" if base else "", f"{found['equal']:.1%}" if base else "",
            f"{found['right']:.1%}", f"{found['peak_memory']:.0f}"])
    head = ["system", "rows/s", "range (runs)", "treetune is × as fast", "equal answers", right, "peak MiB"]
    return "\n".join([f"## {key}", "", table(head, lines), "", f"{section['rows']} rows.", "",
                      *best_lines(section["systems"]), "", killed_line(section["killed"]), "",
                      conditions(section["conditions"]), ""])


def best_lines(systems: dict[str, Any]) -> list[str]:
    """treetune in one process against each peer at its fastest batch size, by the medians."""
    speeds = {name: found["rows_per_second"] for name, found in systems.items() if "error" not in found}
    peers: dict[str, str] = {}
    for name in speeds:
        if not name.startswith("treetune"):
            peers[family_of(name)] = max(name, peers.get(family_of(name), name), key=speeds.__getitem__)
    return [f"- against {name}, the fastest of {family}: {speeds['treetune'] / speeds[name]:.2f} × as fast"
            for family, name in peers.items() if "treetune" in speeds]


def killed_line(found: dict[str, Any]) -> str:
    """How often each row stands in the file of a command that was killed."""
    if "error" in found:
        return f"Killed: failed: {found['error']}"
    at = ", ".join(map(str, found["at"]))
    return (f"Killed by SIGKILL {found['kills']} times (behind {at} rows) and given again: of {found['rows']} rows "
            f"{found['missing']} are missing and {found['twice']} stand there twice; "
            f"{found['equal']} lines are those of a command that nobody stopped.")


def to_markdown(sections: dict[str, Any]) -> str:
    """The results page."""
    head = ["# Batch prediction", "", __doc__.split("\n\n")[0], "",
            "Rows a second, loading not counted; medians. treetune's time holds reading the file, the decisions and "
            "writing each block durably. ``-N`` at the end of a name: batch size. ``score``: the likelihood of every "
            "label; ``write``: the label or text is generated. Equal answers: share of rows with treetune's answer. "
            "Peak memory is that of the measuring process, without those it starts.", ""]
    return "\n".join([*head, *(section_to_markdown(key, sections[key]) for key in sorted(sections))])


def parse() -> argparse.Namespace:
    """Options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="folder of a tuned decoder run")
    parser.add_argument("--set", default="sentiment/sst3", choices=[
        name for name, task in SETS.items() if task in ("sentiment", "translation")])
    parser.add_argument("--rows", type=int, default=320)
    parser.add_argument("--kills", type=int, default=5)
    add_options(parser, timeout=300)
    return parser.parse_args()


def main() -> None:
    """Measure, print, keep."""
    options = parse()
    if options.child:
        serve_child(work)
        return
    if not options.run:
        raise SystemExit("give --run FOLDER, a decoder that treetune tune wrote")
    if not has_peer("ctranslate2"):
        raise SystemExit("ctranslate2 is not installed: pip install 'treetune[export]'")
    if not is_there(options.set):
        return
    options.run = str(Path(options.run).resolve())
    with tempfile.TemporaryDirectory() as folder:
        section = measure(options, SETS[options.set], Path(folder))
    key = f"{Path(options.run).parent.name}/{Path(options.run).name} · {options.set}"
    print(section_to_markdown(key, section), flush=True)
    keep_results("batch", {key: section}, to_markdown, options.results)


if __name__ == "__main__":
    main()
