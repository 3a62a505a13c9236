"""The review queue of a run over HTTP: what waits for a person, and what the person says.

The queue itself is the workflow's: what the gate held back, and a random sample of everything, which alone can
calibrate a gate. Of refused answers no text is shown here either.
"""

from __future__ import annotations

from typing import Any

from treetune.core.errors import UsageError
from treetune.core.files import read_json
from treetune.serve.refused import Refused
from treetune.serve.runs import Served
from treetune.workflow.review import Desk, check_correction


def desk_of(served: Served) -> Desk | None:
    """None without a gate: then nothing was queued."""
    folder = served.run.folder
    if not served.gated or served.changed is None:
        return None
    return Desk(folder, served.run.task, served.run.options, str(read_json(folder.gate)["wrong"]))


def waiting_of(served: Served, limit: int) -> dict[str, Any]:
    """The first rows that wait, the random sample in front, and counts.

    ``calibration_rows``: reviewed rows of the random sample. ``other_rows``: reviewed because they were held back.
    """
    desk = desk_of(served)
    waiting = desk.pending() if desk else []
    reviewed = {line["key"]: line for line in desk.reviewed()} if desk else {}
    sampled = sum(bool(line["audited"]) for line in reviewed.values())
    return {
        "gated": served.gated, "pending": [shown(each) for each in waiting[:limit]], "waiting": len(waiting),
        "confirmed": sum(line["outcome"] == "accepted" for line in reviewed.values()),
        "corrected": sum(line["outcome"] == "corrected" for line in reviewed.values()),
        "calibration_rows": sampled, "other_rows": len(reviewed) - sampled,
    }


def shown(waiting: dict[str, Any]) -> dict[str, Any]:
    """A row that waits, for the person."""
    return {
        "id": waiting["key"], "row": waiting["row"], "verdict": waiting["verdict"], "audited": waiting["audited"],
        "proposal": None if waiting["verdict"] == "refuse" else waiting["answer"],
        "confidence": waiting["confidence"], "reasons": waiting["reasons"],
    }


def settle(served: Served, key: str, right_answer: str | None) -> None:
    """A person looked at a row: the proposal is right (None), or another answer is.

    Raises:
        Refused: 404 E6021 no such row waits; 422 E6022 nothing to confirm. DataError: the answer is none of the
            task's. RunError: E5001 to E5003 when the disk refuses.
    """
    desk = desk_of(served)
    found = next((each for each in desk.pending() if each["key"] == key), None) if desk else None
    if desk is None or found is None:
        raise Refused(404, UsageError("E6021", "no such row waits for a person"))
    if right_answer is None and found["verdict"] == "refuse":
        raise Refused(422, UsageError("E6022", "there is no proposal to confirm; write the right answer"))
    if right_answer is not None and (fault := check_correction(desk, found, right_answer)):
        raise fault
    desk.record(found, right_answer)
