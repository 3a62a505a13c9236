"""Which engine answers for a run: by name, with what a gate must be bound to, and compared with the run's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treetune.core.errors import RunError, UsageError
from treetune.core.files import model_digest
from treetune.core.language import say
from treetune.core.records import Decision, Example, Prediction, Reason
from treetune.workflow.evidence import WithEvidence, scope_now
from treetune.workflow.run import Run, decoding_of, open_run
from treetune.workflow.scope import ENGINE

if TYPE_CHECKING:
    from treetune.predict.engines.contract import Engine

CTRANSLATE2 = "ctranslate2:"
HTTP = ("http://", "https://")
MOST_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Opened:
    """A run ready to answer. ``scope``: what it and its engine are, see `treetune.workflow.scope`."""

    run: Run
    engine: Engine
    scope: dict[str, str]


def check_name(name: str) -> None:
    """Before anything is loaded.

    Raises:
        UsageError: E2040 no engine goes by this name.
    """
    if name not in ("", ENGINE) and not name.startswith((CTRANSLATE2, *HTTP)):
        raise UsageError("E2040", "no engine goes by this name", where="--engine", found=name,
                         allowed=f"{ENGINE}, {CTRANSLATE2}FOLDER, http://HOST:PORT/v1", do="name one of these")


def engine_for(run: Run, name: str = "", model: str = "") -> Engine:
    """The engine of that name for a run whose model is loaded.

    Args:
        name: "" or ``transformers``; ``ctranslate2:FOLDER`` with an export of the run; an address up to ``/v1``.
        model: the name of the model on a server.

    Raises:
        UsageError: E2040, and what `treetune.predict.engines` raises.
    """
    check_name(name)
    decoding = decoding_of(run)
    if name.startswith(CTRANSLATE2):
        from treetune.predict.engines.ctranslate2 import CTranslate2Engine

        return CTranslate2Engine(Path(name.removeprefix(CTRANSLATE2)), model_digest(run.folder.model),
                                 run.loaded.tokenizer, run.task, decoding)
    if name.startswith(HTTP):
        from treetune.predict.engines.openai_http import HttpEngine

        return HttpEngine(name, model, run.loaded.tokenizer, run.task, run.options, decoding)
    from treetune.predict.engines.transformers import TransformersEngine

    return TransformersEngine(run.loaded, run.task, decoding)


def open_engine(path: str | Path, name: str = "", model: str = "") -> Opened:
    """A run and its engine; where another engine answers, the run's own model is looked at once and let go.

    Raises:
        UsageError: E2030, E2031 as `open_run`; as `engine_for`.
    """
    check_name(name)
    run = open_run(path)
    engine = engine_for(run, name, model)
    scope, evidence = scope_now(run, engine.identity)
    engine = WithEvidence(engine, evidence) if evidence.sources else engine
    if engine.identity != ENGINE:
        nothing: Any = None
        run = replace(run, loaded=replace(run.loaded, model=nothing))
    return Opened(run, engine, scope)


def compare_with_default(
    run: Run, name: str, model: str, examples: Sequence[Example], min_equal: float
) -> dict[str, Any]:
    """Answer rows with the named engine and with the run's own.

    Returns:
        ``engine``, ``rows``, ``equal_answers``: share; ``probability_difference``: the largest of an answer that is the
        same, None where the engine gives none; ``kept_back``: rows a server did not answer; ``different``: the first
        few rows that differ; ``seconds``: by engine.

    Raises:
        RunError: E5023 fewer equal answers than ``min_equal``.
    """
    engine, own = engine_for(run, name, model), engine_for(run)
    theirs, ours = engine.predict(examples), own.predict(examples)
    pairs = list(zip(ours, theirs, strict=True))
    same = [pair for pair in pairs if pair[0].answer == pair[1].answer and pair[1].decision is None]
    differences = [abs(one.scores["probability"] - two.scores["probability"]) for one, two in same]
    known = [value for value in differences if value == value]
    equal = len(same) / len(pairs) if pairs else 1.0
    record = {
        "engine": engine.identity, "rows": len(pairs), "equal_answers": equal,
        "probability_difference": max(known) if known else None,
        "kept_back": sum(two.decision is not None for _, two in pairs),
        "different": [{"row": one.row, ENGINE: one.answer, "engine": two.answer}
                      for one, two in pairs if one.answer != two.answer][:MOST_SHOWN],
        "seconds": {ENGINE: round(sum(each.seconds for each in ours), 3),
                    "engine": round(sum(each.seconds for each in theirs), 3)},
    }
    if equal < min_equal:
        raise RunError("E5023", "the engine {engine} answers otherwise than the run's own", engine=engine.identity,
                       where=f"{len(pairs)} rows", found=f"{equal:.1%}", allowed=f"{min_equal:.1%} (--min-equal)",
                       do="leave --engine out, or give a lower --min-equal if you can live with that")
    return record


def refuse_kept_back(predictions: Sequence[Prediction]) -> None:
    """A gate is set on every answer, not on those that another gate lets through.

    Raises:
        UsageError: E2042.
    """
    count = sum(each.decision is not None for each in predictions)
    if count:
        raise UsageError("E2042", "the server keeps answers back, so no gate can be set on them",
                         found=f"{count} of {len(predictions)}", do="serve a copy of the run that has no gate.json")


def kept_back(prediction: Prediction, decided: Prediction) -> Prediction:
    """What a server kept back stays so: its decision stands in place of ours where ours would say more.

    Args:
        prediction: as the engine gave it. decided: with our own decision.
    """
    theirs, ours = prediction.decision, decided.decision
    if theirs is None or ours is None or ours.verdict == "refuse":
        return decided
    reasons = (Reason("kept_back", say("the server kept the answer back")), *theirs.reasons)
    verdict = "refuse" if theirs.verdict == "refuse" else "review"
    return replace(decided, decision=Decision(verdict, None, None, reasons, ours.labels, ours.guarantee, ours.valid,
                                              ours.flags, ours.audited))
