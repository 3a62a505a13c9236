"""Several processes that answer blocks: each holds the model, takes examples as JSON lines and gives predictions.

Nothing is pickled, and nothing but these lines goes between them. A process ends when the one that started it does.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from treetune.core.errors import RunError, TreetuneError
from treetune.core.records import Decision, Example, Prediction, PromptPart, Reason

MODULE = "treetune.workflow.answering_process"


class Processes:
    """So many processes; called by as many threads, each call is answered by a process that is free.

    Args:
        words: what all are told at their start, see `treetune.workflow.answering_process`.

    Attributes:
        scope: what every one of them loaded.

    Raises:
        RunError: E5024 one ended at its start, with what it said; E5025 they loaded different things.
    """

    def __init__(self, words: Mapping[str, Any], count: int) -> None:
        threads = max(1, len(os.sched_getaffinity(0)) // count)
        environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
        self._all: list[subprocess.Popen[str]] = []
        self._free: queue.Queue[subprocess.Popen[str]] = queue.Queue()
        try:
            for _ in range(count):
                self._all.append(subprocess.Popen(
                    [sys.executable, "-m", MODULE, json.dumps(words)], stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE, text=True, encoding="utf-8", env=environment, start_new_session=True,
                ))
            scopes = [read_reply(each)["scope"] for each in self._all]
            if any(scope != scopes[0] for scope in scopes):
                raise RunError("E5025", "the run changed while its processes loaded it", where=str(words["run"]),
                               do="give the same command again")
        except BaseException:
            self.close()
            raise
        self.scope: dict[str, str] = scopes[0]
        for each in self._all:
            self._free.put(each)

    def __call__(self, examples: Sequence[Example]) -> list[Prediction]:
        """One prediction an example, by whichever process is free."""
        process = self._free.get()
        try:
            assert process.stdin is not None
            with contextlib.suppress(OSError):  # where it is gone, reading says so
                process.stdin.write(json.dumps([asdict(each) for each in examples]) + "\n")
                process.stdin.flush()
            return [prediction_of(each) for each in read_reply(process)["predictions"]]
        finally:
            self._free.put(process)

    def close(self) -> None:
        """Let them end: nothing more comes."""
        for process in self._all:
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
        for process in self._all:
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()


def read_reply(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a process says next.

    Raises:
        RunError: E5024 it is gone. TreetuneError: what it could not do, as it said it.
    """
    assert process.stdout is not None
    line = process.stdout.readline()
    try:
        said = dict(json.loads(line))
    except ValueError as error:
        code = process.poll()
        raise RunError("E5024", "a process that answers rows is gone", where=f"pid {process.pid}",
                       found="it is still starting or stopping" if code is None else f"exit code {code}",
                       do="give the same command again: it goes on; with less memory, give fewer --processes",
                       ) from error
    if "error" in said:
        raise Told(said["error"])
    return said


class Told(TreetuneError):
    """An error of another process, said as it said it."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        super().__init__(str(said["code"]), str(said["what"]), where=str(said["where"]), found=str(said["found"]),
                         allowed=str(said["allowed"]), do=str(said["do"]))
        self.exit_code = int(said["exit_code"])


def example_of(said: Mapping[str, Any]) -> Example:
    """An example from its JSON form."""
    return Example(**{
        **said, "prompt": tuple(PromptPart(**part) for part in said["prompt"]), "answers": tuple(said["answers"]),
        "spans": tuple((int(start), int(end)) for start, end in said["spans"]),
    })


def prediction_of(said: Mapping[str, Any]) -> Prediction:
    """A prediction from its JSON form."""
    decision = said["decision"]
    return Prediction(**{
        **said, "token_log_probs": tuple(said["token_log_probs"]),
        "decision": None if decision is None else decision_of(decision),
    })


def decision_of(said: Mapping[str, Any]) -> Decision:
    """A decision from its JSON form."""
    return Decision(**{**said, "labels": tuple(said["labels"]),
                       **{name: tuple(reason_of(each) for each in said[name]) for name in ("reasons", "flags")}})


def reason_of(said: Mapping[str, Any]) -> Reason:
    """A reason from its JSON form."""
    return Reason(**{**said, "span": None if said["span"] is None else tuple(said["span"])})
