"""The claim: a run killed at any moment, as often as you like, ends in the same bytes as one that was left alone.

    python benchmarks/kill_test.py --kills 200 --trainer-kills 60

A tiny model with dropout is tuned on the packaged sentiment rows: 8 rows a step in two passes, packed into trees,
AdamW, a checkpoint every 3 steps, an evaluation every 7, over an epoch's edge. Each attempt takes the run's lock,
resumes, trains, logs, saves checkpoints and at last the model. Model and rows are read once, before the forks, and
the exactness proof is left out, so that hundreds of kills fit into minutes; ``command`` is the whole command instead.

* moments: seeded SIGKILLs at random moments, two to five for each run, which the same command then takes up: at a
  random moment within the time that a few steps take, after a random number of further steps (0: while starting).
* command: the same through ``treetune tune``'s own function, from the files on.
* writes: SIGKILL in every call of one checkpoint that changes the file system (writes die half-done), in runs of 12
  steps.
* disk full: a file-size limit stops each file of a checkpoint in turn. flipped, cut: one byte of each file of the
  newest checkpoint, or its last byte, is damaged before the run goes on.
* trainer: the same moments for transformers' Trainer (save_steps=3, resume_from_checkpoint=True as soon as there is a
  checkpoint) on a GPT-2 of the same size and as many steps. When a resume fails, the newest checkpoint is deleted by
  hand, as a user would, and it is counted.

Compared byte by byte with the run that was left alone: the final weights, and the numbers of the log (every step and
evaluation, without the seconds).
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from killing import DieAt, forked
from machine import RESULTS, conditions, facts, keep_results, table

STEPS, SAVE_EVERY, EVAL_EVERY, ROWS = 24, 3, 7, 8
SHORT = 12  # steps of the runs that are hurt in one place, after step 6 and before step 9
SYSTEMS = {"moments": "treetune, killed at random moments",
           "command": "treetune tune as a whole, killed at random moments",
           "writes": "treetune, killed at each call of a save",
           "damage": "treetune, disk full, flipped bit, cut file",
           "trainer": "transformers Trainer, killed at random moments"}


def make_model(folder: Path) -> None:
    """A two-layer GPT-3 of random weights with dropout, and its tokenizer."""
    import torch

    from treetune.data.sample import sample_path
    from treetune.models.gpt3 import GPT3Config, GPT3LMHeadModel, train_tokenizer

    lines = sample_path("sentiment", "train").read_text("utf-8").splitlines()
    tokenizer = train_tokenizer(lines, 400, 512)
    torch.manual_seed(0)
    config = GPT3Config(vocab_size=len(tokenizer), n_positions=512, n_embd=32, n_layer=2, n_head=2, attention_band=64,
                        resid_pdrop=0.1, embd_pdrop=0.1, bos_token_id=tokenizer.bos_token_id,
                        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    GPT3LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    few = sample_path("sentiment", "validation").read_text("utf-8").splitlines(keepends=True)[:12]
    (folder.parent / "validation.jsonl").write_text("".join(few), "utf-8")


@dataclass(frozen=True, slots=True)
class Parts:
    """What all attempts at a run share."""

    model: Any
    tokenizer: Any
    rows: list[Any]
    validation: list[Any]
    settings: dict[str, Any]


def read_parts(folder: Path) -> Parts:
    """Model, tokenizer and rows, read once."""
    from treetune.models.engine import fullest_engine, set_up
    from treetune.models.load import load_model
    from treetune.models.tokens import tokenize
    from treetune.tasks.contract import load_task
    from treetune.workflow.gather import gather_training

    given = settings_of(folder, folder / "unused")
    training, validation, _ = gather_training(given, load_task("sentiment"), None)
    loaded = load_model(str(folder))
    set_up(loaded.model, fullest_engine(loaded.model))
    return Parts(loaded.model, loaded.tokenizer, tokenize(training.examples, loaded.tokenizer, loaded.window),
                 tokenize(validation.examples, loaded.tokenizer, loaded.window), given.model_dump())


def settings_of(model: Path, run: Path) -> Any:
    """The settings of the run."""
    from treetune.core.settings import TuneSettings
    from treetune.data.sample import sample_path

    return TuneSettings(
        task="sentiment", model=str(model), data=str(sample_path("sentiment", "train")), output_dir=str(run),
        validation_data=str(model.parent / "validation.jsonl"), max_steps=STEPS, eval_steps=EVAL_EVERY,
        per_device_train_batch_size=ROWS // 2, gradient_accumulation_steps=2, learning_rate=1e-3,
        save_steps=SAVE_EVERY, logging_steps=1, torch_threads=1,
    )


def train(parts: Parts, run: Path) -> int:
    """An attempt at the run: lock, resume, train, log, save."""
    from treetune.cli.show import Watcher
    from treetune.core.files import RunFolder
    from treetune.core.lock import run_lock
    from treetune.core.settings import TuneSettings
    from treetune.models.batches import batches_of
    from treetune.train.loop import fit
    from treetune.workflow.log import MetricsLog
    from treetune.workflow.run import save_model

    folder = RunFolder(run)
    log = MetricsLog(folder.metrics, Watcher(quiet=False))
    model = copy.deepcopy(parts.model)
    make_batches = partial(batches_of, layout="tree", rows_per_pass=ROWS // 2, max_tokens=768)
    settings = TuneSettings(**{**parts.settings, "output_dir": str(run)})
    with run_lock(run, log):
        fit(model, parts.rows, parts.validation, settings, make_batches, folder, {"seed": 0}, log)
        save_model(folder, model, parts.tokenizer)
    return 0


def tune(model: Path, run: Path) -> int:
    """An attempt through the function behind ``treetune tune``."""
    from treetune.cli.show import Watcher
    from treetune.workflow.path import tune as tune_run

    tune_run(settings_of(model, run), Watcher(quiet=False))
    return 0


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def log_of(run: Path) -> list[dict[str, Any]]:
    """Steps and evaluations as logged, without the seconds."""
    from treetune.workflow.log import read_events

    return [{key: value for key, value in event.items() if key != "seconds"}
            for event in read_events(run / "metrics.jsonl") if event["event"] in ("step", "evaluation")]


def outcome(run: Path) -> dict[str, str]:
    """What must be equal: digests of the weights, of the last checkpoint's optimizer state, and of the log."""
    from treetune.train.checkpoint import steps_on_disk

    [(_, last), *_] = steps_on_disk(run / "checkpoints")
    return {"weights": sha256((run / "model" / "model.safetensors").read_bytes()),
            "optimizer": sha256((last / "optimizer.safetensors").read_bytes()),
            "log": sha256(json.dumps(log_of(run), sort_keys=True).encode())}


