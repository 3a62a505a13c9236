"""A run in a form that other tools read: written aside, proved on rows, and only then put where it was asked for."""

from __future__ import annotations

import importlib
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from treetune.core.errors import RunError, UsageError
from treetune.core.files import disk_error, file_digest, model_digest, sync_files, sync_folder, write_json
from treetune.core.records import Example, PromptPart
from treetune.workflow.evaluate import answer
from treetune.workflow.gather import read_for, to_examples
from treetune.workflow.parity import parity_of, said_by
from treetune.workflow.run import Run, finished_folder, open_run, read_facts

RECORD = "export.json"
MOST_ROWS = 64
NO_LIMIT = 10**9
FORMS: Mapping[str, tuple[str, ...]] = {  # heads that each form can hold
    "safetensors": ("causal", "classes", "spans", "seq2seq"),
    "adapter": ("causal", "classes", "spans", "seq2seq"),
    "gguf": ("causal",),
    "ctranslate2": ("causal",),
    "onnx": ("classes",),
}
MIN_EQUAL = {"float32": 0.98, "int8": 0.9}
MOST_DIFFERENCE = {"float32": 1e-3, "int8": None}  # nats a token
HOW = {
    "safetensors": "opened with transformers; the rows answered and scored by it",
    "adapter": "put onto its base with peft; the rows answered and scored by the two",
    "ctranslate2": "the rows answered and scored with CTranslate2's logits, every token from the whole row",
    "onnx": "the rows answered and scored with onnxruntime",
    "gguf": "every tensor read back with the gguf package and compared bit by bit; the file opened with transformers' "
            "reader of GGUF, whose model answered and scored the rows",
}
NOT_RUN = {
    "gguf": "no engine for GGUF was run: neither llama.cpp's arithmetic, nor its splitting of text into tokens, nor "
            "the Modelfile",
    "ctranslate2": "CTranslate2's own search and cache were not run",
}


def export(
    path: str | Path, form: str, output: str | Path, *, data: str | None = None,
    columns: Mapping[str, str] | None = None, precision: str = "float32", max_length: int = 0,
    min_equal: float | None = None,
) -> dict[str, Any]:
    """Write a run's model as ``form`` into the new folder ``output``, with ``export.json``.

    Args:
        form: one of `FORMS`. data: labelled rows to prove it on, at most 64 of them, evenly spread; None: the run's
            validation rows. precision: ``float32``, or ``int8`` for CTranslate2.
        max_length: tokens a row may have in the new form; 0: as in the run.
        min_equal: share of equal answers that is asked for; None: 0.98, or 0.9 for int8.

    Returns:
        What stands in ``export.json``.

    Raises:
        UsageError: E2030, E2031 as `open_run`; E2801 a package is missing, E2802 not in this form, E2805 ``output``
            is there already, E2809 no rows. ModelError: E2803, E2806 to E2808, see `treetune.models.export`.
        RunError: E2804 it answers otherwise than the run; E5001 to E5003 the disk refuses. ``output`` is not there
            then.
    """
    target = Path(output)
    facts = read_facts(finished_folder(path))
    refuse_before(form, precision, facts, Path(path), target)
    run = open_run(path)
    window = window_of(run, max_length)
    examples = rows_to_prove(run, data, columns or {})
    partial = target.resolve().with_name(f".{target.resolve().name}.tmp-{os.getpid()}")
    try:
        record = written_and_proved(run, form, precision, window, examples, partial, min_equal)
        write_json(partial / RECORD, record)
        sync_files(partial)
        os.rename(partial, target)
        sync_folder(target.resolve().parent)
    except OSError as error:
        raise disk_error(error, target) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return record


def refuse_before(form: str, precision: str, facts: Mapping[str, Any], run: Path, target: Path) -> None:
    """Everything that can be said before a model is loaded.

    Raises:
        UsageError: E2801, E2802, E2805.
    """
    from treetune.models.adapters import ADAPTER_CONFIG
    from treetune.models.export.packages import require

    head = facts.get("head", "causal")
    if head not in FORMS.get(form, ()):
        allowed = ", ".join(name for name, heads in FORMS.items() if head in heads)
        raise UsageError("E2802", "a run of this kind cannot be written as {form}", form=form, where=str(run),
                         found=f"{facts.get('family', '')} ({head})", allowed=allowed, do="choose an allowed form")
    if form == "adapter" and not (run / "model" / ADAPTER_CONFIG).is_file():
        raise UsageError("E2802", "a run of this kind cannot be written as {form}", form=form, where=str(run),
                         found="no adapter_config.json", allowed="a run that was tuned with --lora-r",
                         do="choose an allowed form")
    module = module_of(form)
    if precision not in module.PRECISIONS:
        raise UsageError("E2802", "a run of this kind cannot be written as {form}", form=f"{form} {precision}",
                         where="--precision", found=precision, allowed=", ".join(module.PRECISIONS),
                         do="choose an allowed form")
    require(form, module.PACKAGES)
    if target.exists() or target.is_symlink():
        raise UsageError("E2805", "there is something in the way of the export", where=str(target),
                         allowed="a folder that is not there yet", do="choose another --output")


