"""``treetune serve``: answer over HTTP, with a page for people and OpenAI's routes for programs."""

from __future__ import annotations

import importlib
import importlib.util
import json
from typing import Annotated, Any

import typer

from treetune.core.errors import EXIT_DONE, UsageError
from treetune.core.language import say

NEEDED = ("fastapi", "uvicorn", "prometheus_client")


def run(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="run folders, or NAME=FOLDER")],
    host: Annotated[str, typer.Option(help="address to listen at; beyond this machine only with a key")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="port; 0: any free one")] = 8000,
    api_key_file: Annotated[str, typer.Option(
        help="file with the key clients must send [default: TREETUNE_API_KEY, if set]", show_default=False)] = "",
    allowed_host: Annotated[list[str] | None, typer.Option(
        help="another name that requests may call this server by")] = None,
    record: Annotated[bool, typer.Option(
        help="under a gate: watch for drift, log every decision, queue rows for review")] = True,
    log_text: Annotated[bool, typer.Option("--log-text", help="texts in the audit log, too")] = False,
    audit_share: Annotated[float, typer.Option(min=0, max=1, help="share of the rows that a person should see "
                                               "whatever the verdict")] = 0.02,
    batch_rows: Annotated[int, typer.Option(min=1, max=256, help="rows answered in one pass")] = 32,
    queue_rows: Annotated[int, typer.Option(min=1, help="rows that may wait; more are turned away with 429")] = 256,
    max_rows: Annotated[int, typer.Option(min=1, help="rows of one request")] = 128,
    max_characters: Annotated[int, typer.Option(min=1, help="characters of one text")] = 50_000,
    max_body_bytes: Annotated[int, typer.Option(min=1024, help="bytes of one request")] = 2 << 20,
    request_timeout: Annotated[float, typer.Option(min=0.1, help="seconds until an answer")] = 60.0,
    drain_timeout: Annotated[float, typer.Option(min=0, help="seconds for requests under way after SIGTERM")] = 30.0,
    torch_threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: as many as there are cores")] = 0,
    json_output: Annotated[bool, typer.Option("--json", help="print where it listens as JSON")] = False,
) -> int:
    """Answer over HTTP: a page, a route a task, and OpenAI's routes; each answer with its decision."""
    need_packages()
    from treetune.workflow.decider import Recording

    serve = importlib.import_module("treetune.serve.start")  # by name, as a verb's own file: a neighbour of this layer
    limits = serve.Limits(batch_rows=batch_rows, queue_rows=queue_rows, rows=max_rows, characters=max_characters,
                    body_bytes=max_body_bytes, request_seconds=request_timeout, drain_seconds=drain_timeout)

    def on_ready(address: str, desk: Any) -> None:
        names = {name: each.run.task.NAME for name, each in desk.runs.served.items()}
        if json_output:
            print(json.dumps({"address": address, "runs": names}, ensure_ascii=False), flush=True)
            return
        for name, task in names.items():
            print(say("{name} answers {address}/v1/{task}", name=name, address=address, task=task))
        print(say("page: {address}/   stop with Ctrl-C", address=address), flush=True)

    serve.start(runs, host=host, port=port, api_key_file=api_key_file, allowed_hosts=allowed_host or [],
                limits=limits, recording=Recording(record, log_text, audit_share), torch_threads=torch_threads,
                on_ready=on_ready)
    return EXIT_DONE


def need_packages() -> None:
    """The server's own packages come as an extra.

    Raises:
        UsageError: E2706 one of them is missing.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError("E2706", "packages of the server are missing", found=", ".join(missing),
                         do="pip install 'treetune[serve]'")