def steps_lost(run: Path) -> int:
    """Steps in the log beyond the newest whole checkpoint: what a kill has cost."""
    from treetune.train.checkpoint import newest_valid

    path, _ = newest_valid(run / "checkpoints")
    logged = [event["step"] for event in log_of(run) if event["event"] == "step"]
    return max(logged, default=0) - (int(path.name[5:]) if path else 0)


def kill_at_moments(work: Path, kills: int, seed: int, go: Callable[[Path], int],
                    lost: Callable[[Path], int], check: Callable[[Path], dict[str, str]],
                    mend: Callable[[Path], None] | None = None) -> dict[str, Any]:
    """Runs killed two to five times each until ``kills`` is reached, then finished and compared.

    Args:
        go: the run's work, in a forked process. mend: what a user does when a resume fails.
    """
    log = work / "output.txt"
    go(work / "warm")  # here, so that what is built once is there before the first fork
    whole = forked(lambda: go(work / "whole"), log)
    if whole.code or check(work / "whole") != check(work / "warm"):
        raise RuntimeError(f"the run left alone failed, or cannot be repeated, see {log}")
    longest = 0.1 * whole.seconds
    wanted = check(work / "whole")
    draw = random.Random(seed)
    runs: list[dict[str, Any]] = []
    while sum(run["kills"] for run in runs) < kills:
        if len(runs) > kills:
            raise RuntimeError(f"{len(runs)} runs ended before they were killed, see {log}")
        place = work / f"run-{len(runs)}"
        record: dict[str, Any] = {"kills": 0, "lost": [], "failed_resumes": 0}
        left = min(draw.randint(2, 5), kills - sum(run["kills"] for run in runs))
        while True:
            steps = draw.randint(0, (STEPS - done_steps(place)) * 2 // 3)  # rarely over before it is killed
            told = ToldSteps(log)
            ready = (lambda told=told, steps=steps: told() >= steps) if record["kills"] < left else None
            ended = forked(lambda place=place: go(place), log, ready, draw.uniform(0, longest))
            if ended.killed:
                record["kills"] += 1
                record["lost"].append(lost(place))
            elif ended.code == 0:
                break
            else:
                record["failed_resumes"] += 1
                if mend is None or record["failed_resumes"] > 9:
                    break
                mend(place)
        record["finished"] = ended.code == 0
        record["equal"] = record["finished"] and check(place) == wanted
        runs.append(record)
        if record["equal"]:
            shutil.rmtree(place)
        print(f"  run {len(runs)}: {record}", flush=True)
    return {"wanted": wanted, "seconds_of_a_run": round(whole.seconds, 2), **summary(runs)}


class ToldSteps:
    """Called: the steps that processes have told of in their output since this was made."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.place = log.stat().st_size if log.exists() else 0
        self.count = 0

    def __call__(self) -> int:
        if self.log.exists() and self.log.stat().st_size > self.place:
            with open(self.log, "rb") as handle:
                handle.seek(self.place)
                text = handle.read()
            whole = text.rfind(b"\n") + 1
            self.place += whole
            self.count += text[:whole].count(b"  loss ") + text[:whole].count(b"{'loss'")
        return self.count


def done_steps(run: Path) -> int:
    """The newest checkpoint's number, of either system."""
    found = [*run.glob("checkpoints/step-*"), *run.glob("checkpoint-*")]
    return max((int(path.name.rpartition("-")[2]) for path in found), default=0)


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts over runs."""
    lost = [steps for run in runs for steps in run["lost"]]
    return {
        "lost": {str(steps): lost.count(steps) for steps in sorted(set(lost))},
        "runs": len(runs), "kills": sum(run["kills"] for run in runs),
        "finished": sum(run["finished"] for run in runs), "not_equal": sum(not run["equal"] for run in runs),
        "failed_resumes": sum(run["failed_resumes"] for run in runs),
        "most_steps_lost": max(lost, default=0),
    }


def kill_at_writes(work: Path, parts: Parts, wanted: dict[str, str]) -> dict[str, Any]:
    """SIGKILL in each call that changes the file system during the checkpoint of one step, then the run goes on."""
    from treetune.train import loop

    step = 3 * SAVE_EVERY
    log = work / "output.txt"

    def with_death(run: Path, number: int, note: Path | None = None) -> int:
        die, plain = DieAt(number), loop.save_checkpoint

        def save(folder: Path, model: Any, optimizers: Any, state: Any, *rest: Any) -> Path:
            if state.step != step:
                return plain(folder, model, optimizers, state, *rest)
            die.arm()
            path = plain(folder, model, optimizers, state, *rest)
            if note:
                note.write_text(json.dumps(die.names))
            os.kill(os.getpid(), signal.SIGKILL)  # the call after the last is the return
            return path

        loop.save_checkpoint = save
        return train(parts, run)

    forked(lambda: with_death(work / "count", -1, work / "calls.json"), log)
    names = json.loads((work / "calls.json").read_text())
    base = work / "base"  # up to the checkpoint before: each death starts from a copy of it
    forked(lambda: with_death(base, 1), log)
    runs = []
    for number in range(1, len(names) + 2):
        place = work / f"write-{number}"
        shutil.copytree(base, place)
        ended = forked(lambda place=place, number=number: with_death(place, number), log)
        record = {"kills": int(ended.killed), "lost": [steps_lost(place)], "failed_resumes": 0}
        ended = forked(lambda place=place: train(parts, place), log)
        record |= {"finished": ended.code == 0, "failed_resumes": int(ended.code != 0)}
        record["equal"] = record["finished"] and outcome(place) == wanted
        runs.append(record)
        if record["equal"]:
            shutil.rmtree(place)
        else:
            print(f"  call {number} {names[number - 1 : number]}: {record}", flush=True)
    return {"wanted": wanted, "calls": {name: names.count(name) for name in sorted(set(names))}, **summary(runs)}


def damage(work: Path, parts: Parts, wanted: dict[str, str]) -> dict[str, Any]:
    """A full disk at each file, a flipped bit and a missing last byte in each file of the newest checkpoint."""
    from treetune.train.checkpoint import MANIFEST, OPTIMIZER, STATE, WEIGHTS, newest_valid
    from treetune.workflow.log import read_events

    log, cases = work / "output.txt", []
    base = work / "damaged"

    def until_killed() -> int:
        from treetune.train import loop

        plain = loop.save_checkpoint

        def save(folder: Path, model: Any, optimizers: Any, state: Any, *rest: Any) -> Path:
            path = plain(folder, model, optimizers, state, *rest)
            if state.step == 3 * SAVE_EVERY:
                os.kill(os.getpid(), signal.SIGKILL)
            return path

        loop.save_checkpoint = save
        return train(parts, base)

    forked(until_killed, log)
    newest, _ = newest_valid(base / "checkpoints")
    assert newest is not None
    for name in (WEIGHTS, OPTIMIZER, STATE, MANIFEST):
        for kind in ("flipped", "cut", "gone"):
            place = work / f"{kind}-{name}"
            shutil.copytree(base, place)
            path = place / "checkpoints" / newest.name / name
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.unlink() if kind == "gone" else path.write_bytes(data if kind == "flipped" else data[:-1])
            ended = forked(lambda place=place: train(parts, place), log)
            told = [e["found"] for e in read_events(place / "metrics.jsonl") if e["event"] == "broken_checkpoint"]
            cases.append({"case": f"{name} {kind}", "code": ended.code, "told": " ".join(told),
                          "equal": ended.code == 0 and outcome(place) == wanted})
    for limit in size_limits(newest):
        place = work / f"full-{limit}"

        def on_small_disk(place: Path = place, limit: int = limit) -> int:
            from treetune.train import loop

            plain = loop.save_checkpoint

            def save(folder: Path, model: Any, optimizers: Any, state: Any, *rest: Any) -> Path:
                if state.step == 3 * SAVE_EVERY:
                    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
                try:
                    return plain(folder, model, optimizers, state, *rest)
                finally:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

            loop.save_checkpoint = save
            return train(parts, place)

        first = forked(on_small_disk, log)
        junk = [path.name for path in (place / "checkpoints").iterdir() if path.name.startswith(".tmp")]
        ended = forked(lambda place=place: train(parts, place), log)
        cases.append({"case": f"disk full after {limit} bytes of a file", "code": first.code, "told": f"junk: {junk}",
                      "equal": first.code == 1 and ended.code == 0 and outcome(place) == wanted})
    return {"wanted": wanted, "cases": cases, "runs": len(cases), "kills": 0, "failed_resumes": 0,
            "finished": sum(bool(case["equal"]) for case in cases), "not_equal": sum(not c["equal"] for c in cases),
            "most_steps_lost": 2 * SAVE_EVERY}


def size_limits(checkpoint: Path) -> list[int]:
    """File sizes below which each file of a checkpoint in turn cannot be written."""
    sizes = sorted({path.stat().st_size for path in checkpoint.iterdir()})
    return [0, *(size - 1 for size in sizes)]


def train_with_trainer(model: Path, run: Path) -> int:
    """transformers' Trainer on as many rows a step and as many steps; resumes where there is a checkpoint."""
    import torch
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
    from transformers.trainer_utils import get_last_checkpoint

    from treetune.data.sample import sample_path

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(model)
    texts = [json.loads(line)["text"] for split in ("train",)
             for line in sample_path("sentiment", split).read_text("utf-8").splitlines()]
    rows = []
    for text in texts:
        ids = tokenizer(text)["input_ids"][:48]
        ids = ids + [tokenizer.eos_token_id] * (48 - len(ids))
        rows.append({"input_ids": ids, "labels": ids})
    torch.manual_seed(0)
    network = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_positions=512, n_embd=32, n_layer=2, n_head=2))
    arguments = TrainingArguments(
        output_dir=str(run), max_steps=STEPS, per_device_train_batch_size=ROWS // 2, gradient_accumulation_steps=2,
        learning_rate=1e-3, save_steps=SAVE_EVERY, save_total_limit=2, eval_strategy="steps", eval_steps=EVAL_EVERY,
        logging_steps=1, seed=0, report_to="none", use_cpu=True, disable_tqdm=True,
    )
    trainer = Trainer(model=network, args=arguments, train_dataset=rows, eval_dataset=rows[:40])
    found = get_last_checkpoint(str(run)) if run.is_dir() else None
    trainer.train(resume_from_checkpoint=True if found else None)
    trainer.save_model(str(run / "final"))
    timed = ("runtime", "per_second")
    history = [{key: value for key, value in entry.items() if not key.endswith(timed)}
               for entry in trainer.state.log_history if "train_loss" not in entry]
    (run / "log.json").write_text(json.dumps(history, sort_keys=True))
    return 0