def module_of(form: str) -> Any:
    """The file that writes and opens the form."""
    return importlib.import_module(f"treetune.models.export.{form}")


def window_of(run: Run, max_length: int) -> int:
    """Tokens a row may have in the new form.

    Raises:
        UsageError: E2802 more than the run's.
    """
    if max_length > run.max_length or 0 < max_length <= run.max_new_tokens:
        raise UsageError("E2802", "a run of this kind cannot be written as {form}", form=f"--max-length {max_length}",
                         where="--max-length", found=str(max_length),
                         allowed=f"{run.max_new_tokens + 1} … {run.max_length}", do="choose an allowed form")
    return max_length or run.max_length


def rows_to_prove(run: Run, data: str | None, columns: Mapping[str, str]) -> list[Example]:
    """At most 64 labelled rows, evenly spread over the file.

    Raises:
        UsageError: E2809 the run's validation rows are gone, or there is none. DataError: as `read_for`.
    """
    found: Sequence[Example]
    if data is not None:
        found = to_examples(run.task, read_for(run.task, data, "test", columns), run.options, None, 0.0).examples
    else:
        from treetune.workflow.explain import training_of

        try:
            found = training_of(run)[1]
        except RunError as error:
            raise no_rows(run, error.found) from error
    if not found:
        raise no_rows(run, "0")
    count = min(MOST_ROWS, len(found))
    return [found[place * len(found) // count] for place in range(count)]


def no_rows(run: Run, found: str) -> UsageError:
    return UsageError("E2809", "there are no rows to prove the export on", where=str(run.folder.root), found=found,
                      allowed="labelled rows of the task", do="give --data FILE")


def written_and_proved(
    run: Run, form: str, precision: str, window: int, examples: Sequence[Example], folder: Path,
    min_equal: float | None,
) -> dict[str, Any]:
    """Everything but the last step: the form in ``folder``, and the record of its proof.

    Raises:
        RunError: E2804.
    """
    module = module_of(form)
    original = said_by(run, run.loaded, examples, max_length=run.max_length, window=window, layout=run.layout)
    one_text = as_one_text(run, examples, original.answers)
    source = run.loaded if form == "adapter" else merged(run)
    written = module.write(source, window, precision, folder)

    def parity_in(computed: str) -> dict[str, Any]:
        opened = open_adapter(run, folder) if form == "adapter" else module.read(folder, source, computed)
        opened.model.config.update(run.facts.get("settled", {}))
        # nothing of our own engine is set up in exported forms, so rows are padded
        said = said_by(run, opened, examples, max_length=window, window=window, layout="padded")
        return parity_of(run, examples, original, said)

    parity = parity_in(precision)
    if precision == "int8":  # how much of the difference is the processor's arithmetic, see docs/export.md
        alone = parity_in("float32")
        parity["computed_in_float32"] = {name: alone[name] for name in
                                         ("equal_answers", "log_prob_difference", "metrics")}
    limits = {"equal_answers": MIN_EQUAL[precision] if min_equal is None else min_equal,
              "log_prob_difference": MOST_DIFFERENCE[precision]}
    refuse_miss(parity, limits, form)
    frame = frame_of(run, examples)
    if form == "gguf":
        module.write_modelfile(folder, frame or [examples[0].lead, None], run.max_new_tokens,
                               run.loaded.tokenizer.eos_token)
    return {
        "form": form, "precision": precision, "task": run.task.NAME, "head": run.loaded.head,
        "labels": list(run.options.labels), "base_model": run.facts["base_model"],
        "run_model": model_digest(run.folder.model), "max_length": window, "max_new_tokens": run.max_new_tokens,
        "written": written, "parity": parity, "limits": limits, "verified": HOW[form],
        "not_verified": NOT_RUN.get(form, ""), "prompt": frame, "as_one_text": one_text,
        **({"instruction": run.options.instruction} if run.options.instruction else {}),
        "versions": versions(module.PACKAGES), "created": time.strftime("%Y-%m-%d"), "files": files_of(folder),
    }


def merged(run: Run) -> Any:
    """The run's model, with its adapter in it where it has one."""
    from treetune.models.adapters import ADAPTER_CONFIG
    from treetune.models.merge import merge_adapter

    if not (run.folder.model / ADAPTER_CONFIG).is_file():
        return run.loaded
    found = merge_adapter(run.folder.model, head=run.loaded.head, labels=run.options.labels,
                          load_in=run.facts.get("load_in", ""), revision=run.facts["fingerprint"]["revision"]).loaded
    found.model.config.update(run.facts.get("settled", {}))
    return found


def open_adapter(run: Run, folder: Path) -> Any:
    """The exported adapter on its base, loaded as the run's is."""
    from treetune.models.load import load_model

    return load_model(str(folder), revision=run.facts["fingerprint"]["revision"], seed=run.facts["seed"],
                      head=run.loaded.head, labels=run.options.labels, load_in=run.facts.get("load_in", ""))


def refuse_miss(parity: Mapping[str, Any], limits: Mapping[str, Any], form: str) -> None:
    """Hold the comparison against the limits; what is not a number is a miss.

    Raises:
        RunError: E2804.
    """
    most = limits["log_prob_difference"]
    near = most is None or parity["log_prob_difference"] <= most
    if near and parity["equal_answers"] >= limits["equal_answers"]:
        return
    raise RunError(
        "E2804", "the {form} form answers otherwise than the run; it was thrown away", form=form,
        where="{} rows".format(parity["rows"]),
        found=f"{parity['equal_answers']:.1%} equal answers, {parity['log_prob_difference']:.1e} nats apart",
        allowed=f"{limits['equal_answers']:.1%}" + ("" if most is None else f", {most:.0e} nats"),
        do="choose --precision float32 or another form, or give a lower --min-equal if you can live with that")


def frame_of(run: Run, examples: Sequence[Example]) -> list[str | None] | None:
    """The prompt with None where a row's text goes; None where rows have more than one text, e.g. a question."""
    if any(each.question for each in examples):  # all of these rows may ask the same: it is a row's all the same
        return None
    frames = {tuple(None if part.cuttable else part.text for part in each.pieces) for each in examples}
    if run.loaded.head not in ("causal", "seq2seq") or len(frames) > 1:
        return None
    [frame] = frames
    return list(frame) if frame.count(None) == 1 else None


def as_one_text(run: Run, examples: Sequence[Example], answers: Sequence[str]) -> dict[str, float] | None:
    """Of decoders: what it means to give a tool the prompt as one text, which many take no other way.

    treetune splits each piece of a prompt into tokens by itself; one text is split across the joints, too.

    Returns:
        ``same_ids``: share of prompts that become the same ids; ``equal_answers``: share of answers that stay the same.
    """
    if run.loaded.head != "causal":
        return None
    from treetune.models.tokens import encode_texts, start_ids, tokenize

    tokenizer = run.loaded.tokenizer
    start = start_ids(tokenizer)
    ours = tokenize(examples, tokenizer, NO_LIMIT, with_completion=False)
    whole = encode_texts(tokenizer, [each.prompt_text for each in examples])
    same = [[*start, *whole[each.prompt_text]] == own.prompt_ids.tolist()
            for each, own in zip(examples, ours, strict=True)]
    joined = [replace(each, prompt=(PromptPart(each.prompt_text, cuttable=True),), instruction="") for each in examples]
    equal = [one.answer == two for one, two in zip(answer(run, run.loaded, joined), answers, strict=True)]
    return {"same_ids": sum(same) / len(same), "equal_answers": sum(equal) / len(equal)}


def versions(packages: Sequence[str]) -> dict[str, str]:
    """What wrote and proved it."""
    found = {}
    for name in ("treetune", "torch", "transformers", *packages):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from its source
            from treetune.core.version import __version__

            found[name] = __version__ if name == "treetune" else ""
    return found


def files_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Bytes and sha256 of every file, by its way from the folder."""
    return {str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": file_digest(path)}
            for path in sorted(folder.rglob("*")) if path.is_file()}
