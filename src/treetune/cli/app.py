"""The door: verbs, exit codes, and the one place that catches whatever comes.

Exit codes: 0 done, 1 failed, 2 usage, 3 data invalid, 4 gate refused, 75 interrupted and resumable.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback

import typer

from treetune.core.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, TreetuneError
from treetune.core.language import choose_language, say

VERBS = ("demo", "init", "check", "tune", "evaluate", "predict", "pretrain", "doctor")


def build_app() -> typer.Typer:
    """All verbs, one file each in this folder."""
    app = typer.Typer(
        name="treetune", no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False,
        help="Fine-tune a language model for your task on the machine you have.",
    )

    @app.callback(invoke_without_command=True)
    def _main(version: bool = typer.Option(False, "--version", help="print the version and leave")) -> None:
        if version:
            from treetune import __version__

            print(__version__)
            raise typer.Exit()

    for verb in VERBS:
        app.command(name=verb)(importlib.import_module(f"treetune.cli.{verb}").run)
    return app


def main() -> None:
    """Entry point of the ``treetune`` command."""
    arguments, as_json, debug, language = take_common(sys.argv[1:])
    try:
        choose_language(language)
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(EXIT_USAGE)
    sys.exit(run(arguments, as_json, debug))


def take_common(arguments: list[str]) -> tuple[list[str], bool, bool, str]:
    """Flags that every verb understands: ``--lang`` and ``--debug`` are taken out, ``--json`` is only noted."""
    rest: list[str] = []
    language, debug = "", False
    words = iter(arguments)
    for word in words:
        if word == "--lang":
            language = next(words, "")
        elif word.startswith("--lang="):
            language = word.removeprefix("--lang=")
        elif word == "--debug":
            debug = True
        else:
            rest.append(word)
    return rest, "--json" in rest, debug, language


def run(arguments: list[str], as_json: bool, debug: bool) -> int:
    """Run one command and give its exit code; errors are printed, never shown as tracebacks unless asked."""
    try:
        result = build_app()(arguments, standalone_mode=False)
        return result if isinstance(result, int) else EXIT_DONE
    except TreetuneError as error:
        if debug:
            traceback.print_exc()
        print(json.dumps({"error": error.as_dict()}, ensure_ascii=False) if as_json else str(error), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(say("stopped"), file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the door: nothing leaves it as a traceback
        return unexpected(error, debug)


def unexpected(error: Exception, debug: bool) -> int:
    """A usage error of the command line itself, or something we did not foresee."""
    show = getattr(error, "show", None)
    if callable(show):
        show()
        return int(getattr(error, "exit_code", EXIT_USAGE))
    if type(error).__name__ in ("Abort", "Exit"):
        return int(getattr(error, "exit_code", EXIT_INTERRUPTED))
    if debug:
        traceback.print_exc()
    print(f"E9000: {say('something unexpected went wrong')}: {type(error).__name__}: {error}\n"
          f"  {say('do')}: {say('run again with --debug and report what it prints')}", file=sys.stderr)
    return EXIT_FAILED
