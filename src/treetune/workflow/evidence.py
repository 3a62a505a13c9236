"""What a gate's score needs beyond the answer itself: asked for when the gate is set, made again for later answers.

Each kind of evidence says what binds it (its identity); the gate is void where that is not what it was.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from treetune.core.errors import RunError, UsageError
from treetune.core.records import Example, Prediction
from treetune.core.settings import EvidenceSettings
from treetune.decide.evidence import AGREEMENT, BY_MODELS, EVIDENCE, NEAR_TRAINING
from treetune.decide.gate import Gate
from treetune.decide.scores import fault_of
from treetune.workflow.evidence_sources import (
    SOURCES,
    Source,
    drawn_answers,
    entailment_source,
    quality_source,
    training_distances,
)
from treetune.workflow.gate_file import read_gate
from treetune.workflow.run import Run
from treetune.workflow.scope import ENGINE, parts_changed, scope_of

if TYPE_CHECKING:
    from treetune.predict.engines.contract import Engine

OWN_MODEL = (AGREEMENT, NEAR_TRAINING)  # what the run's own model has to give


@dataclass(slots=True)
class Evidence:
    """Some sources, and what they have cost: ``seconds`` by name, ``rows``."""

    sources: tuple[Source, ...]
    seconds: dict[str, float] = field(default_factory=dict)
    rows: int = 0

    def add(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> list[Prediction]:
        """The predictions with the sources' scores among theirs."""
        found = list(predictions)
        for source in self.sources if found else ():
            began = time.perf_counter()
            values = source.values(predictions, examples)
            self.seconds[source.name] = self.seconds.get(source.name, 0.0) + time.perf_counter() - began
            found = [replace(each, scores={**each.scores, **own}) for each, own in zip(found, values, strict=True)]
        self.rows += len(found)
        return found

    @property
    def scope(self) -> dict[str, str]:
        """What a gate that needs them is bound to."""
        return {each.name: each.identity for each in self.sources}


class WithEvidence:
    """An engine whose answers bring their evidence along."""

    def __init__(self, engine: Engine, evidence: Evidence) -> None:
        self.engine, self.evidence = engine, evidence
        self.identity = engine.identity

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """One prediction an example, in the order given."""
        return self.evidence.add(self.engine.predict(examples), examples)


def asked_for(run: Run, settings: EvidenceSettings, engine: str) -> Evidence:
    """What the user wants to be tried.

    Args:
        engine: identity of what answers.

    Raises:
        UsageError: E2512 the run's own model does not answer; others as each source.
    """
    if engine != ENGINE and (settings.agreement or settings.distance):
        raise UsageError("E2512", "this evidence comes from the run's own model, and another engine answers",
                         where="--engine", found=engine, allowed=ENGINE,
                         do="leave --engine out, or --agreement and --distance")
    sources: list[Source] = []
    if settings.agreement:
        sources.append(drawn_answers(run, settings))
    if settings.entailment_model:
        sources.append(entailment_source(run, settings.entailment_model))
    if settings.quality_model:
        sources.append(quality_source(run, settings.quality_model))
    if settings.distance:
        sources.append(training_distances(run, settings.background))
    return Evidence(tuple(sources))


def needed_names(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Evidence that a gate's answers must bring: what its score is made of, and the numbers of the user's models."""
    return tuple(name for name, own in (record.get("evidence") or {}).items() if own["used"] or name in BY_MODELS)


def needed_by(run: Run, record: Mapping[str, Any]) -> Evidence:
    """The same sources again, for later answers.

    Raises:
        RunError: E5508 the gate needs the run's own model, which is not in memory; E5509, E5510 a file is gone.
    """
    names = needed_names(record)
    if run.loaded is None and set(names) & set(OWN_MODEL):
        raise RunError("E5508", "the gate's score needs what only the run's own model can say",
                       where=run.folder.root.name, found=", ".join(names),
                       do="answer with the run's own model: leave --engine out")
    return Evidence(tuple(SOURCES[name](run, record["evidence"][name]) for name in names))


def scope_now(run: Run, engine: str = ENGINE) -> tuple[dict[str, str], Evidence]:
    """What answers now, to be compared with the gate's scope, and the evidence its answers must bring: none where there
    is no gate, or a void one.

    Args:
        engine: identity of what answers.

    Raises:
        RunError: E5508; others as the sources raise.
    """
    scope, gate = scope_of(run, engine), read_gate(run.folder)
    if not isinstance(gate, Gate) or parts_changed(gate.scope, scope):
        return scope, Evidence(())
    evidence = needed_by(run, gate.record)
    scope |= evidence.scope
    return scope, Evidence(()) if parts_changed(gate.scope, scope) else evidence


def lacking(predictions: Sequence[Prediction], names: Sequence[str]) -> bool:
    """Whether an answer comes without evidence that it must bring; one that is no answer need not."""
    return any(name not in each.scores for each in predictions if not fault_of(each) for name in names)


def evidence_record(
    evidence: Evidence, used: Sequence[str], limits: Mapping[str, float], seconds: float
) -> dict[str, Any]:
    """For ``gate.json``, by name: how it was made, whether the score uses it, what it took beside the answers.

    Args:
        used: names in the score. limits: see `treetune.decide.evidence.limits_of`. seconds: that the answers took.
    """
    return {
        each.name: {**each.record, "identity": each.identity, "used": each.name in used,
                    "limit": limits.get(each.name),
                    "seconds": round(evidence.seconds.get(each.name, 0.0), 3), "answer_seconds": round(seconds, 3),
                    "rows": evidence.rows}
        for each in sorted(evidence.sources, key=lambda own: EVIDENCE.index(own.name))
    }
