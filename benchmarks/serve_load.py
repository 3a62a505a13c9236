"""The claim: under load treetune's server answers more rows a second than the usual servers of the same model.

    python benchmarks/serve_load.py --model gpt2-82m --threads 2
    python benchmarks/serve_load.py --model gpt3 --threads 2
    python benchmarks/serve_load.py --model minilm --threads 2

gpt2-82m: questions of one passage arrive one after the other, ten new tokens each, by treetune, `transformers serve`
(plain and with continuous batching), a FastAPI wrapper of the same weights (one request at a time, and with dynamic
batching as LitServe does it), and CTranslate2 alone, in its own process without HTTP. gpt3 and minilm: labels of
sentences by treetune and by both wrappers, which score the labels as a careful user would (gpt3: all labels in one
padded batch; minilm: the label head).

Capacity is what a closed loop of ``--clients`` clients gets through. Then an open loop: arrivals at seeded random
times at 30, 60 and 90 % of a system's own capacity, latency counted from the planned arrival, so that a slow server
cannot slow its own test. Last, for treetune, ten times capacity: every request must get an answer or a 429, and an
answer must be quick again soon after. Each system is a process of its own on the same cores as the load's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from machine import RESULTS, conditions, facts, keep_results, table

SOURCE = Path(__file__).resolve().parents[1] / "src"
NEW_TOKENS = 10
WARM_UP_ROWS = 8
SHARES = (0.3, 0.6, 0.9)
SYSTEMS = {
    "gpt2-82m": ("treetune", "wrapper", "wrapper-batched", "transformers-serve", "transformers-serve-cb",
                 "ctranslate2"),
    "gpt3": ("treetune", "wrapper", "wrapper-batched"),
    "minilm": ("treetune", "wrapper", "wrapper-batched"),
}
SETS = {"gpt2-82m": "qa/squad_v11_dev", "gpt3": "sentiment/sst3", "minilm": "sentiment/sst3"}


# -- what is sent


@dataclass
class Job:
    """One model under one load: the files every system answers from, and the requests."""

    model: str
    run: Path
    folder: Path
    rows: list[dict[str, str]]
    prompts: list[str]
    candidates: list[str]
    threads: int


def make_job(model: str, place: Path, threads: int, data: str) -> Job:
    """A finished run, tuned by a single step (weights do not matter for the load), and real rows to ask."""
    from rows import SETS as TASKS
    from rows import examples_of, place_of
    from shapes import save_shape

    name = SETS[model] if not data else f"sample/{data}"
    task = TASKS[name]
    base = model
    if model == "gpt2-82m":
        save_shape(model, place / "base")
        base = str(place / "base")
    split = "test" if name.startswith("sample/") else "validation"
    words = [sys.executable, "-m", "treetune", "tune", "--task", task, "--model", base, "--data",
             str(place_of(name, "train")), "--validation-share", "0.01", "--output-dir",
             str(place / "run"), "--max-steps", "1", "--eval-steps", "1000", "--per-device-train-batch-size", "2",
             "--max-new-tokens", str(NEW_TOKENS), "--max-length", "384", "--torch-threads", str(threads)]
    done = subprocess.run(words, env=environment(threads), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the run for the load could not be made:\n{done.stderr[-2000:]}")
    examples, _ = examples_of(name, split)
    short = [each for each in examples if len(each.source) < 900][:600]
    columns = ("context", "question") if task == "question_answering" else ("text",)
    rows = [dict(zip(columns, (each.source, each.question), strict=False)) for each in short]
    return Job(model, place / "run", for_peers(place), rows, [each.prompt_text for each in short],
               list(short[0].candidates.values()), threads)


def for_peers(place: Path) -> Path:
    """The run's model with a tokenizer class that every peer knows; the vocabulary is the same file."""
    folder = place / "peers"
    shutil.copytree(place / "run" / "model", folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text("utf-8"))
    if settings.get("tokenizer_class", "").startswith("GPT3"):
        path.write_text(json.dumps({**settings, "tokenizer_class": "PreTrainedTokenizerFast"}), "utf-8")
    return folder


