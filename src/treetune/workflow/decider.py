"""The one door through which answers leave: checked, decided, watched for drift, logged, and queued for review."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from treetune.core.errors import TreetuneError
from treetune.core.files import RunFolder, disk_error, read_json, value_digest
from treetune.core.language import say
from treetune.core.records import Decision, Example, Prediction, Reason, Row
from treetune.core.seeds import seed_of
from treetune.decide.audit_log import AuditLog
from treetune.decide.decision import decide, ungated_decisions, void_decisions
from treetune.decide.drift import AuditState, Reference, Watch, audit_state
from treetune.decide.evidence import notes_of
from treetune.decide.gate import Gate
from treetune.decide.support import with_text_scores
from treetune.decide.validators.contract import all_findings
from treetune.workflow.evidence import Evidence, lacking, needed_by, needed_names, scope_now
from treetune.workflow.gate_file import read_gate
from treetune.workflow.run import Run
from treetune.workflow.scope import changes
from treetune.workflow.seen import content_digest

AUDIT_SHARE = 0.02
SHORT = 12


@dataclass(frozen=True, slots=True)
class Recording:
    """What is kept of answers. ``on``: drift watch, audit log and review queue at all. ``log_text``: texts in the log.

    Attributes:
        audit_share: of all rows, drawn by a hash, that a person should look at whatever the verdict.
    """

    on: bool = True
    log_text: bool = False
    audit_share: float = AUDIT_SHARE


class Decider:
    """Decides for one run; made once, called for every batch. Not for two threads at the same time."""

    def __init__(self, run: Run, recording: Recording = Recording(), *, changed: Sequence[str] | None = None) -> None:
        """Args:
            changed: what of the gate's scope has changed, where the caller has looked already; None: look now.
        """
        self.run, self.recording = run, recording
        self.gate = read_gate(run.folder)
        self._evidence: Evidence | None = None
        if changed is None and isinstance(self.gate, Gate):
            scope, self._evidence = scope_now(run)
            changed = changes(self.gate.scope, scope)
        self.changed = tuple(changed or ())
        self._watched: Watched | None = None
        if recording.on and isinstance(self.gate, Gate):
            self._watched = Watched(run.folder, self.gate)
        self._log = AuditLog(run.folder.trust)

    def decide(
        self, predictions: Sequence[Prediction], examples: Sequence[Example], rows: Sequence[Row] | None = None
    ) -> list[Prediction]:
        """The predictions with a decision each, in their order.

        Args:
            rows: the rows as read; with them, what a person should see is put into the run's review queue.

        Raises:
            RunError: E5001 to E5003 when the disk refuses the log, E5505 when the log was tampered with, E5508, E5509
                when what the gate's score needs is not there; then no answer may go out.
        """
        predictions = self._with_evidence(with_text_scores(self.run.task.NAME, predictions, examples), examples)
        findings = self._findings(predictions, examples)
        decisions = self._decisions(predictions, examples, findings)
        decided = [replace(each, decision=own) for each, own in zip(predictions, decisions, strict=True)]
        if self.recording.on and self.gate is not None:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            self._log.append([self._record(now, *each) for each in zip(decided, examples, strict=True)])
            if rows is not None:
                append_lines(queue_path(self.run.folder), [
                    entry(self.run, self._digest, *each) for each in zip(decided, examples, rows, strict=True)
                    if each[0].decision and (each[0].decision.verdict != "accept" or each[0].decision.audited)
                ])
        return decided

    def _with_evidence(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> list[Prediction]:
        """With what the gate's score needs, where the answers do not bring it along; not under a void gate."""
        if not isinstance(self.gate, Gate) or self.changed or not lacking(
                predictions, needed_names(self.gate.record)):
            return list(predictions)
        if self._evidence is None:
            self._evidence = needed_by(self.run, self.gate.record)
        return self._evidence.add(predictions, examples)

    def _findings(
        self, predictions: Sequence[Prediction], examples: Sequence[Example]
    ) -> list[tuple[Reason, ...]]:
        """Of the checks, and what models of the user's note beside an answer."""
        found = all_findings(self.run.task.NAME, predictions, examples)
        evidence = (self.gate.record.get("evidence") or {}) if isinstance(self.gate, Gate) else {}
        return [(*own, *notes_of(each, evidence)) for own, each in zip(found, predictions, strict=True)]

    @property
    def _digest(self) -> str:
        """Of the gate in force, "" where nobody can vouch for it."""
        return identity_of(self.gate.record) if isinstance(self.gate, Gate) else ""

    def _decisions(
        self, predictions: Sequence[Prediction], examples: Sequence[Example],
        findings: Sequence[Sequence[Reason]],
    ) -> list[Decision]:
        if self.gate is None:
            return ungated_decisions(predictions, findings)
        if not isinstance(self.gate, Gate):
            return void_decisions(predictions, [self.gate], findings)
        changed = list(self.changed)
        if changed and lacking(predictions, self.gate.score.evidence):
            return void_decisions(predictions, changed, findings)
        scores = self.gate.score.values(predictions)
        if self._watched is not None:
            self._watched.add(scores.tolist(), examples)
            if self._watched.alarm:
                changed.append(drifted())
        column = (self.gate.record.get("by") or {}).get("column", "")
        parts = [each.groups.get(column, "") for each in examples] if column else ()
        made = decide(self.gate, predictions, changed, findings=findings, parts=parts, scores=scores)
        return [replace(own, audited=self._drawn(each)) for own, each in zip(made, examples, strict=True)]

    def _drawn(self, example: Example) -> bool:
        """By a hash of the row and the gate: nobody can choose, and asking again changes nothing."""
        lot = seed_of(0, "audit", self._digest, content_digest(example))
        return lot < self.recording.audit_share * 2**63

    def _record(self, now: str, prediction: Prediction, example: Example) -> dict[str, Any]:
        decision = prediction.decision
        assert decision is not None
        own = self.gate.record if isinstance(self.gate, Gate) else {}
        texts = {"source": example.source, "question": example.question, "answer": prediction.answer}
        return {
            "time": now, "run": self.run.folder.root.name,
            "row": prediction.row_id, "input": value_digest([example.source, example.question]),
            "output": value_digest(prediction.answer), "gate": own.get("digest", ""),
            "weights": (own.get("scope") or {}).get("weights", ""), "verdict": decision.verdict,
            "reasons": [each.code for each in decision.reasons], "flags": [each.code for each in decision.flags],
            "score": decision.score, "confidence": decision.confidence, "valid": decision.valid,
            "audited": decision.audited, **({"text": texts} if self.recording.log_text else {}),
        }


