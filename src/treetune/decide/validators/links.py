"""Addresses and placeholders come through unchanged: URLs, e-mail addresses, {names}, %s, <tags>, @handles, #tags."""

from __future__ import annotations

import re

from treetune.core.language import say
from treetune.core.records import Example, Prediction, Reason

NAME = "links"
TASKS = ("translation", "summarization", "question_answering")
FLAG_ONLY = False
LINK = re.compile(
    r"https?://[^\s<>\"'，。；（）)】」]+|www\.[^\s<>\"'，。；（）)】」]+|[\w.+-]+@[\w-]+(?:\.[\w-]+)+|\{[A-Za-z_][\w.]*\}|%\(?[sd]\b|"
    r"%\([a-z_]+\)[sd]|</?[a-zA-Z][\w-]*(?:\s[^<>]*)?/?>|(?<![\w@])@[A-Za-z_]\w{2,}|(?<![\w&])#[A-Za-z_]\w{2,}"
)
START = re.compile(r"[@{%<#]|://|www\.")


def find(prediction: Prediction, example: Example) -> Reason | None:
    answer, source = prediction.answer, example.source
    for match in LINK.finditer(answer) if START.search(answer) else ():
        link = match[0].rstrip(".,;:!?")
        if link not in source:
            return Reason(NAME, say("an address or placeholder that the source does not have"), 1.0, 0.0, link,
                          (match.start(), match.start() + len(link)))
    if example.prompt[0].cuttable or example.question or not START.search(source):
        return None
    for match in LINK.finditer(source):
        link = match[0].rstrip(".,;:!?")
        if link not in answer:
            return Reason(NAME, say("an address or placeholder of the source is missing"), 1.0, 0.0, link,
                          (match.start(), match.start() + len(link)), "source")
    return None
