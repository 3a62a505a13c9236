"""Watching a generation token by token: to show an answer while it is written, or to stop when nobody waits for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import StoppingCriteriaList

# (place of the example, new token id) -> whether to go on; the answer of a stopped row is of no use to anybody
OnToken = Callable[[int, int], bool]


class _Watched:
    """A stopping criterion for ``generate``: tells of each row's new tokens, stops the rows nobody waits for."""

    def __init__(self, on_token: OnToken, owners: Sequence[Sequence[int]], end: int) -> None:
        self.on_token, self.owners, self.end = on_token, owners, end
        self.done = [False] * len(owners)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        for row, token in enumerate(input_ids[:, -1].tolist()):
            if not self.done[row]:
                wanted = [self.on_token(place, token) for place in self.owners[row]]
                self.done[row] = token == self.end or not any(wanted)
        return torch.tensor(self.done, device=input_ids.device)


def watching(on_token: OnToken | None, owners: Sequence[Sequence[int]], end: int) -> dict[str, Any]:
    """Arguments for ``generate``. ``owners``: for each of its rows the places of the examples it answers."""
    if on_token is None:
        return {}
    return {"stopping_criteria": StoppingCriteriaList([_Watched(on_token, owners, end)])}


def told(on_token: OnToken | None, places: Sequence[int]) -> OnToken | None:
    """The same for rows of a part of the examples: row 0 of the part is ``places[0]``."""
    if on_token is None:
        return None
    return lambda row, token: on_token(places[row], token)
