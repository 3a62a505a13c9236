"""The OpenAPI schema, and whatever schemathesis makes of it: never a 500."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

schemathesis = pytest.importorskip("schemathesis")
GenerationMode = schemathesis.GenerationMode


def test_the_schema_names_every_route_and_is_not_loaded_from_elsewhere(sentiment: Any) -> None:
    schema = sentiment.http.get("/openapi.json").json()
    paths = {route.path for route in sentiment.app.routes} - {"/", "/page/{name}", "/openapi.json"}
    assert set(schema["paths"]) == paths
    assert sentiment.http.get("/docs").status_code == 404
    assert "http" not in sentiment.http.get("/").text.replace("http-equiv", "")


@pytest.mark.parametrize(("tasks", "examples"), [
    (("question_answering",), 2),
    pytest.param(("sentiment", "question_answering", "translation"), 40, marks=pytest.mark.slow),
])
def test_nothing_schemathesis_makes_ends_in_a_500(
    live: Any, made_runs: dict[str, Path], tasks: tuple[str, ...], examples: int
) -> None:
    server = live({task: made_runs[task] for task in tasks})
    schema = schemathesis.openapi.from_url(f"{server.address}/openapi.json")
    tried: dict[str, int] = {}
    operations = [each.ok() for each in schema.get_all_operations()]
    for operation in operations:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            asking(operation, mode, examples, server, tried)()
    assert len(tried) == len({each.path for each in operations})
    assert sum(tried.values()) > 20
    row = {"context": "Paris is here.", "question": "What is here?"}
    assert server.post("/v1/question_answering", row).status_code == 200
    assert "treetune_faults_total 0.0" in server.http.get("/metrics").text


def asking(operation: Any, mode: Any, examples: int, server: Any, tried: dict[str, int]) -> Callable[[], None]:
    """A property: whatever fits the schema (or just does not) is answered without a 500."""
    try:
        strategy = operation.as_strategy(generation_mode=mode)
    except schemathesis.errors.SchemathesisError:
        return lambda: None

    @given(case=strategy)
    @settings(max_examples=examples, deadline=None, database=None, derandomize=True,
              suppress_health_check=list(HealthCheck))
    def ask(case: Any) -> None:
        try:
            answer = server.http.request(**request_of(case, server.address))
        except (httpx.InvalidURL, UnicodeEncodeError, httpx.LocalProtocolError):  # the client will not send that
            return
        tried[operation.path] = tried.get(operation.path, 0) + 1
        assert answer.status_code < 500, (answer.status_code, answer.text, case)

    def run() -> None:
        with suppress(Unsatisfiable):  # nothing that does not fit can be made of a route without parameters
            ask()

    return run


def request_of(case: Any, base: str) -> dict[str, Any]:
    """What schemathesis would send, for our client."""
    made = case.as_transport_kwargs(base_url=base)
    return {name: made[name] for name in ("method", "url", "params", "json", "headers") if made.get(name) is not None}