def trainer_outcome(run: Path) -> dict[str, str]:
    return {"weights": sha256((run / "final" / "model.safetensors").read_bytes()),
            "log": sha256((run / "log.json").read_bytes())}


def trainer_steps_lost(run: Path) -> int:
    """The Trainer writes no log as it goes; what a kill costs is not known from outside."""
    return 0


def delete_newest(run: Path) -> None:
    """What its users are told to do: delete the checkpoint that cannot be read."""
    from transformers.trainer_utils import get_last_checkpoint

    found = get_last_checkpoint(str(run)) if run.is_dir() else None
    if found:
        shutil.rmtree(found)


def to_markdown(sections: dict[str, Any]) -> str:
    """The results page."""
    head = ["system", "runs", "kills", "finished", "resumes that failed", "not byte-equal", "most steps lost"]
    lines = [[SYSTEMS[key], str(s["runs"]), str(s["kills"]), str(s["finished"]), str(s["failed_resumes"]),
              str(s["not_equal"]), "not logged" if key == "trainer" else str(s["most_steps_lost"])]
             for key, s in sections.items() if key in SYSTEMS]
    text = ["# Killed runs", "", (__doc__ or "").split("\n\n")[0], "", table(head, lines), "",
            f"A checkpoint every {SAVE_EVERY} steps of {STEPS}; of {SHORT} where one save or file is hurt. sha256 of "
            "the run left alone, which every byte-equal run shares:", ""]
    for key in SYSTEMS:
        if key in sections:
            text += [f"* {SYSTEMS[key]}: " + ", ".join(f"{name} `{digest}`" for name, digest in
                                                      sections[key]["wanted"].items())]
    if "writes" in sections:
        text += ["", "Calls of one checkpoint that change the file system: "
                 + ", ".join(f"{count} {name}" for name, count in sections["writes"]["calls"].items()) + "."]
    if "damage" in sections:
        text += ["", table(["damage", "exit code", "said", "byte-equal"], [
            [c["case"], str(c["code"]), c["told"], str(c["equal"])] for c in sections["damage"]["cases"]])]
    text += ["", *sorted({conditions(s["conditions"]) for s in sections.values() if "conditions" in s}), "",
             f"Command: `{next(iter(sections.values())).get('command', '')}`", ""]
    return "\n".join(text)


