"""Engines: the same answers by another way, strange servers told as such, and settings that only we can keep."""

import http.client
import io
import json
import urllib.error
from collections.abc import Iterator
from dataclasses import replace
from email.message import Message
from typing import Any

import pytest
import torch

from treetune.core.errors import ModelError, RunError, UsageError
from treetune.core.language import choose_language
from treetune.core.records import Example, Row
from treetune.models.load import LoadedModel
from treetune.predict.engines import openai_http
from treetune.predict.engines.contract import Decoding
from treetune.predict.engines.ctranslate2 import checked_export
from treetune.predict.engines.openai_http import KEY, HttpEngine, checked_url
from treetune.predict.engines.transformers import TransformersEngine
from treetune.tasks.contract import TaskOptions, load_task

WINDOW = 128
URL = "http://127.0.0.1:9/v1"
DECODING = Decoding(WINDOW, 6, "padded", "anything", 0)
LABELS = TaskOptions(("positive", "negative"))
TEXTS = ("The film was good.", "A film that was long, and long, and good.", "Gut.")


@pytest.fixture(autouse=True)
def in_english() -> Iterator[None]:
    choose_language("en")
    yield
    choose_language("")


def examples_of(task: str, texts: tuple[str, ...] = TEXTS, **more: str) -> list[Example]:
    column = {"sentiment": "text", "translation": "source", "question_answering": "context"}[task]
    return [load_task(task).example_from_row(Row({column: text, **more}, "rows", place + 1, place, "test"), LABELS,
                                             with_answer=False) for place, text in enumerate(texts)]


