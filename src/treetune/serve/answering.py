"""Tickets in, answers out: through the same door as ``treetune predict``, with a decision on each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from treetune.core.language import speaking
from treetune.core.records import Prediction
from treetune.decide.decision import UNGATED
from treetune.serve.runs import Served
from treetune.serve.worker import Ticket
from treetune.workflow.decider import Decider, Recording
from treetune.workflow.scope import name_of

USABLE = ("accept", UNGATED)
EXPLAINED_BY = "gradient_x_input"  # the quickest of those that look at the words themselves


class Answerer:
    """Answers batches, in the worker's thread alone; keeps what decides for the state of each run in force.

    Args:
        recording: whether rows are watched for drift, decisions logged and rows queued for review.
    """

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self._deciders: dict[str, tuple[Served, Decider]] = {}

    def __call__(self, tickets: Sequence[Ticket]) -> list[dict[str, Any]]:
        """One answer a ticket; all tickets are of one served state.

        Raises:
            RunError: E5001 to E5003, E5505 the log cannot be written; then no answer goes out.
        """
        from treetune.predict.answers import predict_answers

        if tickets[0].explain:
            return [explanation_of(each) for each in tickets]
        served = tickets[0].served
        run = served.run
        # numbered anew, since each came alone
        examples = [replace(each.example, row=place) for place, each in enumerate(tickets)]
        writers = [Writer(each) for each in tickets]
        predictions = predict_answers(
            run.loaded, run.task, examples, max_length=run.max_length, max_new_tokens=run.max_new_tokens,
            layout=run.layout, answers_from=run.answers_from, no_repeat_ngram_size=run.no_repeat_ngram_size,
            on_token=lambda place, token: writers[place].take(token),
        )
        decided: dict[int, Prediction] = {}
        for language in dict.fromkeys(each.language for each in tickets):
            places = [place for place, each in enumerate(tickets) if each.language == language]
            with speaking(language):
                own = self._decide(served, [predictions[place] for place in places],
                                   [tickets[place] for place in places])
            decided |= dict(zip(places, own, strict=True))
        return [answer_of(ticket, decided[place], self.recording.on) for place, ticket in enumerate(tickets)]

    def _decide(
        self, served: Served, predictions: Sequence[Prediction], tickets: Sequence[Ticket]
    ) -> list[Prediction]:
        known, decider = self._deciders.get(served.name, (None, None))
        if decider is None or known is not served:
            decider = Decider(served.run, self.recording, changed=())
            self._deciders[served.name] = (served, decider)
        decider.changed = tuple(name_of(part) for part in served.changed or ())  # in the language of these rows
        return decider.decide(predictions, [each.example for each in tickets], [each.row for each in tickets])


def answer_of(ticket: Ticket, prediction: Prediction, recorded: bool) -> dict[str, Any]:
    """An answer for machines.

    ``answer`` is there only when it may be used (accepted, or no gate was asked for); under review a person finds it
    as ``proposal``; of a refused one no text is sent at all.
    """
    from treetune.workflow.answer_lines import decision_as_dict, finite

    assert prediction.decision is not None
    verdict = prediction.decision.verdict
    usable, refused = verdict in USABLE, verdict == "refuse"
    decision = decision_as_dict(prediction.decision)
    if refused:
        decision["labels"] = ()
    answer = {
        "id": prediction.row_id, "run": ticket.served.name, "task": ticket.served.run.task.NAME,
        "weights_sha256": ticket.served.digest, "answer": prediction.answer if usable else None,
        "proposal": prediction.answer if not usable and not refused else None,
        "decision": finite(decision),
        "scores": {} if refused else finite({name: round(value, 6) for name, value in prediction.scores.items()}),
        "kept_for_review": recorded and ticket.served.gated and (verdict != "accept" or prediction.decision.audited),
        "finished": prediction.finished, "num_cut": prediction.num_cut, "seconds": round(prediction.seconds, 6),
    }
    if ticket.count_tokens:
        tokenizer = ticket.served.run.loaded.tokenizer
        answer["usage"] = {"prompt_tokens": len(tokenizer(ticket.example.prompt_text)["input_ids"]),
                           "completion_tokens": len(prediction.token_log_probs)}
    return answer


def explanation_of(ticket: Ticket) -> dict[str, Any]:
    """Which words speak for the answer and which against it; the answer itself is not said here."""
    from treetune.workflow.explain import Wanted, explain_examples

    run, example = ticket.served.run, ticket.example
    with speaking(ticket.language):
        [found] = explain_examples(run, [example], Wanted(method=EXPLAINED_BY, inside=False))
    parts = {"source": example.source, "question": example.question}
    return {"run": ticket.served.name, "method": found["method"], "note": found["note"], "parts": [
        {"part": name, "pieces": pieces_of(text, [word for word in found["words"] if word["part"] == name])}
        for name, text in parts.items() if text]}


def pieces_of(text: str, words: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The whole text in order: words with their value, and what stands between them with null."""
    pieces: list[dict[str, Any]] = []
    at = 0
    for word in sorted(words, key=lambda each: int(each["start"])):
        if word["start"] > at:
            pieces.append({"text": text[at : word["start"]], "value": None})
        pieces.append({"text": text[max(at, word["start"]) : word["end"]], "value": word["value"]})
        at = max(at, word["end"])
    return [*pieces, {"text": text[at:], "value": None}] if at < len(text) else pieces


def to_json(value: Any) -> str:
    """One line, no ASCII escapes, no NaN."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class Writer:
    """Makes readable pieces of the tokens of one answer, for a client that watches it being written."""

    def __init__(self, ticket: Ticket) -> None:
        self.ticket, self.ids, self.sent = ticket, list[int](), ""
        loaded = ticket.served.run.loaded
        self.decode: Callable[..., str] = loaded.tokenizer.decode
        self.skip, self.end = loaded.head == "seq2seq", loaded.tokenizer.eos_token_id
        words: Mapping[str, str] = getattr(ticket.served.run.task, "NO_ANSWER", {})
        self.unsaid = tuple(word.strip() for word in words.values())

    def take(self, token: int) -> bool:
        """A new token; whether anybody still waits."""
        if self.ticket.gone:
            return False
        if self.ticket.on_text is not None and token != self.end:
            self.ids.append(token)
            self._send(self.decode(self.ids, skip_special_tokens=self.skip))
        return True

    def _send(self, text: str) -> None:
        if text.endswith("\ufffd") or any(word.startswith(text.strip()) for word in self.unsaid):
            return  # half a character, or words that say there is no answer
        answer = self.ticket.served.run.task.answer_from_text(text, self.ticket.example)
        if answer.startswith(self.sent) and len(answer) > len(self.sent):
            piece, self.sent = answer[len(self.sent) :], answer
            assert self.ticket.on_text is not None
            self.ticket.on_text(piece)