def main() -> None:
    """Kill, count, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--trainer-kills", type=int, default=60)
    parser.add_argument("--command-kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(SYSTEMS), nargs="+", default=list(SYSTEMS))
    parser.add_argument("--work", type=Path, help="folder to work in; else a temporary one")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    import_all()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        model = work / "model"
        make_model(model)
        command = (f"python benchmarks/kill_test.py --kills {options.kills} --command-kills {options.command_kills} "
                   f"--trainer-kills {options.trainer_kills}")
        for name in options.only:
            began = time.monotonic()
            section = measure(name, work / name, model, options)
            section |= {"conditions": facts(1), "command": command, "seconds": round(time.monotonic() - began, 1)}
            print(json.dumps({name: section}, indent=1))
            keep_results("kill_test", {name: section}, to_markdown, options.results)


def measure(name: str, work: Path, model: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One section."""
    work.mkdir(parents=True)
    if name == "command":
        return kill_at_moments(work, options.command_kills, options.seed, lambda run: tune(model, run), steps_lost,
                               outcome)
    if name == "trainer":
        return kill_at_moments(work, options.trainer_kills, options.seed, lambda run: train_with_trainer(model, run),
                               trainer_steps_lost, trainer_outcome, delete_newest)
    parts = read_parts(model)
    if name == "moments":
        return kill_at_moments(work, options.kills, options.seed, lambda run: train(parts, run), steps_lost, outcome)
    parts = replace(parts, settings={**parts.settings, "max_steps": SHORT})
    train(parts, work / "whole")
    wanted = outcome(work / "whole")
    return kill_at_writes(work, parts, wanted) if name == "writes" else damage(work, parts, wanted)


def import_all() -> None:
    """What a run needs, imported before any fork; no work is done, so that no thread stands in the way."""
    import torch
    import transformers  # noqa: F401
    from tqdm import tqdm
    from transformers import AutoModelForCausalLM, Trainer  # noqa: F401

    import treetune.cli.show
    import treetune.models.exactness
    import treetune.train.loop
    import treetune.workflow.path  # noqa: F401

    torch.set_num_threads(1)
    # tqdm's own lock is shared by forked processes: one killed while it holds it would stop all that come after
    tqdm.set_lock(threading.RLock())
    tqdm.monitor_interval = 0


if __name__ == "__main__":
    main()
