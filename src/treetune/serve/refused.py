"""A request that gets no answer: a coded error, its HTTP status, and one shape for all of them, OpenAI's."""

from __future__ import annotations

from typing import Any

from treetune.core.errors import DataError, RunError, TreetuneError, UsageError

KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class Refused(Exception):
    """Ends a request.

    Args:
        error: what is said. status: of HTTP. retry_after: seconds until it is worth trying again, 0: not said.
        param: the field it is about.
    """

    def __init__(self, status: int, error: TreetuneError, *, retry_after: int = 0, param: str = "") -> None:
        super().__init__(error.code)
        self.status, self.error, self.retry_after, self.param = status, error, retry_after, param

    @property
    def headers(self) -> dict[str, str]:
        return {"retry-after": str(self.retry_after)} if self.retry_after else {}

    def body(self) -> dict[str, Any]:
        """``{"error": …}`` in the language in force; never a path of this machine."""
        return error_body(self.status, self.error, self.param)


def error_body(status: int, error: TreetuneError, param: str = "") -> dict[str, Any]:
    """OpenAI's error object."""
    facts = error.as_dict()
    around = "; ".join(facts[name] for name in ("where", "found", "allowed") if facts[name])
    message = facts["what"] + (f" ({around})" if around else "") + (f". {facts['do']}" if facts["do"] else "")
    kind = KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param or None, "code": error.code}}


def as_refused(error: TreetuneError) -> Refused:
    """What a row or a run made impossible; of a run's own faults nothing but the code goes out."""
    if isinstance(error, DataError | UsageError):
        return Refused(422, error)
    return Refused(503, RunError(error.code, "the server cannot answer now"), retry_after=5)


def unexpected() -> Refused:
    """Something nobody foresaw; the server's own log has more."""
    return Refused(500, RunError("E9000", "something unexpected went wrong"))
