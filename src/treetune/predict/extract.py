"""Answers that are pieces of the text they are about: which tokens may come next, so that the answer stands there.

Of every place in the text where a word begins (in Chinese, every character), the tokens of what follows are laid out
once as the answer would be written. An answer so far is a common beginning of some of these paths; its next token is
the next one of any of them, or the end where a word ends. Letters: S paths, L tokens of the longest answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treetune.core.records import Example, IntArray
from treetune.models.load import LoadedModel
from treetune.models.tokens import encode_texts
from treetune.tasks.contract import Task, written_as

HAN = "\u3400-\u4dbf\u4e00-\u9fff"
BEGINNING = re.compile(rf"[{HAN}]|[^\W{HAN}]+|[^\w\s]")
SIGNS = re.compile(r"[^\w\s]{2,}")
WORD = re.compile(rf"[^\W{HAN}]{{2}}")
CHARACTERS_A_TOKEN = 12  # more than an answer's tokens spell on average, so that a path is not shorter than it may be

# the tokens a row has written -> those it may write next
Allowed = Callable[[Sequence[int]], IntArray]


@dataclass(frozen=True, slots=True)
class Paths:
    """Every answer that stands in one text.

    Attributes:
        ids: (S, L) the tokens from each beginning on, -1 behind the last. may_end: (S, L) whether the answer may end
        behind that token. end: the end-of-text token.
    """

    ids: IntArray
    may_end: NDArray[np.bool_]
    end: int

    def after(self, written: Sequence[int]) -> IntArray:
        """Tokens that may come next, sorted; only the end behind anything that is no beginning of an answer."""
        number = len(written)
        live = (self.ids[:, :number] == np.asarray(written, dtype=np.int64)).all(axis=1)
        following = self.ids[live, number] if number < self.ids.shape[1] else np.zeros(0, dtype=np.int64)
        found = np.unique(following[following >= 0])
        if number and self.may_end[live, number - 1].any():
            found = np.append(found, self.end)
        return found if len(found) else np.array([self.end], dtype=np.int64)


def paths_of(
    text: str, write: Callable[[str], str], others: Sequence[str], tokenizer: Any, num_tokens: int
) -> Paths:
    """The paths through ``text``, white space squeezed.

    Args:
        write: a piece of the text -> how it is written as an answer (with a leading space, where the task has one).
        others: whole answers, as written, that may be given though they do not stand in the text.
        num_tokens: of an answer at most; longer paths are left off there.
    """
    text = " ".join(text.split())
    longest = num_tokens * CHARACTERS_A_TOKEN
    starts = [hit.start() for hit in BEGINNING.finditer(text)]
    pieces = [write(text[start : start + longest]) for start in starts]
    found: list[tuple[Sequence[int], list[bool]]] = []
    if pieces:
        encoded: Any = tokenizer(pieces, add_special_tokens=False, split_special_tokens=True,
                                 return_offsets_mapping=True)
        for start, piece, tokens, offsets in zip(starts, pieces, encoded["input_ids"], encoded["offset_mapping"],
                                                 strict=True):
            lead = len(piece) - len(text[start : start + longest])
            found.append((tokens[:num_tokens], ends_of(text, start - lead, offsets, lead)[:num_tokens]))
            found += within_signs(piece, tokens[:num_tokens], offsets[:num_tokens], tokenizer)
    for tokens in (encode_texts(tokenizer, others)[each] for each in others):
        found.append((tokens[:num_tokens], [place == len(tokens) - 1 for place in range(len(tokens))][:num_tokens]))
    ids = np.full((len(found), num_tokens), -1, dtype=np.int64)
    may_end = np.zeros(ids.shape, dtype=bool)
    for number, (tokens, ends) in enumerate(found):
        ids[number, : len(tokens[:num_tokens])] = tokens[:num_tokens]
        may_end[number, : len(ends[:num_tokens])] = ends[:num_tokens]
    return Paths(ids, may_end, int(tokenizer.eos_token_id))


def ends_of(text: str, shift: int, offsets: Sequence[tuple[int, int]], lead: int) -> list[bool]:
    """Whether an answer may end behind each token: not within a word, nor within a character of several tokens.

    Args:
        shift: place in ``text`` of the first character of what was written. lead: how much of that is no text.
    """
    result = []
    for place, (_, last) in enumerate(offsets):
        whole = place + 1 == len(offsets) or offsets[place + 1][0] >= last
        result.append(whole and last > lead and not WORD.fullmatch(text[shift + last - 1 : shift + last + 1]))
    return result


def within_signs(
    piece: str, tokens: Sequence[int], offsets: Sequence[tuple[int, int]], tokenizer: Any
) -> list[tuple[list[int], list[bool]]]:
    """Paths that end within a run of signs, as before the full stop in ``).``, where the whole run is other tokens."""
    result = []
    for run in SIGNS.finditer(piece[: offsets[-1][1] if offsets else 0]):
        count = sum(last <= run.start() for _, last in offsets)
        before = offsets[count - 1][1] if count else 0
        for stop in range(run.start() + 1, run.end()):
            signs = encode_texts(tokenizer, [piece[before:stop]])[piece[before:stop]]
            if list(tokens[count : count + len(signs)]) != signs:
                result.append(([*tokens[:count], *signs], [False] * (count + len(signs) - 1) + [True]))
    return result


def paths_for(
    loaded: LoadedModel, task: Task, examples: Sequence[Example], nums_cut: Sequence[int], max_new_tokens: int
) -> list[Paths]:
    """The paths of each example through the part of its source that the model has read; made once a source."""
    made: dict[tuple[str, int, str], Paths] = {}
    for example, num_cut in zip(examples, nums_cut, strict=True):
        key = (example.source, num_cut, example.language)
        if key not in made:
            def write(piece: str, language: str = example.language) -> str:
                return written_as(task, piece, language)

            made[key] = paths_of(read_part(loaded, example.source, num_cut), write, [write("")], loaded.tokenizer,
                                 max_new_tokens)
    return [made[example.source, num_cut, example.language]
            for example, num_cut in zip(examples, nums_cut, strict=True)]


def read_part(loaded: LoadedModel, source: str, num_cut: int) -> str:
    """The source without the tokens that were cut off its end; a character cut in two is left out."""
    if not num_cut:
        return source
    ids = encode_texts(loaded.tokenizer, [source])[source]
    return str(loaded.tokenizer.decode(ids[: max(0, len(ids) - num_cut)])).rstrip("\ufffd")
