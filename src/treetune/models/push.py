"""Sends files to a model repository of the Hugging Face hub: all in one commit, or none of them.

The client finds the endpoint (``HF_ENDPOINT``) and the token (``HF_TOKEN``, else the file that ``hf auth login``
wrote into ``HF_HOME``) by itself; no token passes through our flags, settings or records.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treetune.core.errors import RunError, TreetuneError, UsageError
from treetune.core.files import CHUNK_BYTES, file_digest

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
KEPT = {".gitattributes"}  # the hub's own
Files = Mapping[str, Path | bytes]  # way in the repository -> what to put there


@dataclass(frozen=True, slots=True)
class Remote:
    """A repository as it is before anything is sent.

    Attributes:
        commit: its newest. files: way -> git's id of the content, or its sha256 where the hub keeps it apart (LFS).
    """

    commit: str
    private: bool
    files: Mapping[str, str]


def refuse_name(name: str) -> None:
    """Only whole names: a bare one would go to whoever the token belongs to.

    Raises:
        UsageError: E2810.
    """
    if not NAME.fullmatch(name) or ".." in name or "--" in name:
        raise UsageError("E2810", "this is no name of a repository on the hub", where="--push", found=name,
                         allowed="OWNER/NAME", do="name the owner, too: you or one of your organizations")


def refuse_without_token() -> None:
    """Known before hours of work, and without the network.

    Raises:
        UsageError: E2811.
    """
    from huggingface_hub import get_token

    if not get_token():
        raise UsageError("E2811", "there is no token to write to the hub with", where="HF_TOKEN, HF_HOME",
                         do="log in with hf auth login, or set HF_TOKEN; no flag takes a token, for flags are kept in "
                         "the history of a shell")


def endpoint() -> str:
    """The hub that would be written to."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def look(name: str) -> Remote | None:
    """The repository as it is now; None where there is none.

    Raises:
        RunError: E2812 to E2815, see `told`.
    """
    from huggingface_hub import HfApi, errors

    with told(name):
        try:
            info = HfApi().model_info(name, files_metadata=True)
        except errors.RepositoryNotFoundError as error:
            if status_of(error) != 404:
                raise
            return None
    files = {each.rfilename: each.lfs.sha256 if each.lfs else each.blob_id or "" for each in info.siblings or ()}
    return Remote(str(info.sha), bool(info.private), {way: oid for way, oid in files.items() if way not in KEPT})


def same(content: Path | bytes, oid: str) -> bool:
    """Whether the hub's file holds these bytes: ``oid`` is a sha256 (64 digits) or git's sha1 of a blob."""
    if len(oid) == 64:
        return oid == (file_digest(content) if isinstance(content, Path) else hashlib.sha256(content).hexdigest())
    size = content.stat().st_size if isinstance(content, Path) else len(content)
    digest = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    if isinstance(content, bytes):
        digest.update(content)
        return digest.hexdigest() == oid
    with open(content, "rb") as handle:
        while chunk := handle.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest() == oid


