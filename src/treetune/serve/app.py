"""The application: the routes of every task, OpenAI's, the page's, behind the guard."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from treetune.core.errors import TreetuneError, UsageError
from treetune.core.language import language
from treetune.core.version import __version__
from treetune.serve.access import Keys
from treetune.serve.answering import to_json
from treetune.serve.bodies import Explain, Settle, ask_body, batch_body
from treetune.serve.desk import Desk
from treetune.serve.guard import Guard
from treetune.serve.openai_routes import add_openai_routes
from treetune.serve.page_files import page_files
from treetune.serve.refused import Refused, as_refused, error_body
from treetune.serve.runs import asked_columns, facts_of
from treetune.tasks.contract import Task

REPORT_POLICY = ("default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
                 "frame-ancestors 'none'; sandbox")
ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"description": text} for code, text in (
        (400, "not JSON"), (401, "key missing or wrong"), (403, "host or origin not allowed"),
        (404, "no such run or row"), (408, "arrived too slowly"), (413, "too large"),
        (422, "a field or a row that cannot be used"), (429, "full: see Retry-After"),
        (503, "stopping, or cannot answer now"), (504, "took too long"))
}


class Unescaped(JSONResponse):
    """JSON with its characters as they are."""

    def render(self, content: Any) -> bytes:
        return to_json(content).encode()


def build_app(desk: Desk, names: frozenset[str], keys: Keys) -> tuple[FastAPI, Guard]:
    """The routes, and the guard that is to be called in their place."""
    app = FastAPI(title="treetune", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False,
                  default_response_class=Unescaped, responses=ERRORS,
                  description="Answers of tuned models, each with its decision, reasons and guarantee.")
    add_error_handlers(app)
    for name in dict.fromkeys(each.run.task.NAME for each in desk.runs.served.values()):
        task = next(each.run.task for each in desk.runs.served.values() if name == each.run.task.NAME)
        add_task_routes(app, desk, task)
    add_openai_routes(app, desk)
    add_run_routes(app, desk, keys)
    add_review_routes(app, desk)
    guard = Guard(app, names, keys, desk.limits, desk.measures)
    add_state_routes(app, desk, guard)
    return app, guard


def add_error_handlers(app: FastAPI) -> None:
    """Every refusal in one shape, without what was sent and without tracebacks."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        return Unescaped(error.body(), error.status, headers=error.headers)

    async def coded(request: Request, error: Exception) -> Response:
        assert isinstance(error, TreetuneError)
        return await refused(request, as_refused(error))

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"][1:])[:200]
        fault = UsageError("E6006", "a field of the request cannot be used", where=param, found=str(first["msg"])[:200])
        return Unescaped(error_body(422, fault, param), 422)

    async def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        fault = UsageError("E6007", "this server has no such route, or not with this method") if error.status_code in (
            404, 405) else UsageError("E6006", "a field of the request cannot be used", found=str(error.detail)[:200])
        return Unescaped(error_body(error.status_code, fault), error.status_code, headers=dict(error.headers or {}))

    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(TreetuneError, coded)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, of_http)


def add_task_routes(app: FastAPI, desk: Desk, task: Task) -> None:
    """``/v1/<task>`` and ``/v1/<task>/batch``."""
    one, many = ask_body(task, desk.limits), batch_body(task, desk.limits)
    columns = [name for name in one.model_fields if name not in ("run", "stream")]

    async def ask(request: Request, body: Any) -> Response:
        served = desk.served(task.NAME, body.run)
        row = {name: getattr(body, name) for name in columns}
        if body.stream:
            return await stream(desk, served, row)
        answers = await desk.ask([desk.ticket(served, row)], request.receive)
        return Unescaped(answers[0])

    async def ask_many(request: Request, body: Any) -> Response:
        served = desk.served(task.NAME, body.run)
        rows = [{name: getattr(each, name) for name in columns} for each in body.rows]
        answers = await desk.ask(desk.tickets(served, rows), request.receive)
        return Unescaped({"answers": answers})

    for path, handler, body in ((f"/v1/{task.NAME}", ask, one), (f"/v1/{task.NAME}/batch", ask_many, many)):
        _typed(handler, body)
        app.post(path, name=f"{task.NAME} {handler.__name__}", summary=f"{task.NAME}: {handler.__name__}")(handler)


def _typed(handler: Callable[..., Any], body: type[BaseModel]) -> None:
    """FastAPI reads the schema off the annotation; this one is made while the server starts."""
    handler.__annotations__ |= {"body": body, "request": Request, "return": None}


