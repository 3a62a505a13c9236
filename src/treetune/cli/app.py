"""The door: verbs, exit codes, and the one place that catches whatever comes.

Exit codes: 0 done, 1 failed, 2 usage, 3 data invalid, 4 gate refused, 75 interrupted and resumable.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback

import typer

from treetune.core.allocator import start_again
from treetune.core.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, TreetuneError
from treetune.core.language import choose_language, say
from treetune.core.threads import wait_asleep

VERBS = {
    "demo": "Tune the shipped base on sample rows, measure it, answer five held-out rows, write a report.",
    "init": "Write sample rows and a config to start from.",
    "check": "Check your data: faults, duplicates, leaks, balance, lengths, and two examples as the model reads them.",
    "plan": "Say what a run will take before anything is spent: parameters, FLOPs, memory, time, energy, CO2, money.",
    "tune": "Tune a model for a task on your rows. The same command again resumes.",
    "evaluate": "Measure a run on labelled rows: tuned, untuned and baselines, each with a 95 % interval.",
    "predict": "Answer rows with a tuned run, or ask the language model itself with --next.",
    "gate": "Set a gate: which answers may be used without a person, under a stated bound on their errors.",
    "review": "Work through the answers that wait for a person; what is said becomes new calibration rows.",
    "audit-log": "Check that nobody changed the log of a run's decisions: treetune audit-log verify RUN.",
    "audit": "Find out for whom a run fails: gaps between groups, changed names, stereotype pairs, with intervals.",
    "explain": "Say why an answer is what it is, whether explanations hold here, and which training rows look wrong.",
    "pretrain": "Train a GPT-3-architecture model on text. The same command again resumes.",
    "export": "Write a run for other tools (safetensors, GGUF, CTranslate2, ONNX), proved on rows before it is done.",
    "serve": "Answer over HTTP: a page, a route a task, and OpenAI's routes; each answer with its decision.",
    "doctor": "Look at Python, packages, disk, memory and the shipped model; exit code 1 where something is wrong.",
}

TRAINING = ("demo", "pretrain", "tune")


def build_app(wanted: str | None = None) -> typer.Typer:
    """All verbs, one file each in this folder; only the file of the ``wanted`` one is imported (None: of all)."""
    app = typer.Typer(
        name="treetune", no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False,
        help="Fine-tune a language model for your task on the machine you have.",
    )

    @app.callback(invoke_without_command=True)
    def _main(version: bool = typer.Option(False, "--version", help="print the version and leave")) -> None:
        if version:
            from treetune.core.version import __version__

            print(__version__)
            raise typer.Exit()

    for verb in VERBS:
        listed = wanted is not None and verb != wanted
        run_verb = _only_listed if listed else importlib.import_module(f"treetune.cli.{verb.replace('-', '_')}").run
        app.command(name=verb, help=VERBS[verb])(run_verb)
    return app


def _only_listed() -> None:
    """Stands for a verb that is shown in the help but was not asked for."""


def start() -> None:
    """Entry point of the ``treetune`` command, which may start itself once more first."""
    if any(word in TRAINING for word in sys.argv[1:]):
        start_again()
    main()


def main() -> None:
    """What the command does."""
    wait_asleep(os.environ)
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
        wanted = next((word for word in arguments if not word.startswith("-")), "")
        result = build_app(wanted)(arguments, standalone_mode=False)
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
