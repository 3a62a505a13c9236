"""``treetune predict``: answer new rows with a run, or ask the language model itself with ``--next``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from treetune.cli.flags import parse_columns
from treetune.core.errors import UsageError
from treetune.core.language import say


def run(
    run_folder: Annotated[str | None, typer.Argument(metavar="[RUN]", help="run folder; for --next any model")] = None,
    data: Annotated[str | None, typer.Option(help="rows to answer: a file of any size, a folder, or hub:NAME")] = None,
    output: Annotated[str, typer.Option(
        help="file for the answers, one JSON object a row; -: standard output")] = "-",
    columns: Annotated[list[str] | None, typer.Option(help="name of a column in your file: text=review")] = None,
    max_refused_share: Annotated[float, typer.Option(help="rows that may be refused and left out")] = 0.0,
    processes: Annotated[int, typer.Option(min=1, help="processes that answer together, each with the model")] = 1,
    restart: Annotated[bool, typer.Option("--restart", help="begin anew instead of going on after a kill")] = False,
    block_rows: Annotated[int, typer.Option(min=1, help="rows that are answered and written at once")] = 256,
    engine: Annotated[str, typer.Option(
        help="what computes: transformers, ctranslate2:FOLDER (an export of the run), http://HOST:PORT/v1")
    ] = "transformers",
    engine_model: Annotated[str, typer.Option(help="name of the model on the server [default: its only one]",
                                              show_default=False)] = "",
    parity_rows: Annotated[int, typer.Option(
        min=0, help="with --engine: first answer so many rows with the run's own engine, too, and compare")] = 0,
    min_equal: Annotated[float, typer.Option(min=0, max=1, help="share of them that must be equal")] = 0.0,
    record: Annotated[bool, typer.Option(
        "--record/--no-record", help="under a gate: watch for drift, log decisions, queue what a person should see")
    ] = True,
    log_text: Annotated[bool, typer.Option("--log-text", help="texts in the audit log, not only digests")] = False,
    next_text: Annotated[str | None, typer.Option(
        "--next", help="show the likeliest next tokens of a text, or the words behind an encoder's masks")] = None,
    top_k: Annotated[int, typer.Option(min=1, help="how many next tokens")] = 10,
    continue_tokens: Annotated[int, typer.Option(min=0, help="with --next: continue by this many tokens")] = 0,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest token, above 0 samples")] = 0.0,
    top_p: Annotated[float, typer.Option(min=0, max=1, help="sample from this share of the probability")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="seed of sampling")] = 0,
    json_output: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> int:
    """Answer rows with a tuned run, or ask the language model itself with --next."""
    if next_text is not None:
        return show_next(run_folder or "gpt3", next_text, top_k, continue_tokens, temperature, top_p, seed, json_output)
    if run_folder is None or data is None:
        raise UsageError("E2021", "predict needs a run and rows", allowed="treetune predict RUN --data FILE",
                         do="give both, or --next TEXT")
    from treetune.cli.show_answers import AnswersWatcher, print_answers, summary_lines
    from treetune.workflow.predict import Asked, predict_file

    asked = Asked(columns=parse_columns(columns), max_refused_share=max_refused_share, record=record,
                  log_text=log_text, restart=restart, processes=processes, engine=engine, model=engine_model,
                  block_rows=block_rows, parity_rows=parity_rows, min_equal=min_equal)
    found = predict_file(run_folder, data, output, asked, AnswersWatcher(quiet=json_output),
                         print_answers if output == "-" else None)
    if output != "-":
        for line in [json.dumps(found, ensure_ascii=False)] if json_output else summary_lines(found, output):
            print(line)
    return 0


def show_next(
    model: str, text: str, top_k: int, continue_tokens: int, temperature: float, top_p: float, seed: int,
    json_output: bool,
) -> int:
    """Next tokens, probability of the text, and a continuation if asked for."""
    from treetune.models.family import language_head
    from treetune.models.load import load_model
    from treetune.predict.language import continue_text, next_tokens, score_text
    from treetune.workflow.run import open_run

    if is_run(model):
        loaded = open_run(model).loaded
        head = language_head(str(loaded.name)) if loaded.head == "causal" else loaded.head
    else:
        head = language_head(model)
        loaded = load_model(model, head=head)
    if head != "causal":
        return show_masked(loaded, text, top_k, json_output)
    likely = next_tokens(loaded, text, top_k)
    score = score_text(loaded, text)
    continuation = continue_text(loaded, text, max_new_tokens=continue_tokens, temperature=temperature, top_p=top_p,
                                 seed=seed) if continue_tokens else ""
    if json_output:
        print(json.dumps({"next": [asdict(each) for each in likely], "text": asdict(score),
                          "continuation": continuation}, ensure_ascii=False))
        return 0
    for each in likely:
        print(f"{each.probability:8.4f}  {each.token!r}")
    print(say("the text: log-probability {log_prob:.2f}, perplexity {perplexity:.2f} a token, {bits:.3f} bits a byte",
              log_prob=score.log_prob, perplexity=score.perplexity, bits=score.bits_per_byte))
    if continuation:
        print(text + continuation)
    return 0


def show_masked(loaded: Any, text: str, top_k: int, json_output: bool) -> int:
    """Words behind the masks of a text.

    Raises:
        UsageError: E2023 the model answers a task and lost its own language.
    """
    from treetune.predict.language import masked_words

    if loaded.head != "masked":
        raise UsageError("E2023", "this run answers its task only; ask its base model for words", where=loaded.name,
                         found=loaded.head, do="name the base model instead of the run")
    found = masked_words(loaded, text, top_k)
    if json_output:
        print(json.dumps({"masks": [[asdict(each) for each in words] for words in found]}, ensure_ascii=False))
        return 0
    for number, words in enumerate(found, 1):
        if len(found) > 1:
            print(say("mask {number}", number=number))
        for each in words:
            print(f"{each.probability:8.4f}  {each.token!r}")
    return 0


def is_run(name: str) -> bool:
    """Whether the name is a finished run's folder."""
    from pathlib import Path

    from treetune.core.files import RunFolder

    return RunFolder(Path(name)).is_complete()
