"""Who may ask: loopback without a key, anybody else only with one; names of the host are a closed list."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

from treetune.core.errors import UsageError

KEY_VARIABLE = "TREETUNE_API_KEY"
MIN_KEY_CHARACTERS = 16
MAX_KEY_BYTES = 4096
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
TICKET_SECONDS = 60


def read_key(path: str, environment: Mapping[str, str]) -> str:
    """The key from a file, else from ``TREETUNE_API_KEY``; "" when there is none. It is never a flag.

    Raises:
        UsageError: E2703 not readable, or too short to be one.
    """
    where = path or KEY_VARIABLE
    try:
        raw = Path(path).read_bytes()[:MAX_KEY_BYTES] if path else os.fsencode(environment.get(KEY_VARIABLE, ""))
        key = raw.decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("E2703", "the API key cannot be read", where=where, found=type(error).__name__,
                         allowed="a file with one line of ASCII", do="check the path and who may read it") from error
    if len(key) < MIN_KEY_CHARACTERS and (path or key):
        raise UsageError("E2703", "the API key is too short to keep anybody out", where=where,
                         found=f"{len(key)} characters", allowed=f"at least {MIN_KEY_CHARACTERS}",
                         do="make one with: openssl rand -hex 32")
    return key


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address; a name other than localhost may be anything."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def check_binding(host: str, key: str) -> None:
    """Nothing listens beyond this machine without a key.

    Raises:
        UsageError: E2704.
    """
    if not key and not is_loopback(host):
        raise UsageError("E2704", "an address that others can reach needs an API key", where="--host", found=host,
                         allowed="127.0.0.1 without a key", do="give --api-key-file FILE, or leave --host out")


def host_names(host: str, allowed: tuple[str, ...]) -> frozenset[str]:
    """Names a request may call this server by, without ports."""
    own = f"[{host.strip('[]')}]" if ":" in host else host
    return frozenset(name.lower() for name in (*LOOPBACK_NAMES, own, *allowed))


def name_of_host(header: str) -> str:
    """``example.org:8000`` -> ``example.org``; ``[::1]:8000`` -> ``[::1]``."""
    header = header.strip().lower()
    return header[: header.index("]") + 1] if header.startswith("[") and "]" in header else header.partition(":")[0]


class Keys:
    """Compares keys in constant time, and lends links that a browser can open without one."""

    def __init__(self, key: str) -> None:
        self.needed = bool(key)
        self._digest = hashlib.sha256(key.encode()).digest()
        self._secret = secrets.token_bytes(32)

    def fits(self, authorization: bytes) -> bool:
        """Whether an Authorization header holds the key; digests are compared, so its length stays unknown, too."""
        if not self.needed:
            return True
        scheme, _, given = authorization.partition(b" ")
        same = hmac.compare_digest(hashlib.sha256(given.strip()).digest(), self._digest)
        return same and scheme.lower() == b"bearer"

    def ticket(self, path: str, now: float | None = None) -> str:
        """Good for one path and one minute."""
        until = int((time.time() if now is None else now) + TICKET_SECONDS)
        return f"{until}-{self._sign(path, until)}"

    def ticket_fits(self, path: str, ticket: str, now: float | None = None) -> bool:
        """Whether it was made here, for this path, and is not over."""
        until, _, signature = ticket.partition("-")
        if not (until.isascii() and until.isdigit() and len(until) < 12):
            return False
        signed = hmac.compare_digest(signature.encode(), self._sign(path, int(until)).encode())
        return signed and (time.time() if now is None else now) <= int(until)

    def _sign(self, path: str, until: int) -> str:
        return hmac.new(self._secret, f"{path}\n{until}".encode(), "sha256").hexdigest()
