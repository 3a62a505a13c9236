"""A proved export on its way to the hub: what goes, what never does, and the card made from the run's records."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treetune.core.errors import RunError, UsageError
from treetune.core.files import file_digest, model_digest, read_json
from treetune.report.card import HUB_NAME, model_card
from treetune.workflow.export import RECORD, export
from treetune.workflow.report import report_record
from treetune.workflow.run import finished_folder, read_facts

CARD = "README.md"
# what the forms write; rows, logs and checkpoints have other names, and are not in an export
SENDABLE = re.compile(r"(.*/)?([\w.-]+\.(safetensors|json|txt|model|jinja|gguf|onnx|bin)|Modelfile)", re.ASCII)
SECRET = re.compile(rb"hf_[A-Za-z0-9]{30,}|sk-[A-Za-z0-9_-]{32,}|gh[pousr]_[A-Za-z0-9]{36}|AKIA[0-9A-Z]{16}"
                    rb"|-----BEGIN [A-Z ]*PRIVATE KEY-----")
WEIGHTS = (".safetensors", ".gguf", ".onnx", ".bin")


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be sent where.

    Attributes:
        files: way in the repository -> a file of the export, or bytes made for the hub alone.
    """

    name: str
    endpoint: str
    public: bool
    files: Mapping[str, Path | bytes]

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        return {way: len(content) if isinstance(content, bytes) else content.stat().st_size
                for way, content in self.files.items()}


def push(
    path: str | Path, form: str, output: str | Path, name: str, *, public: bool = False, replace: bool = False,
    agreed: Callable[[Plan], bool], **options: Any,
) -> dict[str, Any]:
    """Export a run, prove it, and only then put it on the hub, in one commit.

    Args:
        output: as `export`; an export of this run and form that stands there whole is sent, not made anew.
        name: OWNER/NAME. public: everybody may read it. replace: see `treetune.models.push.send`.
        agreed: shown the plan; False: nothing is sent. options: of `export`.

    Returns:
        What stands in ``export.json``, and ``push``: what `treetune.models.push.send` gives, with ``name``,
        ``endpoint`` and ``sizes``; of a plan that was not agreed to, with ``sent`` None.

    Raises:
        UsageError: as `export`; E2810, E2811, E2818 an adapter on a folder of this machine. RunError: as `export`;
            E2812 to E2817; E2819 a file that is not what was proved, or looks as if it held a secret.
    """
    from treetune.models.push import endpoint, refuse_name, send

    refuse_name(name)
    folder = finished_folder(path)
    facts = read_facts(folder)
    if form == "adapter" and Path(facts["base_model"]).is_dir():
        raise UsageError("E2818", "nobody else has the base of this adapter", where="--to adapter",
                         found=Path(facts["base_model"]).name, allowed="an adapter on a model of the hub",
                         do="push it merged, with --to safetensors")
    target = Path(output)
    record = kept_export(target, model_digest(folder.model), form, options) or export(path, form, target, **options)
    plan = Plan(name, endpoint(), public, files_to_send(target, record, report_record(folder)))
    shown = {"name": name, "endpoint": plan.endpoint, "sizes": plan.sizes}
    if not agreed(plan):
        return {**record, "push": {**shown, "sent": None}}
    return {**record, "push": {**shown, **send(name, plan.files, public=public, replace=replace,
                                               message=f"{record['task']} ({record['form']}, {record['precision']})")}}


def kept_export(target: Path, run_model: str, form: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The record of the same export where it was made before, as when a push was cut off; {} where it is another."""
    if not (target / RECORD).is_file():
        return {}
    record = dict(read_json(target / RECORD))
    asked = {"form": form, "run_model": run_model, "precision": options.get("precision", "float32")}
    if options.get("max_length"):
        asked["max_length"] = options["max_length"]
    return record if asked == {name: record.get(name) for name in asked} else {}


def files_to_send(folder: Path, record: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Path | bytes]:
    """Every file that was proved, looked at once more; the export's record without this machine's folders; the card.

    Args:
        report: the run's records, as `report_record`.

    Raises:
        RunError: E2819.
    """
    base = public_name(str(record["base_model"]))
    card = model_card({**report, "model": base, "command": "treetune tune config.yaml", "export": record})
    base = Path(base).name if base.startswith("./") else base
    written = {name: value for name, value in record["written"].items() if name != "base"}
    own = json.dumps({**record, "base_model": base, "written": written}, ensure_ascii=False, indent=2) + "\n"
    files: dict[str, Path | bytes] = {way: folder / way for way in sorted(record["files"])}
    found = {str(each.relative_to(folder)) for each in folder.rglob("*") if not each.is_dir()} - {RECORD}
    for way in sorted(found | set(files)):
        refuse_unproved(way, folder / way, record["files"].get(way))
    files |= {CARD: card.encode(), RECORD: own.encode()}
    for way, content in files.items():
        refuse_secret(way, content)
    return files


def public_name(model: str) -> str:
    """A model as others may know it; of a folder only its name, which ``./`` keeps from looking like one of the hub."""
    return model if HUB_NAME.fullmatch(model) and not Path(model).is_dir() else f"./{Path(model).name}"


def refuse_unproved(way: str, path: Path, proved: Mapping[str, Any] | None) -> None:
    """Only plain files that the form wrote, with the bytes they were proved with.

    Raises:
        RunError: E2819.
    """
    if proved is None or path.is_symlink() or not SENDABLE.fullmatch(way) or not path.is_file():
        raise _unsendable(path, "not a file of this export" if path.exists() else "missing")
    if file_digest(path) != proved["sha256"]:
        raise _unsendable(path, "changed since it was proved")


def refuse_secret(way: str, content: Path | bytes) -> None:
    """No token or key goes out inside a text; weights hold no text.

    Raises:
        RunError: E2819.
    """
    if way.endswith(WEIGHTS):
        return
    text = content.read_bytes() if isinstance(content, Path) else content
    if SECRET.search(text):
        raise _unsendable(Path(way), "it holds what looks like a token or a key")


def _unsendable(path: Path, found: str) -> RunError:
    return RunError("E2819", "this file is not sent to the hub, nor is any other", where=str(path), found=found,
                    allowed="files of the export as it was proved", do="export the run again into another folder")