def environment(threads: int) -> dict[str, str]:
    """Of every child."""
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error",
            "PYTHONPATH": os.pathsep.join([str(SOURCE), str(Path(__file__).parent)]), "PYTHONUNBUFFERED": "1"}


# -- systems


@dataclass
class System:
    """A running server. ``ask``: (place of the row) -> HTTP status, 0 where the connection was lost."""

    name: str
    process: subprocess.Popen[str]
    client: Client
    request: Callable[[int], bytes]

    async def ask(self, place: int) -> int:
        return await self.client.send(self.request(place))

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(name: str, job: Job) -> System:
    """The system in a process of its own, ready to answer."""
    port = free_port()
    own = [sys.executable, str(Path(__file__).resolve()), "--child", name, "--folder", str(job.folder), "--port",
           str(port), "--threads", str(job.threads), "--candidates", json.dumps(job.candidates)]
    treetune = [sys.executable, "-m", "treetune", "serve", f"load={job.run}", "--port", str(port), "--torch-threads",
                str(job.threads)]
    serve = [str(Path(sys.executable).with_name("transformers")), "serve", str(job.folder), "--port", str(port),
             "--device", "cpu", *(["--continuous-batching"] if name.endswith("-cb") else [])]
    words = treetune if name == "treetune" else serve if name.startswith("transformers") else own
    log = open(job.run.parent / f"{name}.log", "w", encoding="utf-8")  # noqa: SIM115 - the child's for its life
    process = subprocess.Popen(words, env=environment(job.threads), stdout=log, stderr=subprocess.STDOUT, text=True)
    system = System(name, process, Client(port), request_of(name, job, port))
    until = time.monotonic() + 180
    while process.poll() is None and time.monotonic() < until:
        status = asyncio.run(system.ask(0))
        system.client.free.clear()  # what is kept belongs to a loop that is over
        if status == 200:
            return system
        time.sleep(0.5)
    system.stop()
    words_left = (job.run.parent / f"{name}.log").read_text("utf-8", errors="replace").strip().splitlines()[-3:]
    raise RuntimeError(" ".join(words_left)[-400:] or "did not come up")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def request_of(name: str, job: Job, port: int) -> Callable[[int], bytes]:
    """(place) -> the bytes of its request."""
    path = "/ask"
    if name == "treetune":
        path = "/v1/question_answering" if "question" in job.rows[0] else "/v1/sentiment"
    elif name.startswith("transformers"):
        path = "/v1/completions"

    def make(place: int) -> bytes:
        place %= len(job.rows)
        body: dict[str, Any] = {"prompt": job.prompts[place]}
        if name == "treetune":
            body = job.rows[place]
        elif name.startswith("transformers"):
            body |= {"model": str(job.folder), "max_tokens": NEW_TOKENS, "temperature": 0.0}
        elif job.model == "minilm":
            body = {"prompt": job.rows[place]["text"]}
        data = json.dumps(body).encode()
        return (f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(data)}\r\n\r\n").encode() + data

    return make


class Client:
    """Plain HTTP/1.1 over kept connections: as little work as possible on the cores the server needs."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def send(self, request: bytes) -> int:
        """Status of the answer; 0 where there was none."""
        kept = self.free.pop() if self.free else None
        try:
            reader, writer = kept or await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return 0
        try:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError, IndexError):
            writer.close()
            return 0 if kept is None else await self.send(request)  # a kept connection may have ended by itself
        if b"connection: close" in head:
            writer.close()
        else:
            self.free.append((reader, writer))
        return int(head.split()[1])


# -- loads


@dataclass
class Load:
    """What came of one load. Latencies of answered requests, seconds."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def quantile(self, share: float) -> float:
        kept = sorted(self.latencies)
        return kept[min(len(kept) - 1, int(len(kept) * share))] if kept else float("nan")

    def as_dict(self) -> dict[str, Any]:
        return {"answered": len(self.latencies), "a_second": round(len(self.latencies) / self.seconds, 2),
                **{f"p{int(share * 100)}": round(self.quantile(share), 4) for share in (0.5, 0.95, 0.99)},
                "statuses": {str(code): count for code, count in sorted(self.statuses.items())}}