def send(name: str, files: Files, *, public: bool, replace: bool, message: str) -> dict[str, Any]:
    """Put ``files`` there as the whole content of the repository, in one commit; it is made where there is none.

    Large files are uploaded first, but nobody sees them before the commit names them. A repository that holds exactly
    these files already is left as it is, so the same call again after a lost answer does no harm.

    Args:
        public: the repository may be one that everybody reads; else a new one is private and a public one is refused.
        replace: other content of the repository may be overwritten and taken away.

    Returns:
        ``commit``, ``url``, ``private``, ``sent``: ways of the files that were new or other than before, and
        ``deleted``; ``commit`` is that of before where nothing was sent.

    Raises:
        RunError: E2812 to E2815, see `told`; E2816 the repository holds something else; E2817 it is public.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi()
    remote = look(name)
    if remote is None:
        with told(name):
            api.create_repo(name, private=not public)
        remote = look(name) or Remote("", not public, {})
    if not remote.private and not public:
        raise RunError("E2817", "everybody can read this repository", where=name, allowed="--public",
                       do="give --public if that is what you want, or make it private on its page")
    sent = [way for way, content in files.items() if not same(content, remote.files.get(way, ""))]
    gone = sorted(set(remote.files) - set(files))
    refuse_other_content(name, [*gone, *(way for way in sent if way in remote.files)], replace)
    commit, url = remote.commit, f"{api.endpoint}/{name}"
    if sent or gone:
        operations: list[Any] = [CommitOperationDelete(way) for way in gone]
        operations += [CommitOperationAdd(way, str(content) if isinstance(content, Path) else content)
                       for way, content in files.items() if way in sent]
        with told(name):
            made = api.create_commit(name, operations, commit_message=message, parent_commit=remote.commit or None)
        commit, url = str(made.oid), str(made.commit_url)
    return {"commit": commit, "url": url, "private": remote.private, "sent": sent, "deleted": gone}


def refuse_other_content(name: str, ways: list[str], replace: bool) -> None:
    """What is there is kept unless the user says otherwise.

    Raises:
        RunError: E2816.
    """
    if ways and not replace:
        raise RunError("E2816", "the repository holds something else already", where=name,
                       found=", ".join(ways)[:200], allowed="an empty repository, or the same files",
                       do="choose another name, or give --replace: its files are then overwritten and others deleted, "
                       "in one commit")


@contextmanager
def told(name: str) -> Iterator[None]:
    """Turns what the client raises into one message of ours; nothing was committed then.

    Raises:
        RunError: E2812 the token is not known (401), E2813 it may not write there (403), E2814 the hub refused for
            another reason, E2815 the connection was cut.
    """
    # uploads wrap what went wrong into a RuntimeError; the hub's word on a card is a ValueError
    failures: tuple[type[Exception], ...] = (*network_failures(), RuntimeError, ValueError)
    try:
        yield
    except TreetuneError:
        raise
    except failures as error:
        raise failure_of(error, name) from error


def failure_of(error: BaseException, name: str) -> RunError:
    """The message for a failure of the client."""
    found = " ".join(str(root_of(error)).split())[:300]
    status = status_of(error)
    if status == 401:
        return RunError("E2812", "the hub does not know this token", where=name, found=found,
                        do="make a new one on the hub's page of tokens, then hf auth login or HF_TOKEN")
    if status == 403:
        return RunError("E2813", "this token may not write there", where=name, found=found,
                        do="choose a name of your own, or a token with the right to write")
    if status or not is_of_network(error):
        return RunError("E2814", "the hub did not take it; nothing was sent", where=name, found=found,
                        do="see what it says above; run the same command again where it is only busy")
    return RunError("E2815", "the connection to the hub was cut before it said that all is there", where=name,
                    found=found, do="run the same command again: it looks at what is there first; the export is kept")


def root_of(error: BaseException) -> BaseException:
    """The failure of a chain that says most: the hub's answer, else the first one."""
    while error.__cause__ is not None and getattr(error, "response", None) is None:
        error = error.__cause__
    return error


def network_failures() -> tuple[type[Exception], ...]:
    """What a connection lets out; the client's HTTP library has a tree of errors of its own."""
    from huggingface_hub import errors

    return (OSError, getattr(errors, "HTTPError", OSError))


def is_of_network(error: BaseException | None) -> bool:
    """Whether a connection, or a file that was being read for it, is behind the failure."""
    while error is not None:
        if isinstance(error, network_failures()):
            return True
        error = error.__cause__
    return False


def status_of(error: BaseException | None) -> int:
    """The HTTP status behind a failure; 0 where there is none."""
    while error is not None:
        response = getattr(error, "response", None)
        if response is not None:
            return int(response.status_code)
        error = error.__cause__
    return 0
