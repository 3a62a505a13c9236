"""A server that speaks OpenAI's ``/v1/completions``: `treetune serve`, vLLM, llama.cpp and others; urllib only.

`treetune serve` makes the prompt of a row by itself, so it is sent the row's texts, and it says of each answer what the
model's scores were and what it decided. Other servers are sent the run's prompt as text: answers are written greedily,
labels are scored by what they echo of prompt and label together.
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from treetune.core.errors import RunError, UsageError
from treetune.core.records import Decision, Example, OutputKind, Prediction, Reason, Row
from treetune.models.tokens import tokenize, tokenize_candidates
from treetune.predict.engines.contract import Decoding, refuse_settings
from treetune.predict.engines.written import label_prediction, text_prediction
from treetune.tasks.contract import Task, TaskOptions, is_extractive

KEY = "TREETUNE_ENGINE_KEY"
MARK = "Question:"  # between a context and its question, as the routes of treetune serve read it
ROWS_PER_REQUEST = 16
TRIES = 6
MOST_WAIT = 30.0
BUSY = (429, 502, 503, 504)
MOST_BYTES = 64 << 20


class HttpEngine:
    """Answers by a server.

    Args:
        url: up to and with ``/v1``. model: its name there; "": the only one. tokenizer: the run's, to cut long rows.
        timeout: seconds one request may take. sleep: what waits between tries.

    Raises:
        UsageError: E3101 the run writes under conditions, E3105 no such address, E3106 the server refuses, E3107 no
            such model there. RunError: E3108 the server does not answer.
    """

    def __init__(
        self, url: str, model: str, tokenizer: Any, task: Task, options: TaskOptions, decoding: Decoding, *,
        timeout: float = 600.0, sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = checked_url(url)
        self.tokenizer, self.task, self.options, self.decoding = tokenizer, task, options, decoding
        self.timeout, self.sleep = timeout, sleep
        self.model, about = self._find(model)
        self.ours = about.get("owned_by") == "treetune"
        if self.ours:
            self.identity = f"openai treetune {about.get('weights_sha256', '')[:16]}"
        else:
            refuse_settings(self.url, decoding, is_extractive(task))
            self.identity = f"openai {self.url} {self.model}"

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """One prediction an example, in the order given."""
        if self.ours:
            return [each for part in parts_of(examples) for each in self._rows(part)]
        if self.task.OUTPUT is OutputKind.LABEL:
            return [each for part in parts_of(examples) for each in self._labels(part)]
        return [each for part in parts_of(examples) for each in self._texts(part)]

    def _rows(self, examples: Sequence[Example]) -> list[Prediction]:
        """By `treetune serve`: it is sent the texts of the rows."""
        began = time.perf_counter()
        found = self._ask({"prompt": [self._as_row(each) for each in examples]})
        said = found.get("treetune")
        if not isinstance(said, list) or len(said) != len(examples):
            raise self._strange("treetune")
        seconds = (time.perf_counter() - began) / len(examples)
        return [self._from_treetune(*each, seconds)
                for each in zip(examples, self._choices(found, len(examples)), said, strict=True)]

    def _as_row(self, example: Example) -> str:
        """The texts of a row, which the server takes for a row again.

        Raises:
            UsageError: E3109 the row has more that its prompt depends on.
        """
        columns = [each.name for each in self.task.COLUMNS if each.required and
                   each.name not in self.task.ANSWER_COLUMNS]
        values = dict(zip(columns, (example.source, example.question), strict=False))
        again = self.task.example_from_row(Row(values, "", 1, example.row, example.split), self.options,
                                           with_answer=False)
        if again.prompt != example.prompt or MARK in example.question:
            raise UsageError("E3109", "the row has columns that OpenAI's routes have no place for",
                             where=example.row_id, allowed=", ".join(columns), do="answer these rows without --engine")
        return f"{example.source}\n{MARK} {example.question}" if example.question else example.source

    def _from_treetune(
        self, example: Example, choice: Mapping[str, Any], said: Mapping[str, Any], seconds: float
    ) -> Prediction:
        """With the server's decision, where it kept the answer back."""
        try:
            decided = said["decision"]
            kept_back = choice.get("finish_reason") == "content_filter"
            scores = {str(name): float("nan") if value is None else float(value)
                      for name, value in said["scores"].items()} or {"probability": float("nan")}
            text = str(choice["text"])
            return Prediction(
                row=example.row, row_id=example.row_id, split=example.split, answer=text, text=text, scores=scores,
                token_log_probs=(), finished=bool(said["finished"]), num_cut=int(said["num_cut"]), seconds=seconds,
                decision=decision_of(decided) if kept_back else None,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._strange(str(error)) from error

    def _texts(self, examples: Sequence[Example]) -> list[Prediction]:
        longest = self.decoding.max_new_tokens
        rows = tokenize(examples, self.tokenizer, self.decoding.max_length - longest, with_completion=False)
        began = time.perf_counter()
        found = self._ask({"prompt": [self._prompt(example, row.prompt_ids, row.num_cut)
                                      for example, row in zip(examples, rows, strict=True)],
                           "max_tokens": longest, "temperature": 0, "logprobs": 1})
        choices = self._choices(found, len(examples))
        seconds = (time.perf_counter() - began) / len(examples)
        return [
            text_prediction(self.task, example, str(choice.get("text", "")), self._logs(choice)[0],
                            finished=choice.get("finish_reason") == "stop", num_cut=row.num_cut, seconds=seconds)
            for example, row, choice in zip(examples, rows, choices, strict=True)
        ]

    def _labels(self, examples: Sequence[Example]) -> list[Prediction]:
        rows = tokenize_candidates(examples, self.tokenizer, self.decoding.max_length)
        began = time.perf_counter()
        prompts: list[tuple[int, str]] = []
        place = 0
        cuts = []
        for example in examples:
            prompt = self._prompt(example, rows[place].prompt_ids, rows[place].num_cut)
            prompts += [(len(prompt), prompt + candidate) for candidate in example.candidates.values()]
            cuts.append(rows[place].num_cut)
            place += len(example.candidates)
        found = self._ask({"prompt": [text for _, text in prompts], "max_tokens": 1, "temperature": 0, "logprobs": 1,
                           "echo": True})
        logs = [self._echoed(choice, length, len(text))
                for choice, (length, text) in zip(self._choices(found, len(prompts)), prompts, strict=True)]
        seconds = (time.perf_counter() - began) / len(examples)
        counts: Iterator[list[float]] = iter(logs)
        return [label_prediction(example, [next(counts) for _ in example.candidates], num_cut=num_cut, seconds=seconds)
                for example, num_cut in zip(examples, cuts, strict=True)]

    def _prompt(self, example: Example, ids: Iterable[int], num_cut: int) -> str:
        """The prompt as one text, without what does not fit."""
        if not num_cut:
            return example.prompt_text
        return str(self.tokenizer.decode([int(each) for each in ids], skip_special_tokens=True))

    def _echoed(self, choice: Mapping[str, Any], start: int, stop: int) -> list[float]:
        """Log-probabilities of the tokens that begin at characters ``start`` to ``stop`` of what was echoed."""
        logs, offsets = self._logs(choice)
        found = [value for value, offset in zip(logs, offsets, strict=True) if start <= offset < stop]
        if not found:
            raise self._strange("no echoed log-probabilities")
        return found

    def _logs(self, choice: Mapping[str, Any]) -> tuple[list[float], list[int]]:
        """Log-probability and first character of each token, as far as the server says; the first echoed has none."""
        found = choice.get("logprobs") or {}
        try:
            logs = [float("nan") if each is None else float(each) for each in found.get("token_logprobs", ())]
            offsets = [int(each) for each in found.get("text_offset", range(len(logs)))]
        except (TypeError, ValueError, AttributeError) as error:
            raise self._strange(str(error)) from error
        return logs, offsets if len(offsets) == len(logs) else list(range(len(logs)))

    def _choices(self, found: Mapping[str, Any], count: int) -> list[Mapping[str, Any]]:
        """In the order of the prompts."""
        choices = found.get("choices")
        if not isinstance(choices, list) or len(choices) != count or not all(isinstance(c, dict) for c in choices):
            raise self._strange("choices")
        places = {int(each.get("index", place)): each for place, each in enumerate(choices)}
        if sorted(places) != list(range(count)):
            raise self._strange("index")
        return [places[place] for place in range(count)]

    def _find(self, model: str) -> tuple[str, dict[str, Any]]:
        """The model's name there, and what the server says of it."""
        listed = self._send("/models", None).get("data")
        known = {str(each.get("id")): each for each in listed if isinstance(each, dict)} if isinstance(
            listed, list) else {}
        if not model and len(known) == 1:
            model = next(iter(known))
        if model not in known:
            raise UsageError("E3107", "the server has no such model", where=self.url, found=model or "none named",
                             allowed=", ".join(known), do="name one of them with --engine-model")
        if known[model].get("task", self.task.NAME) != self.task.NAME:
            raise UsageError("E3107", "the server has no such model", where=self.url, found=known[model]["task"],
                             allowed=self.task.NAME, do="name one of them with --engine-model")
        return model, dict(known[model])

    def _ask(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._send("/completions", {"model": self.model, **body})

    def _send(self, route: str, body: dict[str, Any] | None) -> dict[str, Any]:
        """One request; asked again where the server is busy or cannot be reached.

        Raises:
            UsageError: E3106. RunError: E3108.
        """
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key := os.environ.get(KEY, ""):
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        found = ""
        for tried in range(TRIES):
            wait = min(2.0**tried / 2, MOST_WAIT)
            try:
                request = urllib.request.Request(self.url + route, data, headers)
                with OPENER.open(request, timeout=self.timeout) as reply:
                    read = json.loads(reply.read(MOST_BYTES))
                if not isinstance(read, dict):
                    raise self._strange(type(read).__name__)
                return read
            except urllib.error.HTTPError as error:
                found = f"HTTP {error.code}: {_said(error)}"
                if error.code not in BUSY:
                    raise self._refused(error.code, found) from error
                wait = _retry_after(error.headers.get("Retry-After"), wait)
            except (OSError, http.client.HTTPException, ValueError) as error:  # not reachable, cut off, no JSON
                found = str(error)
            if tried + 1 < TRIES:
                self.sleep(wait)
        raise RunError("E3108", "the server does not answer", where=self.url, found=found,
                       do="look whether it runs, then give the same command again: it goes on")

    def _refused(self, code: int, found: str) -> UsageError:
        if code in (401, 403):
            return UsageError("E3106", "the server refuses what it was asked", where=self.url, found=found,
                              do="put its key into the environment variable {name}", name=KEY)
        return UsageError("E3106", "the server refuses what it was asked", where=self.url, found=found,
                          do="look at what the server allows; shorter rows may help")

    def _strange(self, found: str) -> RunError:
        return RunError("E3110", "the server does not answer as OpenAI's protocol says", where=self.url, found=found,
                        do="ask a server that knows /v1/completions with log-probabilities and, for labels, echo")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A key goes to the address it was given for, and nowhere else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


OPENER = urllib.request.build_opener(_NoRedirect())


def checked_url(url: str) -> str:
    """The address without a slash at its end.

    Raises:
        UsageError: E3105.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
        raise UsageError("E3105", "this is no address of a server", where="--engine", found=url,
                         allowed="http://127.0.0.1:8000/v1",
                         do="give scheme, host and path only; the key goes into the environment variable {name}",
                         name=KEY)
    return url.rstrip("/")


def decision_of(said: Mapping[str, Any]) -> Decision:
    """A decision as a server wrote it."""
    reasons = [tuple(Reason(str(each["code"]), str(each["text"]), each.get("value"), each.get("limit"))
                     for each in said.get(name) or ()) for name in ("reasons", "flags")]
    return Decision(str(said["verdict"]), said.get("confidence"), said.get("score"), reasons[0],
                    tuple(map(str, said.get("labels") or ())), str(said.get("guarantee", "")), bool(said.get("valid")),
                    reasons[1], bool(said.get("audited")))


def parts_of(examples: Sequence[Example]) -> Iterator[Sequence[Example]]:
    """As many rows as one request takes."""
    return (examples[start : start + ROWS_PER_REQUEST] for start in range(0, len(examples), ROWS_PER_REQUEST))


def _said(error: urllib.error.HTTPError) -> str:
    try:
        return " ".join(error.read(2000).decode("utf-8", "replace").split())[:300]
    except OSError:
        return str(error.reason)


def _retry_after(header: str | None, otherwise: float) -> float:
    """Seconds to wait; a date, or nothing, is not understood."""
    try:
        return min(max(0.0, float(header or "")), MOST_WAIT)
    except ValueError:
        return otherwise