async def closed_loop(system: System, clients: int, seconds: float) -> Load:
    """Each client asks again as soon as it is answered."""
    load, began, places = Load(), time.perf_counter(), iter(range(10**9))

    async def client() -> None:
        while (asked := time.perf_counter()) < began + seconds:
            note(load, await system.ask(next(places)), time.perf_counter() - asked)

    await asyncio.gather(*(client() for _ in range(clients)))
    load.seconds = time.perf_counter() - began
    return load


async def open_loop(system: System, a_second: float, seconds: float, seed: int) -> Load:
    """Arrivals at random times, whatever the server does; latency from the planned time on."""
    load, chance, planned = Load(), random.Random(seed), list[float]()
    while (last := (planned[-1] if planned else 0.0) + chance.expovariate(a_second)) < seconds:
        planned.append(last)
    began = time.perf_counter()

    async def one(place: int, due: float) -> None:
        note(load, await system.ask(place), time.perf_counter() - began - due)

    tasks = []
    for place, due in enumerate(planned):
        await asyncio.sleep(max(0.0, due - (time.perf_counter() - began)))
        tasks.append(asyncio.ensure_future(one(place + 7 * seed, due)))
    await asyncio.gather(*tasks)
    load.seconds = time.perf_counter() - began
    return load


def note(load: Load, status: int, seconds: float) -> None:
    load.statuses[status] += 1
    if status == 200:
        load.latencies.append(seconds)


async def overload(system: System, capacity: float, calm: float, seconds: float) -> dict[str, Any]:
    """Ten times capacity, then: how long until an answer is as quick again as ``calm`` twice over."""
    load = await open_loop(system, 10 * capacity, seconds, 4)
    ended = time.perf_counter()
    recovered = None
    while recovered is None and time.perf_counter() - ended < 60:
        asked = time.perf_counter()
        if await system.ask(0) == 200 and time.perf_counter() - asked <= 2 * calm:
            recovered = round(time.perf_counter() - ended, 2)
        await asyncio.sleep(0.05)
    lost = sum(count for code, count in load.statuses.items() if code not in (200, 429, 503))
    return {**load.as_dict(), "sent": sum(load.statuses.values()), "lost": lost, "recovered_after": recovered}


async def measure(system: System, arguments: argparse.Namespace) -> dict[str, Any]:
    """Capacity, the three loads, and for treetune the overload."""
    for place in range(WARM_UP_ROWS):
        await system.ask(place)
    await closed_loop(system, arguments.clients, min(2.0, arguments.seconds))
    capacity = await closed_loop(system, arguments.clients, arguments.seconds)
    record: dict[str, Any] = {"capacity": capacity.as_dict(), "loads": {}}
    pace = max(0.2, len(capacity.latencies) / capacity.seconds)
    for seed, share in enumerate(SHARES, 1):
        record["loads"][str(share)] = (await open_loop(system, share * pace, arguments.seconds, seed)).as_dict()
    if system.name == "treetune":
        calm = record["loads"][str(SHARES[0])]["p95"]
        record["overload"] = await overload(system, pace, calm, min(5.0, arguments.seconds))
    record["resident_mib"] = resident_mib(system.process.pid)
    return record


def resident_mib(process: int) -> float:
    """Memory in use, MiB; nan where the kernel does not say."""
    status = Path(f"/proc/{process}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")), float("nan"))


# -- the other side: peers in a process of their own


