"""Text in the row that talks to the model instead of being its subject. A flag: a person decides what it means."""

from __future__ import annotations

import re

from treetune.core.language import say
from treetune.core.records import Example, Prediction, Reason

NAME = "injection"
TASKS: tuple[str, ...] = ()
FLAG_ONLY = True
ORDER = re.compile(
    r"\b(?:ignore|disregard|forget|override|bypass)\b[^.!?\n]{0,40}\b(?:instructions?|prompts?|rules?|directions?|"
    r"guidelines?|above|previous|prior)\b"
    r"|\b(?:you are now|from now on,? you|act as (?:an?|the) |pretend (?:to be|you are)|new instructions?:)"
    r"|\b(?:reveal|print|show|repeat|output)\b[^.!?\n]{0,20}\b(?:system prompt|your (?:instructions|prompt|rules))\b"
    r"|\b(?:classify|label|mark|rate|translate|summari[sz]e|answer)\b[^.!?\n]{0,30}\b(?:this|it|everything)\b"
    r"[^.!?\n]{0,15}\bas\b[^.!?\n]{0,5}\b(?:positive|negative|neutral|correct)\b"
    r"|\b(?:respond|reply|answer) only with\b|\bdo not (?:translate|summari[sz]e|classify)\b"
    r"|<\|[a-z_]+\|>|\[/?(?:INST|SYS)\]|<</?SYS>>|^\s*(?:###\s*)?(?:system|assistant)\s*:"
    r"|(?:忽略|无视|忘记|忘掉|不要理会)[^。！？\n]{0,12}(?:指令|指示|提示|要求|规则|内容)"
    r"|(?:你现在是|从现在开始,?，?你|请扮演|假装你是|新的指令)"
    r"|(?:输出|显示|重复|告诉我|泄露)[^。！？\n]{0,8}(?:系统提示|提示词|你的指令)"
    r"|(?:只|仅)(?:回答|输出|回复)[“\"「]?[^。\n]{1,8}|不要(?:翻译|总结|分类)",
    re.IGNORECASE | re.MULTILINE,
)
HIDDEN = re.compile("[\u200b\u2060\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]{2,}|[\U000e0020-\U000e007f]")


def find(prediction: Prediction, example: Example) -> Reason | None:
    for place, text in (("source", example.source), ("question", example.question)):
        match = ORDER.search(text) or (None if text.isascii() else HIDDEN.search(text))
        if match:
            return Reason(NAME, say("the row may hold an instruction to the model"), 1.0, 0.0, match[0][:80],
                          match.span(), place)
    return None