class Watched:
    """The drift watch of a gate, with its stream kept in the run folder and played again when it is opened."""

    def __init__(self, folder: RunFolder, gate: Gate) -> None:
        self.path = stream_path(folder, gate.record)
        reference = read_reference(folder, gate.record)
        self.watch = Watch(reference) if reference else None
        self.audited = audited_outcomes(folder, gate.record)
        self._known: set[str] = set()
        for line in read_lines(self.path) if self.watch else ():
            self._add(line)

    @property
    def alarm(self) -> bool:
        """Whether the guarantee is void: by the rows that came in, or by what people found in the audited answers."""
        return self.watch is None or self.watch.alarm is not None or self.audited.alarm is not None

    def add(self, scores: Sequence[float], examples: Sequence[Example]) -> None:
        """New rows: each source once, in the order of a hash, because the order inside a file may mean something."""
        if self.watch is None:
            return
        fresh: dict[str, dict[str, Any]] = {}
        for score, each in zip(scores, examples, strict=True):
            key = value_digest(each.source)[:SHORT]
            if key not in self._known and key not in fresh:
                fresh[key] = {"key": key, **self.watch.reference.values_of(score, each)}
        lines = [fresh[key] for key in sorted(fresh, key=lambda own: seed_of(0, "stream", own))]
        for line in lines:
            self._add(line)
        append_lines(self.path, lines)

    def _add(self, line: Mapping[str, Any]) -> None:
        assert self.watch is not None
        self._known.add(line["key"])
        self.watch.add(line, line["key"])