def serve_peer(name: str, folder: str, port: int, threads: int, candidates: list[str]) -> None:
    """A FastAPI wrapper as its user would write it; ``ctranslate2``: the bare library behind one line of text."""
    import torch
    import uvicorn
    from fastapi import FastAPI, Request

    torch.set_num_threads(threads)
    answer = make_answer(name, folder, threads, candidates)
    app = FastAPI()
    waiting: asyncio.Queue[tuple[str, asyncio.Future[Any]]] = asyncio.Queue()
    batch = 1 if name == "wrapper" else 32

    async def work() -> None:
        while True:
            taken = [await waiting.get()]
            while len(taken) < batch and not waiting.empty():
                taken.append(waiting.get_nowait())
            found = await asyncio.to_thread(answer, [prompt for prompt, _ in taken])
            for (_, future), each in zip(taken, found, strict=True):
                future.set_result(each)

    async def ask(request: Request) -> dict[str, Any]:
        future = asyncio.get_running_loop().create_future()
        await waiting.put(((await request.json())["prompt"], future))
        return {"answer": await future}

    # annotations are text in this file, and FastAPI would look Request up among the names of the module
    ask.__annotations__ = {"request": Request}
    app.post("/ask")(ask)
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", access_log=False, loop="asyncio")
    server = uvicorn.Server(config)

    async def run() -> None:
        working = asyncio.ensure_future(work())
        await server.serve()
        working.cancel()

    asyncio.run(run())


def make_answer(name: str, folder: str, threads: int, candidates: list[str]) -> Callable[[list[str]], list[str]]:
    """(prompts) -> answers, by the peer's own library."""
    if name == "ctranslate2":
        return ctranslate2_answer(folder, threads)
    head = json.loads((Path(folder) / "treetune.json").read_text("utf-8")).get("head", "causal")
    if head == "classes":
        return classes_answer(folder)
    return label_answer(folder, candidates) if candidates else generate_answer(folder)


def generate_answer(folder: str) -> Callable[[list[str]], list[str]]:
    """Greedy `generate` over a batch padded on the left."""
    model, tokenizer = loaded(folder)

    def answer(prompts: list[str]) -> list[str]:
        given = tokenizer(prompts, return_tensors="pt", padding=True, truncation=True, max_length=374)
        output = model.generate(**given, max_new_tokens=NEW_TOKENS, do_sample=False,
                                pad_token_id=tokenizer.eos_token_id)
        return list(tokenizer.batch_decode(output[:, given["input_ids"].shape[1] :]))

    return answer


