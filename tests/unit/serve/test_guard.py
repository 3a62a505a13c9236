"""What stands before every route: rows 31, 33 and 35 to 39 of the promises."""

import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from treetune.serve.guard import PUBLIC

KEY = "a-key-of-forty-characters-for-the-tests!"
ROW = {"text": "The film was wonderful."}


@pytest.fixture
def locked(live: Any, made_runs: dict[str, Path]) -> Any:
    """A server that needs a key."""
    return live({"mood": made_runs["sentiment"], "qa": made_runs["question_answering"]}, key=KEY)


def routes_of(app: Any) -> list[tuple[str, str]]:
    """(method, path) of every route, with names in place of parameters."""
    return [(method, route.path) for route in app.routes for method in sorted(route.methods)]


def test_every_route_needs_the_key_but_the_public_ones(locked: Any) -> None:
    """Row 33: a route that is added without thought is closed; one that is opened changes this list."""
    assert set(PUBLIC) == {"/", "/health", "/page/{name}"}
    routes = routes_of(locked.app)
    assert len(routes) > 15
    for method, path in routes:
        concrete = re.sub(r"\{[^}]*\}", "mood", path)
        for headers in ({"authorization": ""}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {KEY}"}):
            answer = locked.http.request(method, concrete, headers=headers)
            assert (answer.status_code == 401) == (path not in PUBLIC), (method, path)
        assert locked.http.request(method, concrete).status_code != 401
    assert locked.http.get("/nowhere", headers={"authorization": ""}).status_code == 401


def test_the_key_leaks_nowhere(
    locked: Any, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Row 35."""
    said = []
    for path in ("/metrics", "/v1/runs", "/v1/models", "/v1/load", "/openapi.json", "/nowhere"):
        said.append(locked.http.get(path))
    said.append(locked.post("/v1/sentiment", {}))
    said.append(locked.post("/v1/sentiment", ROW))
    said.append(locked.http.get("/v1/runs", headers={"authorization": f"Bearer {KEY}x"}))
    for answer in said:
        assert KEY not in answer.text
        assert KEY not in str(answer.headers)
    output = capsys.readouterr()
    assert KEY not in output.out + output.err + caplog.text


@pytest.mark.parametrize("host", ["evil.org", "127.0.0.1.evil.org", "localhost.evil.org:80", "", "[::2]"])
def test_other_host_names_are_turned_away(sentiment: Any, host: str) -> None:
    """Row 36: a name that was rebound to this address."""
    answer = sentiment.post("/v1/sentiment", ROW, headers={"host": host})
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "E6010"


@pytest.mark.parametrize("origin", ["https://evil.org", "null", "http://localhost.evil.org", "http://127.0.0.1:1"])
def test_pages_of_other_sites_may_not_ask(sentiment: Any, origin: str) -> None:
    """Row 36."""
    for method in ("GET", "POST", "OPTIONS"):
        answer = sentiment.http.request(method, "/v1/sentiment", json=ROW, headers={
            "origin": origin, "access-control-request-method": "POST"})
        assert answer.status_code == 403
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_its_own_page_may_and_no_answer_has_cors(sentiment: Any) -> None:
    answer = sentiment.post("/v1/sentiment", ROW, headers={"origin": sentiment.address})
    assert answer.status_code == 200
    preflight = sentiment.http.options("/v1/sentiment", headers={"origin": sentiment.address})
    assert preflight.status_code == 405
    for each in (answer, preflight):
        assert not [name for name in each.headers if name.startswith("access-control")]


def test_every_answer_has_the_headers_of_a_careful_server(sentiment: Any) -> None:
    for path in ("/", "/page/page.js", "/health", "/v1/runs", "/nowhere"):
        headers = sentiment.http.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


@pytest.mark.parametrize("body", [
    {"text": "x" * 1_000_000}, {"rows": [ROW] * 100_000}, {"text": "x" * 3_000_000},
])
def test_oversize_requests_are_refused_at_once(sentiment: Any, body: Any) -> None:
    """Row 38: before anything is tokenized; the model's queue never sees them."""
    import json

    data = json.dumps(body).encode()
    path = "/v1/sentiment/batch" if "rows" in body else "/v1/sentiment"
    sentiment.post("/v1/sentiment", {})
    began = time.perf_counter()
    answer = sentiment.http.post(path, content=data, headers={"content-type": "application/json"})
    assert answer.status_code in (413, 422)
    assert time.perf_counter() - began < 5  # generous: the machine may be busy
    assert sentiment.desk.worker.row_seconds == 0  # nothing was answered


def test_a_body_without_a_length_is_bounded_too(sentiment: Any) -> None:
    def parts() -> Any:
        for _ in range(100):
            yield b"x" * 65536

    answer = sentiment.http.post("/v1/sentiment", content=parts(), headers={"content-type": "application/json"})
    assert answer.status_code == 413


@pytest.mark.parametrize("changes", [
    {"n": 10**9}, {"max_tokens": 10**9}, {"max_completion_tokens": 10**9}, {"temperature": 1e9}, {"temperature": 0.7},
    {"n": 2}, {"logit_bias": {}}, {"tools": []}, {"chat_template": "{% for i in range(9**9) %}x{% endfor %}"},
    {"stop": ["x"] * 1000}, {"response_format": {"type": "json_schema"}}, {"model": "../mood"}, {"model": "x" * 1000},
])
def test_fields_that_cost_or_change_answers_are_refused(sentiment: Any, changes: dict[str, Any]) -> None:
    """Row 38."""
    body = {"model": "mood", "messages": [{"role": "user", "content": "fine"}], **changes}
    answer = sentiment.post("/v1/chat/completions", body)
    assert answer.status_code in (404, 422)
    assert sentiment.desk.worker.row_seconds == 0


def test_a_huge_header_is_refused(sentiment: Any) -> None:
    answer = sentiment.http.get("/health", headers={"x-long": "x" * 65536})
    assert answer.status_code == 431


TRAVERSALS = ["../", "..", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "C:%5Cx",
              "mood%00", "..%5c..%5cx", "mood-evil", "mood/../../etc/passwd", "....//x", "%c0%ae%c0%ae/x", "page.js%00"]


@pytest.mark.parametrize("name", TRAVERSALS)
def test_no_name_leads_out(sentiment: Any, raw: Callable[[int], socket.socket], name: str, monkeypatch: Any) -> None:
    """Row 31: sent byte by byte, since a client would tidy the path; no file is opened at all."""
    import builtins

    sentiment.http.get("/")
    opened: list[str] = []
    own_open = builtins.open
    monkeypatch.setattr(builtins, "open", lambda file, *rest, **more: (opened.append(str(file)),
                                                                        own_open(file, *rest, **more))[1])
    for path in (f"/page/{name}", f"/v1/runs/{name}/report", f"/v1/models/{name}", f"/v1/reviews?run={name}"):
        connection = raw(sentiment.port)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        said = b""
        while piece := connection.recv(65536):
            said += piece
        status = int(said.split()[1])
        assert status in (400, 404, 405), (path, said[:100])
        assert b"root:" not in said
    assert not opened


def test_a_header_that_trickles_in_frees_its_place(
    live: Any, made_runs: dict[str, Path], raw: Callable[[int], socket.socket], eventually: Callable[..., bool]
) -> None:
    """Row 39: slowloris and half-open connections end by timeout, and others are answered meanwhile."""
    server = live({"mood": made_runs["sentiment"]}, header_seconds=0.5)
    silent, slow = raw(server.port), raw(server.port)
    slow.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A")
    for _ in range(3):
        time.sleep(0.1)
        slow.sendall(b"a")
        assert server.post("/v1/sentiment", ROW).status_code == 200
    assert eventually(lambda: ended(silent) and ended(slow))


def test_a_second_request_on_a_connection_has_a_clock_too(
    live: Any, made_runs: dict[str, Path], raw: Callable[[int], socket.socket], eventually: Callable[..., bool]
) -> None:
    server = live({"mood": made_runs["sentiment"]}, header_seconds=0.5)
    connection = raw(server.port)
    connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    connection.sendall(b"GET /health HT")
    assert eventually(lambda: ended(connection))


def test_a_body_that_trickles_in_frees_its_place(
    live: Any, made_runs: dict[str, Path], raw: Callable[[int], socket.socket]
) -> None:
    server = live({"mood": made_runs["sentiment"]}, body_seconds=0.4)
    connection = raw(server.port)
    connection.sendall(b"POST /v1/sentiment HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                       b"Content-Length: 1000\r\n\r\n{")
    assert connection.recv(65536).startswith(b"HTTP/1.1 408")


def ended(connection: socket.socket) -> bool:
    """Whether the other side closed it."""
    connection.settimeout(0.05)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True