async def stream(desk: Desk, served: Any, row: dict[str, Any]) -> Response:
    """Server-sent events ``text`` and ``answer``; ``error`` where it ends early."""
    pieces = await desk.watch(lambda on_text: desk.ticket(served, row, on_text=on_text))

    async def events() -> AsyncIterator[str]:
        try:
            async for piece in pieces:
                if piece is None:
                    yield ": still working\n\n"
                elif isinstance(piece, str):
                    yield event("text", {"text": piece})
                else:
                    yield event("answer", piece)
        except Refused as refusal:
            yield event("error", refusal.body())
        except TreetuneError as error:
            yield event("error", as_refused(error).body())

    return StreamingResponse(events(), media_type="text/event-stream")


def event(name: str, data: Any) -> str:
    """One server-sent event."""
    return f"event: {name}\ndata: {to_json(data)}\n\n"


def add_run_routes(app: FastAPI, desk: Desk, keys: Keys) -> None:
    """What is served, and the report of each run."""

    @app.get("/v1/runs")
    async def runs() -> Response:
        return Unescaped({"runs": [facts_of(each) for each in desk.runs.served.values()], "language": language(),
                          "stale": desk.runs.stale})

    @app.post("/v1/explain")
    async def explain(request: Request, body: Explain) -> Response:
        """Which words speak for the answer to a row, and which against it."""
        served = desk.runs.find(body.run)
        if served is None:
            raise Refused(404, UsageError("E6003", "no run of that name does this task here"), param="run")
        known = {column.name for column in asked_columns(served.run.task)}
        row = {name: text for name, text in body.row.items() if name in known}
        return Unescaped((await desk.ask([desk.ticket(served, row, explain=True)], request.receive))[0])

    def report_of(name: str) -> Any:
        served = desk.runs.find(name)
        if served is None or not served.run.folder.report.is_file():
            raise Refused(404, UsageError("E6003", "no run of that name does this task here"), param="name")
        return served.run.folder.report

    @app.post("/v1/runs/{name}/report-link")
    async def report_link(name: str) -> Response:
        """A link to the report that a browser can open: good for a minute."""
        report_of(name)
        path = f"/v1/runs/{name}/report"
        return Unescaped({"url": f"{path}?ticket={keys.ticket(path)}"})

    @app.get("/v1/runs/{name}/report", response_class=HTMLResponse)
    async def report(name: str) -> Response:
        """The run's report; shown in a sandbox, without scripts."""
        text = report_of(name).read_text(encoding="utf-8")
        return HTMLResponse(text, headers={  # a browser shows nothing that is in a sandbox and has an opener policy
            "content-security-policy": REPORT_POLICY, "cross-origin-opener-policy": "unsafe-none"})


def add_review_routes(app: FastAPI, desk: Desk) -> None:
    """Rows that wait for a person."""

    def named(name: str) -> Any:
        served = desk.runs.find(name)
        if served is None:
            raise Refused(404, UsageError("E6003", "no run of that name does this task here"), param="run")
        return served

    @app.get("/v1/reviews")
    async def reviews(run: str = Query(max_length=64), limit: int = Query(20, ge=0, le=100)) -> Response:
        """Rows that wait, the random sample first, and how many were settled."""
        return Unescaped(await desk.reviews(named(run), limit))

    @app.post("/v1/reviews/{identity}")
    async def settle(identity: str, body: Settle) -> Response:
        """Confirm the proposal, or give the right answer."""
        right = body.answer if body.verdict == "correct" else None
        return Unescaped(await desk.settle(named(body.run), identity, right))


def add_state_routes(app: FastAPI, desk: Desk, guard: Guard) -> None:
    """Life, load, counters, and the page."""

    @app.get("/health")
    async def health() -> Response:
        """Whether the worker lives."""
        alive = desk.worker.alive
        return Unescaped({"status": "ok" if alive else "the worker is dead"}, 200 if alive else 503)

    @app.get("/ready")
    async def ready() -> Response:
        """Whether new requests are taken."""
        fine = desk.worker.alive and not guard.draining
        return Unescaped({"status": "ready" if fine else "not taking requests"}, 200 if fine else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Prometheus' text format."""
        return Response(desk.measures.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/load")
    async def load() -> Response:
        """How busy the server is."""
        worker = desk.worker
        return Unescaped({
            "waiting_rows": len(worker.waiting), "queue_rows": worker.queue_rows,
            "running_rows": len(worker.running), "open_requests": desk.measures.num_open,
            "seconds_per_row": round(worker.row_seconds, 5), "latency": desk.measures.latencies(),
        })

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return file("index.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def file_of_page(name: str) -> Response:
        return file(name)

    def file(name: str) -> Response:
        found = page_files().get(name)  # a table of files read at the start: no path is ever made of a name
        if found is None:
            raise HTTPException(404)
        return Response(found.content, media_type=found.kind)
