"""Life of a server: draining, disconnects, dead workers, and the command itself."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from treetune.cli.app import run
from treetune.core.errors import UsageError
from treetune.serve.listen import bind

ROW = {"text": "The film was wonderful."}


class Slowed:
    """The server's own answering, held until let go."""

    def __init__(self, live: Any) -> None:
        self.go, self.entered, self.own = threading.Event(), threading.Event(), live.desk.worker.answer
        live.desk.worker.answer = self

    def __call__(self, tickets: Sequence[Any]) -> list[dict[str, Any]]:
        self.entered.set()
        assert self.go.wait(20)
        return list(self.own(tickets))


def test_what_was_taken_in_is_answered_and_new_requests_are_told(
    sentiment: Any, eventually: Callable[..., bool]
) -> None:
    """Row 42 in the process: the first signal drains."""
    slowed = Slowed(sentiment)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(sentiment.post, "/v1/sentiment", ROW) for _ in range(8)]
        assert slowed.entered.wait(10)
        assert eventually(lambda: len(sentiment.desk.worker.waiting) + len(sentiment.desk.worker.running) == 8)
        sentiment.server.handle_exit(signal.SIGTERM, None)
        late = sentiment.post("/v1/sentiment", ROW)
        assert late.status_code == 503
        assert late.headers["retry-after"]
        assert sentiment.http.get("/ready").status_code == 503
        assert sentiment.http.get("/health").status_code == 200
        slowed.go.set()
        assert [each.result(20).status_code for each in asked] == [200] * 8
    assert eventually(lambda: not listens(sentiment.port))


