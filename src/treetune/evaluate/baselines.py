"""Honest baselines: how far answers get that need no model. A tuned model that does not beat them is no use.

Lead sentences are the standard baseline of news summarization (Nenkova 2005); the sentence with most words of
the question is that of question answering (Rajpurkar et al. 2016, section 5).
"""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

from treetune.core.errors import DataError, UsageError
from treetune.core.records import Example
from treetune.evaluate.sentences import sentences_of
from treetune.metrics.segment import is_chinese, words

Examples = Sequence[Example]


def answers_of(name: str, examples: Examples, train_examples: Examples = ()) -> list[str]:
    """The baseline's answer to each example.

    Args:
        name: a key of `BASELINES`.
        train_examples: what the baseline may learn from; ``majority`` needs them.

    Raises:
        UsageError: E2402 for an unknown name. DataError: E1405 when ``majority`` has no training answers.
    """
    if name not in BASELINES:
        near = difflib.get_close_matches(name, BASELINES, n=1, cutoff=0.4)
        raise UsageError("E2402", "there is no baseline {name!r}", name=name, found=name,
                         allowed=", ".join(BASELINES), near=near[0] if near else "",
                         do="write {near}" if near else "choose one of them")
    return BASELINES[name](examples, train_examples)


def majority(examples: Examples, train_examples: Examples) -> list[str]:
    """The most frequent first training answer; of several, the first in code point order.

    Raises:
        DataError: E1405 when there is no training answer.
    """
    counts = Counter(example.answers[0] for example in train_examples if example.answers)
    if not counts:
        raise DataError("E1405", "the majority baseline has no training answers to count",
                        found=f"{len(train_examples)} training rows, none with an answer",
                        allowed="at least one", do="give the training rows")
    best = min(counts, key=lambda answer: (-counts[answer], answer))
    return [best] * len(examples)


def copy_source(examples: Examples, train_examples: Examples) -> list[str]:
    """The source itself."""
    return [example.source for example in examples]


def lead_sentence(examples: Examples, train_examples: Examples) -> list[str]:
    """The first sentence of the source; "" of an empty one."""
    return [_lead(example, 1) for example in examples]


def lead_3(examples: Examples, train_examples: Examples) -> list[str]:
    """The first three sentences of the source."""
    return [_lead(example, 3) for example in examples]


def question_overlap_sentence(examples: Examples, train_examples: Examples) -> list[str]:
    """The sentence of the source that shares most different words with the question; of several, the first.

    The question is what the prompt holds besides the source; words that every prompt of that language holds
    there (the task's own) are left out, unless nothing would remain. In Chinese, characters are the words.
    """
    fixed = _fixed_words([*examples, *train_examples])
    chosen: list[str] = []
    for example in examples:
        asked = _words_besides_source(example)
        asked = asked - fixed.get(example.language, set()) or asked
        sentences = sentences_of(example.source) or [""]
        shared = [len(asked & set(words(sentence))) for sentence in sentences]
        chosen.append(sentences[shared.index(max(shared))])
    return chosen


def _lead(example: Example, count: int) -> str:
    between = "" if is_chinese(example.language) else " "
    return between.join(sentences_of(example.source)[:count])


def _words_besides_source(example: Example) -> set[str]:
    prompt = example.row_text
    return set(words(prompt.replace(example.source, " ", 1) if example.source else prompt))


def _fixed_words(examples: Examples) -> dict[str, set[str]]:
    """Language -> words that all its prompts hold besides the source."""
    prompts: dict[str, list[set[str]]] = defaultdict(list)
    for example in examples:
        prompts[example.language].append(_words_besides_source(example))
    return {language: set.intersection(*found) for language, found in prompts.items()}


BASELINES: Mapping[str, Callable[[Examples, Examples], list[str]]] = {
    "majority": majority,
    "copy_source": copy_source,
    "lead_sentence": lead_sentence,
    "lead_3": lead_3,
    "first_sentence": lead_sentence,
    "question_overlap_sentence": question_overlap_sentence,
}
