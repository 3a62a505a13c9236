"""A network link that is cut between two machines: named by both, waited for by none, and the run is finished later.

The machines are two network namespaces of this one with a name and a pair of joined devices each; the run folder is
theirs together. Needs root, `ip` and `unshare`.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from treetune.cli.app import run as run_command
from treetune.train.checkpoint import problem_of, steps_on_disk
from treetune.workflow.log import read_events
from treetune.workflow.run import open_run

Words = Callable[..., list[str]]
ADDRESSES = {"a": "10.77.0.1", "b": "10.77.0.2"}
DEVICE = "link0"
NOBODY = "02:00:00:00:00:99"  # a hardware address that no device has
TIMEOUT = 15  # seconds a process waits for another
PATIENCE = 240.0  # seconds after which this test gives up
STEPS = 120
WEIGHT_TOLERANCE = 1e-3  # of all weights together: AdamW divides noise around zero by its own size


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@dataclass
class Machines:
    """Two of them, joined by one link. ``names``: a or b -> network namespace."""

    folder: Path
    names: dict[str, str]
    agents: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def start(self, words: list[str], meet_at: str) -> None:
        """torchrun on both, as the Slurm recipe starts it; they meet at machine ``meet_at``."""
        for one, name in self.names.items():
            inside = f"hostname node-{one} && mount --bind {self.folder / 'hosts'} /etc/hosts && exec \"$@\""
            command = [
                "ip", "netns", "exec", name, "unshare", "--uts", "sh", "-c", inside, "sh",
                sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1",
                "--max-restarts", "3", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"{ADDRESSES[meet_at]}:29500",
                "--rdzv-id", "7", "-m", "treetune", "--lang", "en", *words]
            environment = {**os.environ, "GLOO_SOCKET_IFNAME": DEVICE, "TREETUNE_TIMEOUT": str(TIMEOUT),
                           "OMP_NUM_THREADS": "1"}
            with open(self.folder / f"said-{one}.txt", "ab") as log:
                self.agents[one] = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def said(self, one: str) -> str:
        return (self.folder / f"said-{one}.txt").read_text("utf-8", errors="replace")

    def wait_until(self, ready: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE
        while not ready():
            assert time.monotonic() < until, self.said("a")[-3000:] + "\n---\n" + self.said("b")[-3000:]
            time.sleep(0.1)

    def ended(self) -> bool:
        return all(agent.poll() is not None for agent in self.agents.values())

    def cut(self, how: str) -> None:
        """``down``: one end is switched off. ``silent``: both are up, and what is sent reaches nobody."""
        if how == "down":
            ip("-n", self.names["b"], "link", "set", DEVICE, "down")
            return
        for one, other in ("ab", "ba"):
            ip("-n", self.names[one], "neigh", "replace", ADDRESSES[other], "lladdr", NOBODY, "nud", "permanent", "dev",
               DEVICE)

    def mend(self, how: str) -> None:
        """Undo `cut`."""
        if how == "down":
            ip("-n", self.names["b"], "link", "set", DEVICE, "up")
            return
        for one, other in ("ab", "ba"):
            ip("-n", self.names[one], "neigh", "del", ADDRESSES[other], "dev", DEVICE)

    def kill(self) -> None:
        """End everything that runs on the machines, as a batch system does in the end."""
        for name in self.names.values():
            found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False).stdout
            for number in found.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(number), signal.SIGKILL)
        for agent in self.agents.values():
            agent.wait()


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if missing := [name for name in ("ip", "unshare", "mount") if not shutil.which(name)]:
        pytest.skip(f"network namespaces need {', '.join(missing)}")
    folder = tmp_path / "machines"
    folder.mkdir()
    (folder / "hosts").write_text("127.0.0.1 localhost\n" + "".join(
        f"{address} node-{one}\n" for one, address in ADDRESSES.items()))
    made = Machines(folder, {one: f"treetune-{os.getpid()}-{one}" for one in ADDRESSES})
    try:
        try:
            for name in made.names.values():
                ip("netns", "add", name)
            ip("link", "add", DEVICE, "netns", made.names["a"], "type", "veth", "peer", "name", DEVICE, "netns",
               made.names["b"])
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces or veth devices here: {error.stderr.strip()}")
        for one, name in made.names.items():
            ip("-n", name, "addr", "add", f"{ADDRESSES[one]}/24", "dev", DEVICE)
            for device in ("lo", DEVICE):
                ip("-n", name, "link", "set", device, "up")
        yield made
    finally:
        made.kill()
        for name in made.names.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@pytest.fixture(scope="module")
def plan() -> dict[str, Any]:
    return {"max_steps": STEPS, "save_steps": 5, "eval_steps": 60}


@pytest.fixture(scope="module")
def uncut(tune_words: Words, tmp_path_factory: pytest.TempPathFactory, plan: dict[str, Any]) -> Path:
    run = tmp_path_factory.mktemp("uncut") / "run"
    assert run_command(tune_words("sentiment", run, **plan), False, False) == 0
    return run


def losses(run: Path) -> list[tuple[int, float]]:
    return [(event["step"], event["loss"]) for event in read_events(run / "metrics.jsonl") if event["event"] == "step"]


def cut_and_noticed(machines: Machines, run: Path, words: list[str], how: str, meet_at: str) -> None:
    """Cut the link in the middle of a run; both must say so and leave, and nobody goes on alone."""
    machines.start(words, meet_at)
    machines.wait_until(lambda: len(losses(run)) > 7 or machines.ended())
    assert len(losses(run)) < STEPS
    machines.cut(how)
    machines.wait_until(lambda: all("\nE4006: a process of the run is gone or does not answer" in machines.said(one)
                                    for one in ADDRESSES))
    assert "where: process 1 of 2, seen from process 0 on node-a" in machines.said("a")
    assert "seen from process 1 on node-b" in machines.said("b")
    assert "nor does node-a answer" in machines.said("b")  # where the processes meet: with the lead
    machines.wait_until(lambda: not (run / ".lock").exists())
    before = losses(run)
    time.sleep(5)
    assert losses(run) == before
    assert not (run / ".lock").exists()
    assert all(problem_of(path) == "" for _, path in steps_on_disk(run / "checkpoints"))


def finished_like(uncut: Path, run: Path) -> None:
    """Every step once, the losses of the run that was not cut, and a model that can be used."""
    assert [step for step, _ in losses(run)] == list(range(1, STEPS + 1))
    assert [loss for _, loss in losses(run)] == pytest.approx([loss for _, loss in losses(uncut)], rel=1e-5)
    assert open_run(run).facts["steps"] == STEPS
    left, right = (load_file(place / "model" / "model.safetensors") for place in (uncut, run))
    assert left.keys() == right.keys()
    gap = sum(float((weight - right[name]).double().norm()) ** 2 for name, weight in left.items()) ** 0.5
    assert gap <= WEIGHT_TOLERANCE * sum(float(weight.double().norm()) ** 2 for weight in left.values()) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("how", "meet_at"), [("down", "a"), ("silent", "b")])
def test_a_link_that_is_cut_is_named_by_both_and_the_run_goes_on_when_it_is_back(
    how: str, meet_at: str, machines: Machines, tune_words: Words, tmp_path: Path, plan: dict[str, Any], uncut: Path
) -> None:
    run = tmp_path / "run"
    cut_and_noticed(machines, run, tune_words("sentiment", run, **plan), how, meet_at)
    machines.mend(how)
    machines.wait_until(machines.ended)
    assert [agent.returncode for agent in machines.agents.values()] == [0, 0]
    finished_like(uncut, run)


@pytest.mark.slow
def test_a_run_whose_link_stays_cut_is_finished_by_the_same_command(
    machines: Machines, tune_words: Words, tmp_path: Path, plan: dict[str, Any], uncut: Path
) -> None:
    run = tmp_path / "run"
    words = tune_words("sentiment", run, **plan)
    cut_and_noticed(machines, run, words, "silent", "a")
    machines.kill()  # torchrun's agents themselves wait for the link
    machines.mend("silent")
    machines.start(words, "a")
    machines.wait_until(machines.ended)
    assert [agent.returncode for agent in machines.agents.values()] == [0, 0]
    finished_like(uncut, run)
