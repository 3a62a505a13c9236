"""What a form needs beside treetune, looked for before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from treetune.core.errors import UsageError


def require(form: str, packages: Sequence[str]) -> None:
    """Refuse a form whose packages are not installed.

    Raises:
        UsageError: E2801.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise UsageError("E2801", "this form needs packages that are not installed", where=f"--to {form}",
                         found="no " + ", ".join(missing), do="pip install 'treetune[export]'")