def label_answer(folder: str, candidates: list[str]) -> Callable[[list[str]], list[str]]:
    """Every label behind every prompt in one padded batch, and the likeliest."""
    import torch

    model, tokenizer = loaded(folder)
    tokenizer.padding_side = "right"

    @torch.no_grad()
    def answer(prompts: list[str]) -> list[str]:
        starts = [len(tokenizer(prompt)["input_ids"]) for prompt in prompts]
        texts = [prompt + label + tokenizer.eos_token for prompt in prompts for label in candidates]
        given = tokenizer(texts, return_tensors="pt", padding=True)
        logits = model(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).logits
        logs = logits[:, :-1].log_softmax(-1).gather(-1, given["input_ids"][:, 1:, None])[..., 0]
        mask = given["attention_mask"][:, 1:].clone()
        for row in range(len(texts)):
            mask[row, : starts[row // len(candidates)] - 1] = 0
        best = (logs * mask).sum(1).reshape(len(prompts), -1).argmax(1)
        return [candidates[place] for place in best.tolist()]

    return answer


def classes_answer(folder: str) -> Callable[[list[str]], list[str]]:
    """The label head over a padded batch."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()

    @torch.no_grad()
    def answer(prompts: list[str]) -> list[str]:
        given = tokenizer(prompts, return_tensors="pt", padding=True, truncation=True, max_length=384)
        return [model.config.id2label[place] for place in model(**given).logits.argmax(1).tolist()]

    return answer


def loaded(folder: str) -> tuple[Any, Any]:
    """Model and tokenizer; padding on the left, for generation."""
    from treetune.models.load import load_model

    found = load_model(folder)  # registers the shipped base's kind; else plain transformers
    found.tokenizer.padding_side = "left"
    found.tokenizer.pad_token = found.tokenizer.pad_token or found.tokenizer.eos_token
    return found.model.eval(), found.tokenizer


def ctranslate2_answer(folder: str, threads: int) -> Callable[[list[str]], list[str]]:
    """int8, its own batching."""
    import ctranslate2
    from transformers import AutoConfig, AutoTokenizer

    from treetune.models.export.ctranslate2 import name_all_ids

    with tempfile.TemporaryDirectory() as place:
        converted, named = str(Path(place) / "ct2"), Path(place) / "named"
        shutil.copytree(folder, named)
        name_all_ids(named, AutoConfig.from_pretrained(folder).vocab_size)
        ctranslate2.converters.TransformersConverter(str(named)).convert(converted, quantization="int8")
        generator = ctranslate2.Generator(converted, device="cpu", intra_threads=threads, inter_threads=1)
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def answer(prompts: list[str]) -> list[str]:
        tokens = [tokenizer.convert_ids_to_tokens(tokenizer(prompt)["input_ids"][:374]) for prompt in prompts]
        found = generator.generate_batch(tokens, max_length=NEW_TOKENS, sampling_topk=1, beam_size=1,
                                         include_prompt_in_result=False)
        return [tokenizer.decode(each.sequences_ids[0]) for each in found]

    return answer


# -- the report


def report(records: dict[str, Any], arguments: argparse.Namespace, machine: dict[str, Any]) -> str:
    """Tables of capacity and latencies."""
    head = ["system", "capacity, rows/s", *(f"{int(share * 100)} %: p50 / p95 / p99, ms" for share in SHARES), "MiB"]
    lines = []
    for name, found in records.items():
        if "error" in found:
            lines.append([name, f"failed: {found['error'][:120]}", *[""] * (len(head) - 2)])
            continue
        loads = [" / ".join(f"{found['loads'][str(share)][part] * 1000:.0f}" for part in ("p50", "p95", "p99"))
                 for share in SHARES]
        lines.append([name, f"{found['capacity']['a_second']:.1f}", *loads, f"{found['resident_mib']:.0f}"])
    text = f"## {arguments.model}\n\n" + table(head, lines)
    if over := records.get("treetune", {}).get("overload"):
        text += (f"\n\nTen times capacity: {over['sent']} requests sent, statuses {over['statuses']}, "
                 f"{over['lost']} without an answer; quick again after {over['recovered_after']} s.")
    return text + f"\n\n{conditions(machine)}; {arguments.clients} clients, {arguments.seconds:g} s a load\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(SYSTEMS), default="gpt2-82m")
    parser.add_argument("--systems", nargs="+", default=[])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=12.0, help="of each load")
    parser.add_argument("--data", default="", help="sentiment or question_answering: the packaged rows, for a try")
    parser.add_argument("--results", default=str(RESULTS))
    for hidden in ("--child", "--folder", "--candidates"):
        parser.add_argument(hidden, default="", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        serve_peer(arguments.child, arguments.folder, arguments.port, arguments.threads,
                   json.loads(arguments.candidates))
        return
    machine = facts(arguments.threads)
    with tempfile.TemporaryDirectory() as place:
        from rows import is_there

        if not arguments.data and not is_there(SETS[arguments.model]):
            return
        job = make_job(arguments.model, Path(place), arguments.threads, arguments.data)
        records = measure_all(arguments.systems or SYSTEMS[arguments.model], job, arguments)
    text = report(records, arguments, machine)
    print(text)
    section = {"command": f"python {' '.join(sys.argv)}", "machine": machine, "records": records, "text": text}
    keep_results("serve_load", {arguments.model: section}, page_of, Path(arguments.results))


def page_of(sections: dict[str, Any]) -> str:
    """All models measured so far."""
    return "# Load on the server\n\n" + "\n".join(
        f"    {each['command']}\n\n{each['text']}" for each in sections.values())


def measure_all(systems: Sequence[str], job: Job, arguments: argparse.Namespace) -> dict[str, Any]:
    """One system after the other; one that does not come up is said to."""
    records: dict[str, Any] = {}
    for name in systems:
        print(f"{name} …", flush=True)
        try:
            system = start(name, job)
        except RuntimeError as error:
            records[name] = {"error": str(error)}
            print(f"  failed: {error}", flush=True)
            continue
        try:
            records[name] = asyncio.run(measure(system, arguments))
        finally:
            system.stop()
        print(f"  {records[name]['capacity']['a_second']} rows/s", flush=True)
    return records


if __name__ == "__main__":
    main()
