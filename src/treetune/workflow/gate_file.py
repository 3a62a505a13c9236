"""The gate in force in a run folder."""

from __future__ import annotations

from treetune.core.errors import TreetuneError
from treetune.core.files import RunFolder, read_json
from treetune.decide.gate import Gate


def read_gate(folder: RunFolder) -> Gate | str | None:
    """The run's gate; None where there is none; the name of its file where nobody can vouch for it."""
    if not folder.gate.exists():
        return None
    try:
        return Gate.from_record(read_json(folder.gate))
    except (TreetuneError, ValueError, KeyError, TypeError):  # broken or edited
        return folder.gate.name
