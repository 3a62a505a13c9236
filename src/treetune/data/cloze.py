"""Questions made from a text alone, so that a language model learns to look an answer up in what it has read.

A span of a sentence is hidden behind a question word and the rest of the sentence becomes the question, with a few
words lost (cloze translation: Lewis et al. 2019, arXiv 1906.04980, section 2.3; span selection as pretraining: Ram et
al. 2021, arXiv 2101.00438). The answer stands in the text, word for word once white space is squeezed.
"""

from __future__ import annotations

import re

import numpy as np

SENTENCE = re.compile(r"[^.!?]+[.!?]+[\"')]*\s*|[^.!?]+$")
CLAUSE = re.compile(r"[^。！？，；：、\n]{6,40}")
HAN = re.compile(r"[\u4e00-\u9fff]")
NAME = re.compile(r"(?<=[a-z,;] )[A-Z][\w'-]+(?: (?:of |the |de )?[A-Z][\w'-]+){0,3}")
NUMBER = re.compile(r"(?<= )(?:\d[\d,.]*\d|\d)(?: (?!and |or |of |in |to )[a-z]+)?")
NEAR_WORDS = 8
LOST_WORDS = 0.15
QUESTION_WORDS = {"name": ("who", "what", "which"), "number": ("when", "how many", "what"), "words": ("what",)}
FRAME = {"en": "\nQuestion: {question}\nAnswer: {answer}", "zh": "\n问题：{question}\n答案：{answer}"}


def with_questions(text: str, count: int, draw: np.random.Generator) -> str:
    """``text`` and up to ``count`` questions about it, each behind a line break, in the form the QA task uses."""
    chinese = len(HAN.findall(text)) * 3 > len(text)
    pieces = [each for each in (CLAUSE if chinese else SENTENCE).findall(text) if len(each) > 5]
    if not pieces:
        return text
    chosen = draw.permutation(len(pieces))[:count]
    asked = [(chinese_question if chinese else english_question)(pieces[place], draw) for place in chosen]
    return text + "".join(
        FRAME["zh" if chinese else "en"].format(question=question, answer=answer)
        for question, answer in filter(None, asked)
    )


def chinese_question(clause: str, draw: np.random.Generator) -> tuple[str, str] | None:
    """(question, answer): two to six characters of a clause, hidden behind 什么."""
    length = int(draw.integers(2, min(6, len(clause) - 3) + 1))
    start = int(draw.integers(0, len(clause) - length + 1))
    answer = clause[start : start + length]
    if answer != answer.strip():
        return None
    return f"{clause[:start]}什么{clause[start + length:]}？", answer


def english_question(sentence: str, draw: np.random.Generator) -> tuple[str, str] | None:
    """(question, answer): a name, a number or a few words of a sentence; its neighbours are the question."""
    sentence = " ".join(sentence.split()).rstrip(".!?\"') ")
    found = [("name", hit) for hit in NAME.finditer(sentence)] + [("number", hit) for hit in NUMBER.finditer(sentence)]
    if found and draw.random() < 0.8:
        kind, hit = found[int(draw.integers(len(found)))]
        before, answer, after = sentence[: hit.start()].split(), hit.group(), sentence[hit.end() :].split()
    else:
        words = sentence.split()
        if len(words) < 6:
            return None
        length = int(draw.integers(1, 4))
        start = int(draw.integers(1, len(words) - length))
        kind, before, after = "words", words[:start], words[start + length :]
        answer = " ".join(words[start : start + length])
    answer = answer.strip(",;:-\"'()")
    asked = QUESTION_WORDS[kind][int(draw.integers(len(QUESTION_WORDS[kind])))]
    before, after = _thinned(before[-NEAR_WORDS:], draw), _thinned(after[:NEAR_WORDS], draw)
    if not answer or len(before) + len(after) < 3:
        return None
    if len(after) >= 3 and draw.random() < 0.5:
        question = [asked, *after]  # the part behind the answer alone: "who wrote the report?"
    elif draw.random() < 0.5:
        question = [asked, *after, *before]
    else:
        question = [*before, asked, *after]
    written = " ".join(question).strip(",;:- ")
    return f"{written[:1].upper()}{written[1:]}?", answer


def _thinned(words: list[str], draw: np.random.Generator) -> list[str]:
    """The words without some, chosen at random, as a question seldom repeats a sentence in full."""
    return [word for word in words if draw.random() >= LOST_WORDS]
