"""Under a gate: every decision in the log, doubtful and drawn rows in the queue, and what a person said of them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from treetune.core.errors import RunError
from treetune.decide.audit_log import AuditLog
from treetune.workflow.decider import Recording

ROW = {"text": "The film was wonderful."}
EVERY_ROW = Recording(audit_share=1.0)
NO_LOT = Recording(audit_share=0.0)


@pytest.fixture
def own(gated_run: Any, tmp_path: Path) -> dict[str, Path]:
    """Copies, since answers leave their traces in the run."""
    return {kind: shutil.copytree(gated_run(kind), tmp_path / kind) for kind in ("accepts", "holds")}


def queue(server: Any) -> dict[str, Any]:
    return dict(server.http.get("/v1/reviews", params={"run": "mood"}).json())


def test_without_a_gate_nothing_is_kept(live: Any, made_runs: dict[str, Path], tmp_path: Path) -> None:
    run = shutil.copytree(made_runs["sentiment"], tmp_path / "run")
    server = live({"mood": run}, recording=EVERY_ROW)
    assert server.post("/v1/sentiment", ROW).json()["kept_for_review"] is False
    assert queue(server) == {"gated": False, "pending": [], "waiting": 0, "confirmed": 0, "corrected": 0,
                             "calibration_rows": 0, "other_rows": 0}
    assert not (run / "trust").exists()


def test_nothing_is_kept_where_the_operator_said_so(live: Any, own: dict[str, Path]) -> None:
    server = live({"mood": own["holds"]}, recording=Recording(on=False))
    before = sorted((own["holds"] / "trust").iterdir())
    assert server.post("/v1/sentiment", ROW).json()["kept_for_review"] is False
    assert sorted((own["holds"] / "trust").iterdir()) == before


def test_a_line_a_decision_without_the_text(live: Any, own: dict[str, Path]) -> None:
    server = live({"mood": own["holds"]}, recording=NO_LOT)
    answers = [server.post("/v1/sentiment", ROW).json(),
               *server.post("/v1/sentiment/batch", {"rows": [ROW, {"text": "another"}]}).json()["answers"]]
    log = AuditLog(own["holds"] / "trust")
    lines = [json.loads(line) for line in log.path.read_text("utf-8").splitlines()]
    assert [line["row"] for line in lines] == [each["id"] for each in answers]
    assert {line["verdict"] for line in lines} == {"review"}
    assert "wonderful" not in log.path.read_text("utf-8")
    assert (log.verify().records, log.verify().fault) == (3, "")


def test_where_the_log_cannot_be_written_no_answer_goes_out(
    live: Any, own: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any, records: Any) -> None:
        raise RunError("E5001", "the disk is full", where="/secret/place")

    monkeypatch.setattr(AuditLog, "append", full)
    server = live({"mood": own["accepts"]}, recording=NO_LOT)
    refused = server.post("/v1/sentiment", ROW)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "E5001")
    assert "secret" not in refused.text


def test_held_rows_and_the_random_sample_wait_for_a_person(live: Any, own: dict[str, Path]) -> None:
    for kind, recording, kept in (("accepts", NO_LOT, False), ("accepts", EVERY_ROW, True), ("holds", NO_LOT, True)):
        folder = shutil.copytree(own[kind], own[kind].parent / f"{kind}-{recording.audit_share}")
        server = live({"mood": folder}, recording=recording)
        assert server.post("/v1/sentiment", ROW).json()["kept_for_review"] is kept
        assert queue(server)["waiting"] == int(kept)


def test_confirmed_and_corrected_rows_of_the_sample_are_calibration_rows(live: Any, own: dict[str, Path]) -> None:
    server = live({"mood": own["accepts"]}, recording=EVERY_ROW)
    for number in range(3):
        server.post("/v1/sentiment", {"text": f"film {number}"})
    pending = queue(server)["pending"]
    assert sorted(each["row"]["text"] for each in pending) == ["film 0", "film 1", "film 2"]
    other = next(label for label in ("positive", "negative") if label != pending[1]["proposal"])
    first = server.post(f"/v1/reviews/{pending[0]['id']}", {"run": "mood", "verdict": "confirm"}).json()
    second = server.post(f"/v1/reviews/{pending[1]['id']}", {"run": "mood", "verdict": "correct", "answer": other})
    assert first["calibration_rows"] == 1
    counts = second.json()
    assert (counts["waiting"], counts["confirmed"], counts["corrected"], counts["calibration_rows"],
            counts["other_rows"]) == (1, 1, 1, 2, 0)
    again = server.post(f"/v1/reviews/{pending[0]['id']}", {"run": "mood", "verdict": "confirm"})
    assert (again.status_code, again.json()["error"]["code"]) == (404, "E6021")
    from treetune.core.files import RunFolder
    from treetune.workflow.review import reviewed_rows

    sample, others, waiting = reviewed_rows(RunFolder(own["accepts"]))
    assert sample is not None
    rows = [json.loads(line) for line in sample.read_text("utf-8").splitlines()]
    assert {row["text"]: row["label"] for row in rows}[pending[1]["row"]["text"]] == other
    assert (len(rows), others, waiting) == (2, None, 1)


def test_rows_that_were_held_back_are_no_fair_sample(live: Any, own: dict[str, Path]) -> None:
    server = live({"mood": own["holds"]}, recording=NO_LOT)
    server.post("/v1/sentiment", ROW)
    [waiting] = queue(server)["pending"]
    counts = server.post(f"/v1/reviews/{waiting['id']}", {"run": "mood", "verdict": "confirm"}).json()
    assert (counts["calibration_rows"], counts["other_rows"]) == (0, 1)


def test_the_right_answer_has_to_be_one_of_the_tasks(live: Any, own: dict[str, Path]) -> None:
    server = live({"mood": own["holds"]}, recording=NO_LOT)
    server.post("/v1/sentiment", ROW)
    [waiting] = queue(server)["pending"]
    refused = server.post(f"/v1/reviews/{waiting['id']}", {"run": "mood", "verdict": "correct", "answer": "great"})
    assert refused.status_code == 422
    assert queue(server)["waiting"] == 1


def test_of_a_refused_answer_the_queue_shows_no_text(
    live: Any, own: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import treetune.predict.answers as answers
    from treetune.core.records import Prediction

    scores = {"probability": float("nan"), **{f"probability:{name}": float("nan")
                                              for name in ("positive", "negative", "neutral")}}
    monkeypatch.setattr(answers, "predict_answers", lambda loaded, task, examples, **options: [
        Prediction(each.row, each.row_id, each.split, "SECRET", "SECRET", scores, (0.0,), True, 0, 0.0)
        for each in examples])
    server = live({"mood": own["holds"]}, recording=NO_LOT)
    assert server.post("/v1/sentiment", ROW).json()["decision"]["verdict"] == "refuse"
    listed = server.http.get("/v1/reviews", params={"run": "mood"})
    assert "SECRET" not in listed.text
    [waiting] = listed.json()["pending"]
    refused = server.post(f"/v1/reviews/{waiting['id']}", {"run": "mood", "verdict": "confirm"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "E6022")


def test_the_queue_outlives_the_server(live: Any, own: dict[str, Path]) -> None:
    live({"mood": own["holds"]}, recording=NO_LOT).post("/v1/sentiment", ROW)
    assert queue(live({"mood": own["holds"]}, recording=NO_LOT))["waiting"] == 1


@pytest.mark.parametrize("identity", ["nothing", "..%2f..%2fx", "a" * 500])
def test_unknown_rows_are_not_found(live: Any, own: dict[str, Path], identity: str) -> None:
    server = live({"mood": own["holds"]})
    assert server.post(f"/v1/reviews/{identity}", {"run": "mood", "verdict": "confirm"}).status_code == 404
    assert server.http.get("/v1/reviews", params={"run": "../mood"}).status_code == 404