class Server:
    """Answers in place of a server, by the model itself; keeps what it was asked."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self.asked: list[Any] = []
        self.models: list[dict[str, Any]] = [{"id": "base", "owned_by": "somebody"}]
        self.before: list[Any] = []  # what is raised, or given back, first

    def open(self, request: Any, timeout: float) -> Any:
        self.asked.append(request)
        if self.before:
            found = self.before.pop(0)
            if isinstance(found, BaseException):
                raise found
            return io.BytesIO(found)
        if request.full_url.endswith("/models"):
            return io.BytesIO(json.dumps({"data": self.models}).encode())
        body = json.loads(request.data)
        choices = [self.choice(prompt, body) for prompt in body["prompt"]]
        return io.BytesIO(json.dumps({"choices": [{"index": place, **each} for place, each in
                                                  enumerate(choices)][::-1]}).encode())

    @torch.no_grad()
    def choice(self, prompt: str, body: dict[str, Any]) -> dict[str, Any]:
        tokenizer, model = self.loaded.tokenizer, self.loaded.model
        start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        encoded = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)
        ids, new = [*start, *encoded["input_ids"]], list[int]()
        logs: list[float | None] = []
        for _ in range(body["max_tokens"]):
            row = torch.tensor([[*ids, *new]])
            logits = model(input_ids=row).logits[0].log_softmax(-1)
            value, token = logits[-1].max(-1)
            new.append(int(token))
            logs.append(float(value))
            if new[-1] == tokenizer.eos_token_id:
                break
        ended = new[-1] == tokenizer.eos_token_id
        text = tokenizer.decode(new[:-1] if ended else new)
        offsets = [len(prompt)] * len(new)
        if body.get("echo"):
            row = torch.tensor([ids])
            own = model(input_ids=row).logits[0].log_softmax(-1)
            first = len(start)
            echoed = [None if place == 0 else float(own[place - 1, ids[place]]) for place in range(first, len(ids))]
            logs, text = [*echoed, *logs], prompt + text
            offsets = [begin for begin, _ in encoded["offset_mapping"]] + offsets
        return {"text": text, "finish_reason": "stop" if ended else "length",
                "logprobs": {"token_logprobs": logs, "text_offset": offsets}}


@pytest.fixture
def server(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server(loaded)
    monkeypatch.setattr(openai_http, "OPENER", made)
    monkeypatch.delenv(KEY, raising=False)
    return made


def http_engine(loaded: LoadedModel, task: str, model: str = "", **more: Any) -> HttpEngine:
    return HttpEngine(URL, model, loaded.tokenizer, load_task(task), LABELS, replace(DECODING, **more),
                      sleep=lambda seconds: None)


def test_answers_a_server_writes_are_those_of_the_model(loaded: LoadedModel, server: Server) -> None:
    examples = examples_of("translation")
    ours = TransformersEngine(loaded, load_task("translation"), DECODING).predict(examples)
    engine = http_engine(loaded, "translation")
    theirs = engine.predict(examples)
    assert engine.identity == f"openai {URL} base"
    assert [each.text for each in theirs] == [each.text for each in ours]
    for one, two in zip(ours, theirs, strict=True):
        assert (one.answer, one.finished, one.row, one.row_id) == (two.answer, two.finished, two.row, two.row_id)
        assert two.token_log_probs == pytest.approx(one.token_log_probs, abs=1e-6)
        assert two.scores == pytest.approx(one.scores, abs=1e-6)


def test_labels_are_scored_by_what_is_echoed(loaded: LoadedModel, server: Server) -> None:
    examples = examples_of("sentiment")
    found = http_engine(loaded, "sentiment").predict(examples)
    for each, example in zip(found, examples, strict=True):
        logs = {}
        for label, candidate in example.candidates.items():
            start = loaded.tokenizer(example.prompt_text, add_special_tokens=False)["input_ids"]
            ids = torch.tensor([[loaded.tokenizer.bos_token_id, *loaded.tokenizer(
                example.prompt_text + candidate, add_special_tokens=False)["input_ids"]]])
            with torch.no_grad():
                own = loaded.model(input_ids=ids).logits[0].log_softmax(-1)
            logs[label] = sum(float(own[place - 1, ids[0, place]]) for place in range(len(start) + 1, ids.shape[1]))
        assert each.answer == max(logs, key=logs.__getitem__)
        ratio = each.scores["probability:positive"] / each.scores["probability:negative"]
        assert ratio == pytest.approx(torch.tensor(logs["positive"] - logs["negative"]).exp().item(), rel=1e-6)


def test_the_key_goes_along_and_is_in_no_message(
    loaded: LoadedModel, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, "secret-key")
    server.before = [urllib.error.HTTPError(URL, 401, "no", Message(), io.BytesIO(b"not for you"))]
    with pytest.raises(UsageError) as caught:
        http_engine(loaded, "translation")
    assert server.asked[0].get_header("Authorization") == "Bearer secret-key"
    assert "HTTP 401: not for you" in str(caught.value)
    assert KEY in str(caught.value)
    assert "secret-key" not in str(caught.value)


def busy(after: str) -> urllib.error.HTTPError:
    headers = Message()
    headers["Retry-After"] = after
    return urllib.error.HTTPError(URL, 429, "busy", headers, io.BytesIO(b""))


def test_a_busy_server_is_asked_again_when_it_says(loaded: LoadedModel, server: Server) -> None:
    waited: list[float] = []
    server.before = [busy("3"), busy("tomorrow"), ConnectionRefusedError("no"), b"half of a JS"]
    engine = HttpEngine(URL, "", loaded.tokenizer, load_task("translation"), LABELS, DECODING, sleep=waited.append)
    assert engine.model == "base"
    assert waited == [3.0, 1.0, 2.0, 4.0]
    server.before = [ConnectionRefusedError("refused")] * openai_http.TRIES
    with pytest.raises(RunError, match=r"E3108[\s\S]*refused[\s\S]*it goes on"):
        engine.predict(examples_of("translation"))


@pytest.mark.parametrize("cut", [http.client.IncompleteRead(b"half of"), http.client.BadStatusLine("garbage")])
def test_an_answer_cut_off_on_the_way_is_asked_for_again(
    loaded: LoadedModel, server: Server, cut: Exception
) -> None:
    engine = http_engine(loaded, "translation")
    server.before = [cut]
    assert len(engine.predict(examples_of("translation"))) == len(TEXTS)
    server.before = [cut] * openai_http.TRIES
    with pytest.raises(RunError, match="E3108"):
        engine.predict(examples_of("translation"))


@pytest.mark.parametrize(("answer", "found"), [
    ({"choices": []}, "choices"), ({"choices": [{"text": "a", "index": 7}] * 3}, "index"), ({}, "choices"),
    ({"choices": [{"text": "a", "index": place, "logprobs": {"token_logprobs": ["x"]}} for place in range(3)]}, "x"),
])
def test_what_is_not_openai_s_protocol_is_told(
    answer: dict[str, Any], found: str, loaded: LoadedModel, server: Server
) -> None:
    engine = http_engine(loaded, "translation")
    server.before = [json.dumps(answer).encode()]
    with pytest.raises(RunError) as caught:
        engine.predict(examples_of("translation"))
    assert caught.value.code == "E3110"
    assert found in str(caught.value)


def test_a_server_that_scores_no_labels_is_told(loaded: LoadedModel, server: Server) -> None:
    engine = http_engine(loaded, "sentiment")
    server.before = [json.dumps({"choices": [{"text": "a", "index": place} for place in range(6)]}).encode()]
    with pytest.raises(RunError, match="no echoed log-probabilities"):
        engine.predict(examples_of("sentiment"))


def test_without_log_probabilities_no_score_speaks_for_an_answer(loaded: LoadedModel, server: Server) -> None:
    from treetune.decide.scores import fault_of

    engine = http_engine(loaded, "translation")
    server.before = [json.dumps({"choices": [{"text": " gut", "index": place, "finish_reason": "stop"}
                                             for place in range(3)]}).encode()]
    found = engine.predict(examples_of("translation"))
    assert {each.answer for each in found} == {"gut"}
    assert {fault_of(each) for each in found} == {"not_finite"}


def test_a_model_that_is_not_there_is_refused_by_name(loaded: LoadedModel, server: Server) -> None:
    server.models = [{"id": "one"}, {"id": "two", "task": "sentiment", "owned_by": "treetune"}]
    with pytest.raises(UsageError, match=r"E3107[\s\S]*one, two"):
        http_engine(loaded, "translation")
    with pytest.raises(UsageError, match=r"E3107[\s\S]*sentiment"):
        http_engine(loaded, "translation", "two")
    assert http_engine(loaded, "translation", "one").model == "one"


def test_what_only_our_own_engine_can_keep_is_refused_elsewhere(loaded: LoadedModel, server: Server) -> None:
    with pytest.raises(UsageError, match="E3101"):
        http_engine(loaded, "translation", no_repeat_ngram_size=3)
    with pytest.raises(UsageError, match="answers_from: source"):
        http_engine(loaded, "question_answering", answers_from="source")
    server.models = [{"id": "own", "owned_by": "treetune", "weights_sha256": "a" * 64}]
    assert http_engine(loaded, "translation", no_repeat_ngram_size=3).identity == "openai treetune " + "a" * 16


def test_a_row_that_a_server_could_not_understand_whole_is_refused(loaded: LoadedModel, server: Server) -> None:
    server.models = [{"id": "own", "owned_by": "treetune"}]
    engine = http_engine(loaded, "translation")
    with pytest.raises(UsageError, match="E3109"):
        engine.predict(examples_of("translation", source_lang="en", target_lang="de"))


@pytest.mark.parametrize("url", ["ftp://a/v1", "http:///v1", "http://user:secret@a/v1", "http://a/v1?key=secret"])
def test_an_address_holds_no_key_and_nothing_strange(url: str) -> None:
    with pytest.raises(UsageError, match="E3105"):
        checked_url(url)
    assert checked_url("http://127.0.0.1:8000/v1/") == "http://127.0.0.1:8000/v1"


def test_a_key_follows_no_redirection() -> None:
    assert openai_http._NoRedirect().redirect_request(None, None, 302, "", {}, "http://elsewhere") is None


@pytest.mark.parametrize("spoil", ["nothing", "another run", "a byte", "a file"])
def test_an_export_must_be_of_this_run_and_as_it_was_proved(spoil: str, tmp_path: Any) -> None:
    from treetune.core.files import file_digest, write_json

    (tmp_path / "model.bin").write_bytes(b"weights")
    if spoil != "nothing":
        write_json(tmp_path / "export.json", {
            "form": "ctranslate2", "run_model": "m" * 64, "precision": "int8",
            "files": {"model.bin": {"sha256": file_digest(tmp_path / "model.bin")}}})
    if spoil == "a byte":
        (tmp_path / "model.bin").write_bytes(b"weightt")
    if spoil == "a file":
        (tmp_path / "model.bin").unlink()
    code = {"nothing": "E3102", "another run": "E3103", "a byte": "E3104", "a file": "E3104"}[spoil]
    with pytest.raises(ModelError) as caught:
        checked_export(tmp_path, "n" * 64 if spoil == "another run" else "m" * 64)
    assert caught.value.code == code


def test_decisions_go_between_processes_as_they_are() -> None:
    from dataclasses import asdict

    from treetune.core.records import Decision, Prediction, Reason
    from treetune.workflow.processes import example_of, prediction_of

    decision = Decision("review", 0.5, None, (Reason("a", "b", 1.0, None, "x", (1, 2), "answer"),), ("p",), "g", True,
                        (Reason("c", "d"),), True)
    made = Prediction(3, "id", "test", "a", " a", {"probability": 0.1}, (-0.1, -2e-9), True, 1, 0.25, decision)
    assert prediction_of(json.loads(json.dumps(asdict(made)))) == made
    for each in (*examples_of("sentiment"), *examples_of("question_answering", question="Who?", title="x")):
        assert example_of(json.loads(json.dumps(asdict(each)))) == each