def drift_state(folder: RunFolder, record: Mapping[str, Any]) -> dict[str, Any]:
    """What the watch of a run's gate says now, for ``treetune gate RUN --drift`` and the report."""
    watched = Watched(folder, Gate.from_record(record))
    watch = watched.watch
    return {
        "alarm": watched.alarm, "alarm_chance": watch.alarm_chance if watch else None,
        "rows": watch.rows if watch else 0, "raised_at": watch.alarm if watch else None,
        "capital": watch.capital if watch else None, "highest": watch.highest if watch else None,
        "capitals": watch.capitals if watch else {}, "audited": asdict(watched.audited),
    }


def read_reference(folder: RunFolder, record: Mapping[str, Any]) -> Reference | None:
    """The calibration rows' values; None where the file is not the one the gate was set with."""
    try:
        found = read_json(folder.trust / "reference.json")
        if value_digest(found) == record["drift"]["reference"]:
            return Reference.from_dict(found)
    except (TreetuneError, KeyError, TypeError):
        pass
    return None


def audited_outcomes(folder: RunFolder, record: Mapping[str, Any]) -> AuditState:
    """Outcomes of the random sample of answers that this gate accepted."""
    wrong = [bool(line["wrong"]) for line in read_lines(reviews_path(folder))
             if line["audited"] and line["verdict"] == "accept" and line["gate"] == identity_of(record)]
    return audit_state(wrong, record["max_error"])


def drifted() -> str:
    """The rows as a part of the gate's scope."""
    return say("the rows that come in (drift)")


def entry(run: Run, gate: str, prediction: Prediction, example: Example, row: Row) -> dict[str, Any]:
    """One place in the review queue: the row, the answer, the decision; ``gate``: digest of the one in force."""
    decision = prediction.decision
    assert decision is not None
    return {
        "key": f"{content_digest(example)}-{value_digest(prediction.answer)[:8]}", "gate": gate,
        "row": {name: value for name, value in row.values.items() if name not in run.task.ANSWER_COLUMNS},
        "answer": prediction.answer, "verdict": decision.verdict, "audited": decision.audited,
        "confidence": decision.confidence,
        "reasons": [{"code": each.code, "text": each.text, "evidence": each.evidence}
                    for each in (*decision.reasons, *decision.flags)],
    }


def queue_path(folder: RunFolder) -> Path:
    return folder.trust / "queue.jsonl"


def reviews_path(folder: RunFolder) -> Path:
    return folder.trust / "reviews.jsonl"


def stream_path(folder: RunFolder, record: Mapping[str, Any]) -> Path:
    """Other calibration rows begin a new stream; the same ones again do not take an alarm back."""
    return folder.trust / f"stream-{(record.get('drift') or {}).get('reference', '')[:SHORT]}.jsonl"


def identity_of(record: Mapping[str, Any]) -> str:
    """Of what a gate lets through and promises: the same when it is set on the same rows on another day."""
    kept = [record.get(name) for name in ("threshold", "max_error", "confidence", "wrong", "by", "score", "drift")]
    return value_digest(kept)


def append_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """JSON lines at the end of a file that only its owner may read.

    Raises:
        RunError: E5001 to E5003 when the disk refuses.
    """
    if not lines:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "a", encoding="utf-8") as handle:
            handle.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        raise disk_error(error, path) from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All lines, oldest first; one that a crash cut off is passed over."""
    found = []
    for line in path.read_text("utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [line for line in found if isinstance(line, dict)]
