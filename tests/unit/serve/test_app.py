"""Routes of the tasks, the runs and the reviews, over a server that really listens."""

import json
from pathlib import Path
from typing import Any

import pytest

from treetune.core.records import Prediction
from treetune.data.sample import sample_path

ROW = {"text": "The film was wonderful and warm."}


def events_of(text: str) -> list[tuple[str, Any]]:
    found = []
    for block in text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


def test_every_answer_says_what_may_be_done_with_it(sentiment: Any) -> None:
    answer = sentiment.post("/v1/sentiment", ROW).json()
    assert answer["answer"] in ("positive", "negative", "neutral")
    assert answer["decision"]["verdict"] == "ungated"
    assert answer["decision"]["reasons"][0]["code"] == "no_gate"
    assert answer["decision"]["guarantee"].startswith("No guarantee")
    assert len(answer["weights_sha256"]) == 64


def test_what_is_said_follows_the_language_of_the_request(sentiment: Any) -> None:
    chinese = sentiment.post("/v1/sentiment", ROW, headers={"accept-language": "zh-CN,en;q=0.5"}).json()
    english = sentiment.post("/v1/sentiment", ROW, headers={"accept-language": "fr"}).json()
    assert "没有" in chinese["decision"]["guarantee"]
    assert english["decision"]["guarantee"].startswith("No guarantee")
    fault = sentiment.post("/v1/sentiment", {}, headers={"accept-language": "zh"}).json()["error"]
    assert "请求" in fault["message"]


def test_answers_are_those_of_predict(live: Any, made_runs: dict[str, Path], tmp_path: Path) -> None:
    from treetune.workflow.predict import predict

    for task, path in made_runs.items():
        rows = [json.loads(line) for line in sample_path(task, "test").read_text("utf-8").splitlines()[:6]]
        data = tmp_path / f"{task}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        wanted = [each.answer for each in predict(str(path), str(data), None)]
        server = live({task: path})
        columns = [each["name"] for each in server.http.get("/v1/runs").json()["runs"][0]["columns"]]
        asked = [{name: row[name] for name in columns if name in row} for row in rows]
        got = server.post(f"/v1/{task}/batch", {"rows": asked}).json()["answers"]
        assert [each["answer"] for each in got] == wanted
        assert [server.post(f"/v1/{task}", row).json()["answer"] for row in asked] == wanted  # row 44: alone or not


def test_pieces_of_a_stream_make_the_answer(live: Any, made_runs: dict[str, Path]) -> None:
    server = live({"t": made_runs["translation"]})
    row = {"source": "A man rides a bike.", "source_lang": "en", "target_lang": "de"}
    whole = server.post("/v1/translation", row).json()["answer"]
    events = events_of(server.post("/v1/translation", {**row, "stream": True}).text)
    assert [name for name, _ in events].count("answer") == 1
    assert events[-1][1]["answer"] == whole
    assert "".join(data["text"] for name, data in events if name == "text") == whole
    assert whole


@pytest.mark.parametrize("kind", ["accepts", "holds"])
def test_the_gate_is_on_every_way(live: Any, gated_run: Any, kind: str) -> None:
    """Row 50."""
    server = live({"mood": gated_run(kind)})
    verdict = "accept" if kind == "accepts" else "review"
    single = server.post("/v1/sentiment", ROW).json()
    batch = server.post("/v1/sentiment/batch", {"rows": [ROW, ROW]}).json()["answers"]
    stream = events_of(server.post("/v1/sentiment", {**ROW, "stream": True}).text)
    assert [name for name, _ in stream] == ["answer"]
    chat = server.post("/v1/chat/completions", {"model": "mood", "messages": [{"role": "user", "content": "fine"}]})
    plain = server.post("/v1/completions", {"model": "mood", "prompt": ["fine", "bad"]})
    streamed = server.post("/v1/completions", {"model": "mood", "prompt": "fine", "stream": True}).text
    ours = [single, *batch, stream[0][1]]
    assert {each["decision"]["verdict"] for each in [*ours, *chat.json()["treetune"], *plain.json()["treetune"]]} == {
        verdict}
    labels = ("positive", "negative", "neutral")
    for each in ours:
        assert (each["answer"] in labels) == (kind == "accepts")
        assert (each["proposal"] in labels) == (kind == "holds")
        assert each["decision"]["valid"]
    message = chat.json()["choices"][0]
    assert (message["message"]["content"] in labels) == (kind == "accepts")
    assert (message["finish_reason"] == "content_filter") == (kind == "holds")
    assert bool(message["message"]["refusal"]) == (kind == "holds")
    assert [bool(each["text"]) for each in plain.json()["choices"]] == [kind == "accepts"] * 2
    for way in (chat.text, plain.text, streamed):
        assert '"proposal"' not in way
        assert ("content_filter" in way) == (kind == "holds")


