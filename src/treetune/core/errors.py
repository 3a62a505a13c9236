"""Every error a user can meet, in one tree.

    TreetuneError            exit code 1
    ├── UsageError           2   a flag, a setting, a name (also a ValueError)
    │   └── ModelError       2   a model or tokenizer folder cannot be used
    ├── DataError            3   a file or a row cannot be used (also a ValueError)
    ├── RunError             1   a run folder, a checkpoint or the disk is not as it must be
    ├── TrainingError        1   training cannot go on (NaN loss, nothing to learn)
    └── Interrupted         75   stopped by a signal; the same command resumes

A message says what, where, what was found, what is allowed and what to do. Codes are stable in every language.
"""

from __future__ import annotations

from treetune.core.language import say

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_DATA = 3
EXIT_GATE_REFUSED = 4
EXIT_INTERRUPTED = 75


class TreetuneError(Exception):
    """Base of the tree.

    Args:
        code: stable code such as ``"E1102"``: 1xxx data, 2xxx usage, 3xxx model, 4xxx training, 5xxx run folder.
        what: message id, an English template such as ``"no column {column!r}"``; translated when shown.
        where: file, row, key: whatever leads the reader to the place.
        found: what was there. allowed: what may be there.
        do: message id of the advice, formatted with the same values.
        values: what fills the templates.
    """

    exit_code = EXIT_FAILED

    def __init__(
        self,
        code: str,
        what: str,
        *,
        where: str = "",
        found: str = "",
        allowed: str = "",
        do: str = "",
        **values: object,
    ) -> None:
        super().__init__(code, what)
        self.code = code
        self.what = what
        self.where = where
        self.found = found
        self.allowed = allowed
        self.do = do
        self.values = values

    def __str__(self) -> str:
        lines = [f"{self.code}: {say(self.what, **self.values)}"]
        facts = (("where", self.where), ("found", self.found), ("allowed", self.allowed))
        lines += [f"  {say(name)}: {text}" for name, text in facts if text]
        if self.do:
            lines.append(f"  {say('do')}: {say(self.do, **self.values)}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, str]:
        """The same message for machines (``--json``)."""
        return {
            "code": self.code,
            "what": say(self.what, **self.values),
            "where": self.where,
            "found": self.found,
            "allowed": self.allowed,
            "do": say(self.do, **self.values) if self.do else "",
        }


class UsageError(TreetuneError, ValueError):
    """A flag, a setting or a name that cannot be used."""

    exit_code = EXIT_USAGE


class ModelError(UsageError):
    """A model or tokenizer folder that cannot be used."""


class DataError(TreetuneError, ValueError):
    """A file or a row that cannot be used."""

    exit_code = EXIT_DATA


class RunError(TreetuneError, RuntimeError):
    """A run folder, a checkpoint or a disk that is not as it must be."""


class TrainingError(TreetuneError, RuntimeError):
    """Training cannot go on."""


class Interrupted(TreetuneError):
    """Stopped by a signal after saving; running the same command again goes on."""

    exit_code = EXIT_INTERRUPTED