def test_a_drain_that_takes_too_long_says_so_to_everyone(
    live: Any, made_runs: dict[str, Path], eventually: Callable[..., bool]
) -> None:
    server = live({"mood": made_runs["sentiment"]}, drain_seconds=0.3)
    slowed = Slowed(server)
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(server.post, "/v1/sentiment", ROW) for _ in range(2)]
        assert slowed.entered.wait(10)
        assert eventually(lambda: len(server.desk.worker.waiting) + len(server.desk.worker.running) == 2)
        server.server.handle_exit(signal.SIGTERM, None)
        for each in asked:
            answer = each.result(20)
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "E6002"
    slowed.go.set()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_overflow_is_turned_away_and_recovers(live: Any, made_runs: dict[str, Path]) -> None:
    """Row 40: everyone is answered or told to come again; nobody gets a 500."""
    server = live({"mood": made_runs["sentiment"]}, queue_rows=4)
    slowed = Slowed(server)
    with ThreadPoolExecutor(40) as pool:
        asked = [pool.submit(server.post, "/v1/sentiment", ROW) for _ in range(40)]
        assert slowed.entered.wait(10)
        while sum(each.done() for each in asked) < 40 - 4 - 4:  # at most 4 wait, and the first batch holds at most 4
            pass
        slowed.go.set()
        codes = [each.result(20).status_code for each in asked]
    assert set(codes) == {200, 429}
    assert all(each.result().headers.get("retry-after") for each in asked if each.result().status_code == 429)
    assert server.post("/v1/sentiment", ROW).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_frees_the_place_and_stops_the_generation(
    live: Any, made_runs: dict[str, Path], raw: Callable[[int], socket.socket], eventually: Callable[..., bool],
    monkeypatch: pytest.MonkeyPatch, stream: bool,
) -> None:
    """Row 41: at most one token is made after the client has gone."""
    import treetune.serve.answering as answering

    server = live({"de": made_runs["translation"]})
    tokens: list[bool] = []
    first, on = threading.Event(), threading.Event()
    own = answering.Writer.take

    def take(self: Any, token: int) -> bool:
        if not tokens:
            first.set()
            assert on.wait(10)
        tokens.append(own(self, token))
        return tokens[-1]

    monkeypatch.setattr(answering.Writer, "take", take)
    body = json.dumps({"source": "A man rides a bike.", "stream": stream}).encode()
    connection = raw(server.port)
    connection.sendall(b"POST /v1/translation HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                       b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    assert first.wait(10)
    [ticket] = server.desk.worker.running
    connection.close()
    assert eventually(lambda: ticket.gone)
    on.set()
    assert eventually(lambda: server.desk.worker.idle)
    assert tokens == [False]
    assert eventually(lambda: server.desk.measures.num_open == 0)
    monkeypatch.undo()
    assert server.post("/v1/translation", {"source": "A dog."}).status_code == 200
    assert "treetune_cancelled_rows_total 1.0" in server.http.get("/metrics").text


def test_an_answer_that_takes_too_long_ends(live: Any, made_runs: dict[str, Path]) -> None:
    server = live({"mood": made_runs["sentiment"]}, request_seconds=0.2)
    slowed = Slowed(server)
    answer = server.post("/v1/sentiment", ROW)
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "E6005"
    slowed.go.set()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_worker_is_seen_and_replaced(sentiment: Any, eventually: Callable[..., bool]) -> None:
    """Row 43."""
    own = sentiment.desk.worker.answer

    def die(tickets: Sequence[Any]) -> list[dict[str, Any]]:
        sentiment.desk.worker.answer = own
        raise SystemExit

    sentiment.desk.worker.answer = die
    restart, sentiment.desk.worker.restart = sentiment.desk.worker.restart, lambda: None
    assert sentiment.post("/v1/sentiment", ROW).status_code == 503
    assert eventually(lambda: sentiment.http.get("/health").status_code == 503)
    assert sentiment.post("/v1/sentiment", ROW).status_code == 503
    sentiment.desk.worker.restart = restart
    assert eventually(lambda: sentiment.http.get("/health").status_code == 200)
    assert sentiment.post("/v1/sentiment", ROW).status_code == 200


def test_fifty_clients_get_their_own_answers(live: Any, made_runs: dict[str, Path]) -> None:
    """Row 45: marked texts; each answer is the one its text gets alone."""
    server = live({"de": made_runs["translation"]})
    texts = [f"{number} dogs and {number * 7} cats number {number}." for number in range(12)]
    alone = {text: server.post("/v1/translation", {"source": text}).json() for text in texts}
    assert len({each["scores"]["mean_log_prob"] for each in alone.values()}) > 6  # they can be told apart
    with ThreadPoolExecutor(50) as pool:
        asked = [(text, pool.submit(server.post, "/v1/translation", {"source": text})) for text in texts * 5]
        for text, each in asked:
            answer = each.result(30).json()
            assert answer["answer"] == alone[text]["answer"]
            assert answer["scores"]["mean_log_prob"] == pytest.approx(alone[text]["scores"]["mean_log_prob"], abs=2e-5)


def test_an_address_in_use_is_said_before_anything_loads() -> None:
    taken = bind("127.0.0.1", 0)
    taken.listen()
    with taken, pytest.raises(UsageError) as caught:
        bind("127.0.0.1", taken.getsockname()[1])
    assert caught.value.code == "E2705"


@pytest.mark.parametrize(("words", "code"), [
    (["--host", "0.0.0.0"], "E2704"), (["--api-key-file", "nowhere"], "E2703"),
])
def test_the_command_refuses_to_be_open(
    made_runs: dict[str, Path], words: list[str], code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Row 34."""
    assert run(["serve", str(made_runs["sentiment"]), "--port", "0", *words], False, False) == 2
    assert capsys.readouterr().err.startswith(code)


@pytest.mark.parametrize(("words", "code"), [(["nowhere"], "E2030"), (["-=x"], "E2701"), (["a=x", "a=y"], "E2702")])
def test_runs_that_cannot_be_served_are_named(
    words: list[str], code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["serve", "--port", "0", "--", *words], False, False) == 2
    assert capsys.readouterr().err.startswith(code)


def test_the_command_serves_and_leaves_with_0(gated_run: Any, tmp_path: Path, environment: dict[str, str]) -> None:
    """Rows 34, 35 and 42 for the real process: loopback only, an audit line a decision, SIGTERM under load."""
    shutil.copytree(gated_run("accepts"), tmp_path / "run")
    log = tmp_path / "run" / "trust" / "audit_log.jsonl"
    key = "a-key-of-forty-characters-for-the-tests!"
    words = [sys.executable, "-m", "treetune", "serve", f"mood={tmp_path / 'run'}", "--port", "0", "--json",
             "--torch-threads", "1"]
    with subprocess.Popen(words, env={**environment, "TREETUNE_API_KEY": key}, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said, process.communicate()[1]
        ready = json.loads(said)
        assert listening_addresses(process.pid) == {"0100007F"}
        with httpx.Client(base_url=ready["address"], headers={"authorization": f"Bearer {key}"}, trust_env=False,
                          timeout=30) as http, ThreadPoolExecutor(4) as pool:
            assert http.get("/v1/runs", headers={"authorization": "Bearer no"}).status_code == 401
            asked = [pool.submit(http.post, "/v1/sentiment/batch", json={"rows": [ROW] * 32}) for _ in range(4)]
            while not (http.get("/v1/load").json()["running_rows"] or all(each.done() for each in asked)):
                pass
            os.kill(process.pid, signal.SIGTERM)
            codes = [each.result(30).status_code for each in asked]
        assert set(codes) <= {200, 503}
        assert codes.count(200) >= 1
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert key not in errors + log.read_text("utf-8") + " ".join(words)
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    assert len(lines) >= 32 * codes.count(200)
    assert "wonderful" not in log.read_text("utf-8")


def listening_addresses(process: int) -> set[str]:
    """Local addresses (hexadecimal) of the TCP sockets a process listens at."""
    own = {os.readlink(each) for each in Path(f"/proc/{process}/fd").iterdir() if each.is_symlink()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
            cells = line.split()
            if cells[3] == "0A" and f"socket:[{cells[9]}]" in own:
                found.add(cells[1].split(":")[0])
    return found
