"""``treetune doctor``: is this machine ready, and if not, what to do."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from treetune.core.errors import EXIT_FAILED, TreetuneError
from treetune.core.files import write_text
from treetune.core.language import language, say

FLOORS = {"torch": (2, 10), "transformers": (5, 3), "safetensors": (0, 6), "pydantic": (2, 11)}
MIN_FREE_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. ``do`` is empty where all is well."""

    name: str
    found: str
    ok: bool
    do: str = ""


def run(json_output: Annotated[bool, typer.Option("--json", help="print as JSON")] = False) -> int:
    """Look at Python, packages, disk, memory and the shipped model; exit code 1 where something is wrong."""
    checks: tuple[Callable[[], list[Finding]], ...] = (python, packages, disk, machine, products, base_model)
    findings = [finding for check in checks for finding in check()]
    if json_output:
        print(json.dumps([asdict(finding) for finding in findings], ensure_ascii=False))
    else:
        for finding in findings:
            print(f"{'ok ' if finding.ok else 'BAD'}  {finding.name}: {finding.found}"
                  + (f"\n     {say('do')}: {finding.do}" if finding.do else ""))
    return 0 if all(finding.ok for finding in findings) else EXIT_FAILED


def python() -> list[Finding]:
    """The interpreter and the locale."""
    ok = sys.version_info >= (3, 11)
    return [
        Finding("python", platform.python_version(), ok, "" if ok else say("install Python 3.11 or newer")),
        Finding("language", f"{language()} (LANG={os.environ.get('LANG', '')})", True),
    ]


def packages() -> list[Finding]:
    """Installed versions against the lowest that work."""
    result = []
    for name, floor in FLOORS.items():
        wanted = ".".join(map(str, floor))
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            result.append(Finding(name, say("missing"), False, f"pip install '{name}>={wanted}'"))
            continue
        numbers = tuple(int(part) for part in version.split("+")[0].split(".")[:2])
        ok = numbers >= floor
        result.append(Finding(name, version, ok, "" if ok else f"pip install '{name}>={wanted}'"))
    return result


def disk() -> list[Finding]:
    """Space, and whether a file can be written, made durable and renamed here."""
    free = shutil.disk_usage(".").free
    enough = free >= MIN_FREE_BYTES
    space = Finding("disk", f"{free / 2**30:.1f} GiB free", enough, "" if enough else say("free some space"))
    try:
        with tempfile.TemporaryDirectory(dir=".", prefix=".treetune-doctor-") as folder:
            write_text(Path(folder) / "probe", "probe")
    except (OSError, TreetuneError) as error:
        return [space, Finding("write", str(error), False, say("choose a folder you may write to"))]
    return [space, Finding("write", "write, fsync and rename work here", True)]


def machine() -> list[Finding]:
    """Cores and memory."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    return [Finding("machine", f"{platform.machine()}, {os.cpu_count()} cores, {pages / 2**30:.1f} GiB", True)]


def products() -> list[Finding]:
    """Which library makes large products in float32."""
    from treetune.models.product import numpys

    library = numpys()
    found = "torch" if library is None else f"numpy ({library.internal_api} {library.version})"
    return [Finding("products", found, True)]


def base_model() -> list[Finding]:
    """Whether the shipped model is there and loads."""
    from treetune.models.load import load_model

    try:
        loaded = load_model("gpt3")
    except TreetuneError as error:
        return [Finding("gpt3", str(error), False, say("install treetune again"))]
    count = sum(weight.numel() for weight in loaded.model.parameters())
    return [Finding("gpt3", f"{count:,} parameters, window {loaded.window}, device {loaded.model.device}", True)]
