"""A hub of one's own on 127.0.0.1: the few routes that huggingface_hub calls to push a model, with faults on demand.

Loaded by ``conftest.py``; it keeps what was committed, as bytes, and everything that came in, by route.
"""

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_" + "a" * 12  # too short for a real one
LFS_FROM = 2000  # bytes; so that small cards go in the commit and weights go before it


@dataclass
class Repository:
    private: bool
    commits: list[dict[str, bytes]] = field(default_factory=lambda: [{".gitattributes": b"*.safetensors lfs\n"}])
    messages: list[str] = field(default_factory=list)
    in_lfs: set[str] = field(default_factory=set)

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1]

    @property
    def sha(self) -> str:
        told = repr([sorted(each) for each in self.commits]).encode()
        return hashlib.sha1(told).hexdigest()

    def siblings(self) -> Iterator[dict[str, Any]]:
        for way, content in self.files.items():
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            lfs = {"lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}}
            yield {"rfilename": way, "size": len(content), "blobId": blob, **(lfs if way in self.in_lfs else {})}


@dataclass
class Hub:
    """Its state. ``faults``: route -> an HTTP status to answer with, or ``"cut"``."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    came: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    faults: dict[str, int | str] = field(default_factory=dict)
    may_write: str = "me"


ROUTES = [
    ("look", "GET", r"/api/models/([^/]+/[^/]+)(?:/revision/\w+)?"), ("create", "POST", r"/api/repos/create"),
    ("card", "POST", r"/api/validate-yaml"), ("preupload", "POST", r"/api/models/([^/]+/[^/]+)/preupload/main"),
    ("batch", "POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch"), ("upload", "PUT", r"/stored/(\w+)"),
    ("commit", "POST", r"/api/models/([^/]+/[^/]+)/commit/main"),
]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *words: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.take()

    do_POST = do_PUT = do_GET

    def take(self) -> None:
        path = self.path.partition("?")[0]
        for name, method, pattern in ROUTES:
            if method == self.command and (found := re.fullmatch(pattern, path)):
                self.answer_route(name, found)
                return
        self.read_body()
        if path != "/api/agent-harnesses":  # what the client asks every hub by itself, to name itself
            self.hub.came.append(f"unknown: {self.command} {path}")
        self.answer(404, {"error": "no such route"})

    def answer_route(self, name: str, found: re.Match[str]) -> None:
        self.hub.came.append(name)
        fault = self.hub.faults.get(name)
        if fault == "cut":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        body = self.read_body()
        self.hub.bodies.append(body)
        if name != "upload" and self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.answer(401, {"error": "Invalid credentials in Authorization header"})
        elif isinstance(fault, int):
            self.answer(fault, {"error": f"told to answer {fault}"})
        else:
            getattr(self, f"on_{name}")(found, body)

    def read_body(self) -> bytes:
        if self.headers["Transfer-Encoding"] != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"] or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        if status >= 400:
            self.send_header("X-Error-Message", value["error"])
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def on_look(self, found: re.Match[str], body: bytes) -> None:
        repository = self.hub.repositories.get(found[1])
        if repository is None:
            self.answer(404, {"error": "Repository not found"})
            return
        self.answer(200, {"id": found[1], "sha": repository.sha, "private": repository.private,
                          "siblings": list(repository.siblings())})

    def on_create(self, found: re.Match[str], body: bytes) -> None:
        asked = json.loads(body)
        if asked["organization"] != self.hub.may_write:
            self.answer(403, {"error": "You don't have the rights to create a model under this namespace"})
            return
        name = f"{asked['organization']}/{asked['name']}"
        private = asked.get("private", asked.get("visibility") == "private")
        self.hub.repositories[name] = Repository(private)
        self.answer(200, {"url": f"{self.hub.url}/{name}"})

    def on_card(self, found: re.Match[str], body: bytes) -> None:
        assert json.loads(body)["content"].startswith("---\n")
        self.answer(200, {"errors": [], "warnings": []})

    def on_preupload(self, found: re.Match[str], body: bytes) -> None:
        self.answer(200, {"files": [
            {"path": each["path"], "uploadMode": "lfs" if each["size"] >= LFS_FROM else "regular",
             "shouldIgnore": False} for each in json.loads(body)["files"]]})

    def on_batch(self, found: re.Match[str], body: bytes) -> None:
        self.answer(200, {"transfer": "basic", "objects": [
            {**each, "actions": {"upload": {"href": f"{self.hub.url}/stored/{each['oid']}"}}}
            for each in json.loads(body)["objects"]]})

    def on_upload(self, found: re.Match[str], body: bytes) -> None:
        assert hashlib.sha256(body).hexdigest() == found[1]
        self.hub.stored[found[1]] = body
        self.answer(200, {})

    def on_commit(self, found: re.Match[str], body: bytes) -> None:
        repository = self.hub.repositories[found[1]]
        head, *lines = [json.loads(line) for line in body.splitlines()]
        if head["value"].get("parentCommit", repository.sha) != repository.sha:
            self.answer(412, {"error": "A commit has happened since"})
            return
        files = dict(repository.files)
        for line in lines:
            way = line["value"]["path"]
            if line["key"] == "deletedFile":
                del files[way]
            elif line["key"] == "lfsFile":
                files[way] = self.hub.stored[line["value"]["oid"]]
                repository.in_lfs.add(way)
            else:
                files[way] = base64.b64decode(line["value"]["content"])
        repository.commits.append(files)
        repository.messages.append(head["value"]["summary"])
        self.answer(200, {"commitUrl": f"{self.hub.url}/{found[1]}/commit/{repository.sha}",
                          "commitOid": repository.sha, "hookOutput": ""})


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that listens while the block runs."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