def test_of_a_refused_answer_no_text_is_sent(
    live: Any, gated_run: Any, made_runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 50: scores that are no numbers, under a gate, under none, and on every way."""
    import treetune.predict.answers as answers

    def broken(loaded: Any, task: Any, examples: Any, **options: Any) -> list[Prediction]:
        return [Prediction(each.row, each.row_id, each.split, "SECRET", "SECRET", {"probability": float("nan")},
                           (float("nan"),), True, 0, 0.0) for each in examples]

    monkeypatch.setattr(answers, "predict_answers", broken)
    for folder in (gated_run("accepts"), made_runs["sentiment"]):
        server = live({"mood": folder})
        single = server.post("/v1/sentiment", ROW)
        assert single.json()["decision"]["verdict"] == "refuse"
        ways = [single, server.post("/v1/sentiment/batch", {"rows": [ROW]}),
                server.post("/v1/sentiment", {**ROW, "stream": True}),
                server.post("/v1/chat/completions", {"model": "mood", "messages": [{"role": "user", "content": "x"}]}),
                server.post("/v1/chat/completions", {"model": "mood", "stream": True,
                                                     "messages": [{"role": "user", "content": "x"}]}),
                server.post("/v1/completions", {"model": "mood", "prompt": "x"})]
        for way in ways:
            assert way.status_code == 200
            assert "SECRET" not in way.text
            assert '"refuse"' in way.text


def test_a_void_gate_accepts_nothing(live: Any, gated_run: Any, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(gated_run("accepts"), tmp_path / "run")
    settings = json.loads((tmp_path / "run/model/generation_config.json").read_text())
    (tmp_path / "run/model/generation_config.json").write_text(json.dumps({**settings, "max_length": 77}))
    answer = live({"mood": tmp_path / "run"}).post("/v1/sentiment", ROW).json()
    assert answer["decision"]["verdict"] == "review"
    assert answer["answer"] is None
    assert not answer["decision"]["valid"]


def test_of_several_runs_the_named_one_answers(live: Any, made_runs: dict[str, Path], gated_run: Any) -> None:
    server = live({"plain": made_runs["sentiment"], "strict": gated_run("holds"),
                   "qa": made_runs["question_answering"]})
    assert server.post("/v1/sentiment", ROW).json()["run"] == "plain"
    assert server.post("/v1/sentiment", {**ROW, "run": "strict"}).json()["decision"]["verdict"] == "review"
    for name in ("qa", "nobody", "../plain", "/etc"):
        refused = server.post("/v1/sentiment", {**ROW, "run": name})
        assert refused.status_code == 404
        assert refused.json()["error"]["code"] == "E6003"
    names = {each["id"] for each in server.http.get("/v1/models").json()["data"]}
    assert names == {"plain", "strict", "qa"}


@pytest.mark.parametrize("bad", [
    {}, {"text": ""}, {"text": "   "}, {"text": 5}, {"text": None}, {"text": "x", "txt": "y"}, {"text": ["x"]},
    {"text": "x", "stream": "yes"}, {"text": "x", "review": "perhaps"}, [], "x", None, 7,
])
def test_bad_rows_are_named_and_not_echoed(sentiment: Any, bad: Any) -> None:
    refused = sentiment.post("/v1/sentiment", bad)
    assert refused.status_code == 422
    assert set(refused.json()["error"]) == {"message", "type", "param", "code"}
    assert "/" not in refused.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"[" * 100_000, b'{"text": "\\ud800"}', b'{"text": NaN}',
                                  b'{"text": ' + b"9" * 5000 + b"}", b"", b"\x00"])
def test_bodies_that_are_no_json_are_refused(sentiment: Any, body: bytes) -> None:
    refused = sentiment.http.post("/v1/sentiment", content=body, headers={"content-type": "application/json"})
    assert refused.status_code in (400, 422)
    assert refused.json()["error"]["code"].startswith("E6")


def test_a_row_that_does_not_fit_spoils_no_other(live: Any, made_runs: dict[str, Path]) -> None:
    server = live({"qa": made_runs["question_answering"]})
    good = {"context": "Paris is the capital of France.", "question": "What is the capital?"}
    bad = {**good, "question": "why " * 900}  # may not be cut
    assert server.post("/v1/question_answering", good).status_code == 200
    refused = server.post("/v1/question_answering", bad)
    assert refused.status_code == 422
    assert refused.json()["error"]["code"] == "E1301"
    for rows, place in (([good, good, bad], 2), ([good, {**good, "question": " "}], 1)):
        whole = server.post("/v1/question_answering/batch", {"rows": rows})
        assert (whole.status_code, whole.json()["error"]["param"]) == (422, f"rows.{place}")


def test_long_texts_are_cut_and_counted_as_in_predict(sentiment: Any) -> None:
    assert sentiment.post("/v1/sentiment", {"text": "good " * 5000}).json()["num_cut"] > 0


def test_metrics_are_true(sentiment: Any) -> None:
    """Row 51."""
    for _ in range(7):
        sentiment.post("/v1/sentiment", ROW)
    sentiment.post("/v1/sentiment/batch", {"rows": [ROW] * 5})
    for _ in range(3):
        sentiment.post("/v1/sentiment", {})
    text = sentiment.http.get("/metrics").text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert values['treetune_requests_total{route="/v1/sentiment",status="200"}'] == "7.0"
    assert values['treetune_requests_total{route="/v1/sentiment",status="422"}'] == "3.0"
    assert values['treetune_rows_total{run="mood",verdict="ungated"}'] == "12.0"
    assert values['treetune_request_seconds_count{route="/v1/sentiment"}'] == "10.0"
    assert float(values["treetune_batch_rows_sum"]) == 12
    assert values["treetune_queue_rows"] == values["treetune_running_rows"] == "0.0"


def test_the_report_opens_by_a_link_that_ends(live: Any, made_runs: dict[str, Path]) -> None:
    key = "k" * 32
    server = live({"mood": made_runs["sentiment"]}, key=key)
    url = server.post("/v1/runs/mood/report-link", None).json()["url"]
    bare = {"authorization": ""}
    page = server.http.get(url, headers=bare)
    assert page.status_code == 200
    assert "<html" in page.text
    assert "sandbox" in page.headers["content-security-policy"]
    assert server.http.get("/v1/runs/mood/report", headers=bare).status_code == 401
    assert server.http.get(url.replace("mood", "other"), headers=bare).status_code == 401
    assert server.http.get(url[:-1] + ("0" if url[-1] != "0" else "1"), headers=bare).status_code == 401
    assert server.http.get("/v1/runs/other/report").status_code == 404


def test_health_and_load(sentiment: Any) -> None:
    assert sentiment.http.get("/health").json() == {"status": "ok"}
    assert sentiment.http.get("/ready").status_code == 200
    sentiment.post("/v1/sentiment", ROW)
    load = sentiment.http.get("/v1/load").json()
    assert load["waiting_rows"] == load["running_rows"] == 0
    assert load["latency"]["requests"] == 1
    assert load["latency"]["p50"] > 0


def test_an_explanation_covers_the_text_and_says_no_answer(live: Any, made_runs: dict[str, Path]) -> None:
    server = live({"qa": made_runs["question_answering"], "mood": made_runs["sentiment"]})
    row = {"context": "Paris is  the capital of France.", "question": "What is the capital?"}
    for name, asked in (("qa", row), ("mood", ROW)):
        found = server.post("/v1/explain", {"run": name, "row": asked}).json()
        said = {each["part"]: "".join(piece["text"] for piece in each["pieces"]) for each in found["parts"]}
        assert list(said.values()) == list(asked.values())
        values = [piece["value"] for each in found["parts"] for piece in each["pieces"] if piece["value"] is not None]
        assert len(values) >= 4
        assert any(values)
        assert "answer" not in found
    assert server.post("/v1/explain", {"run": "mood", "row": {"txt": "x"}}).status_code == 422
    assert server.post("/v1/explain", {"run": "none", "row": ROW}).status_code == 404
    assert 'treetune_rows_total' not in "".join(
        line for line in server.http.get("/metrics").text.splitlines() if not line.startswith("#"))
