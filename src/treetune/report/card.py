"""The model card: README.md of the tuned model, as the Hugging Face hub reads it. It shows no row of the data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from treetune.core.language import say
from treetune.report.amounts import seconds_text
from treetune.report.blocks import Cell
from treetune.report.explanation import method_name
from treetune.report.quality import metric_names, scores_table
from treetune.report.sections import limit_sentences
from treetune.report.wording import clean, count, family_name, finite, percent, task_name, with_interval

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", re.ASCII)
HUB_TASKS = {
    "translation": "translation",
    "summarization": "summarization",
    "sentiment": "text-classification",
    "question_answering": "question-answering",
}
LIBRARIES = {"adapter": "peft", "gguf": "gguf", "ctranslate2": "ctranslate2", "onnx": "onnx"}  # else transformers
HUB_PIPELINES = {"classes": "text-classification", "spans": "question-answering", "seq2seq": "text2text-generation"}
Record = Mapping[str, Any]


def model_card(record: Record) -> str:
    """Front matter and text; ``record`` as in `treetune.report.page.render_report`; with ``export``, as in an
    export's ``export.json``, of that form.
    """
    header = yaml.safe_dump(front_matter(record), sort_keys=False, allow_unicode=True)
    parts = [f"# {_title(record)}", *_about(record), *_export(record), *_quality(record), *_explanations(record),
             *_limits(record), *_reproduce(record)]
    return f"---\n{header}---\n\n" + "\n\n".join(parts) + "\n"


def front_matter(record: Record) -> dict[str, Any]:
    """What the hub shows and searches: base model, task, languages, metrics with their values."""
    task, model = _one_line(record.get("task", "")), clean(record.get("model", ""))
    evaluation = record.get("evaluation") or {}
    library = LIBRARIES.get(str((record.get("export") or {}).get("form")), "transformers")
    header: dict[str, Any] = {"library_name": library, "tags": ["treetune", task.replace("_", "-")]}
    if HUB_NAME.fullmatch(model):  # a folder of this machine is nobody else's business
        header["base_model"] = model
    # how it is loaded, whatever the task: a decoder's answers are written or scored
    header["pipeline_tag"] = HUB_PIPELINES.get(str(record.get("head")), "text-generation")
    keys = evaluation.get("counts") or {}
    if languages := [_one_line(key.removeprefix("language:")) for key in keys if key.startswith("language:")]:
        header["language"] = languages
    if evaluation.get("scores"):
        header["metrics"] = list(map(_one_line, metric_names(evaluation)))
        header["model-index"] = [{"name": f"{task}-treetune", "results": [_results(task, evaluation)]}]
    return header


def _results(task: str, evaluation: Record) -> dict[str, Any]:
    own = evaluation["scores"].get("tuned") or next(iter(evaluation["scores"].values()))
    metrics = [
        {"type": (name := _one_line(score["metric"])), "value": value, "name": name}
        for score in own if (value := finite(score.get("value"))) is not None
    ]
    data = _one_line(re.split(r"[/\\]", clean(evaluation.get("data") or "test rows").rstrip("/\\"))[-1])
    return {"task": {"type": HUB_TASKS.get(task, task)}, "dataset": {"name": data, "type": "custom"},
            "metrics": metrics}


def _title(record: Record) -> str:
    return _inline(say("{task} with {model}", task=task_name(str(record.get("task", ""))), model=_model(record)))


def _model(record: Record) -> str:
    model = clean(record.get("model", ""))
    return model if HUB_NAME.fullmatch(model) else re.split(r"[/\\]", model.rstrip("/\\"))[-1]


def _one_line(value: Any) -> str:
    return " ".join(clean(value).split())


def _inline(text: str) -> str:
    """One line of Markdown in which nothing of ``text`` is read as markup."""
    return re.sub(r"([\\`*_\[\]<>|#~!&])", r"\\\1", _one_line(text))


def _about(record: Record) -> list[str]:
    facts = [(say("base model"), _model(record)), (say("model family"), family_name(record.get("family"))),
             (say("created"), clean(record.get("created") or "–")),
             (say("seed"), count((record.get("settings") or {}).get("seed"))),
             (say("parameters"), count(record.get("parameters")))]
    seconds, tokens, in_rows = (finite(record.get(key)) for key in ("seconds", "tokens", "row_tokens"))
    if seconds is not None:
        facts.append((say("training time"), seconds_text(seconds)))
    if tokens is not None and in_rows:
        facts.append((say("tokens saved by sharing prefixes"), percent(in_rows - tokens, in_rows)))
    for name, split in ((record.get("data") or {}).get("splits") or {}).items():
        if name == "train":
            facts.append((say("training rows"), count(split.get("num_rows"))))
    text = say("A language model tuned for one task on its owner's rows, and what was measured of it.")
    return [_inline(text), "\n".join(f"- {_inline(name)}: {_inline(value)}" for name, value in facts)]


def _export(record: Record) -> list[str]:
    """Of a card that goes with an export: the form, and how near it is to the run that the numbers below are of."""
    export = record.get("export") or {}
    if not export:
        return []
    parity = export["parity"]
    lines = [
        say("{form} in {precision}; on {rows} rows {share:.1%} of its answers are those of the tuned run, and "
            "log-probabilities are at most {difference:.1e} nats apart.", form=export["form"],
            precision=export["precision"], rows=parity["rows"], share=parity["equal_answers"],
            difference=parity["log_prob_difference"]),
        say("Rows of up to {tokens} tokens; the prompt, piece by piece, stands in export.json.",
            tokens=export["max_length"]),
        say("The run's gate is not in this form: no bound on wrong answers goes with it."),
    ]
    if export["written"].get("needs_treetune"):
        lines.insert(1, say("transformers opens it after import treetune."))
    if export.get("not_verified"):
        lines.append(say("not verified: {what}", what=export["not_verified"]))
    return [f"## {say('This form')}", "\n".join(f"- {_inline(line)}" for line in lines)]


def _quality(record: Record) -> list[str]:
    evaluation = record.get("evaluation") or {}
    heading = f"## {say('Quality')}"
    if not evaluation.get("scores"):
        return [heading, say("The quality is not there yet: run treetune evaluate.")]
    table = scores_table(evaluation)
    return [heading, _inline(table.caption), markdown_table(table.head, table.rows)]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str | Cell]]) -> str:
    """A table in GitHub's Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    texts = [[cell.text if isinstance(cell, Cell) else cell for cell in line] for line in lines]
    return "\n".join(
        "| " + " | ".join(text if text == "---" else _inline(text) for text in line) + " |" for line in texts
    )


def _explanations(record: Record) -> list[str]:
    """Which methods of explanation were measured on this model, and whether they beat random order."""
    measured = (record.get("explanations") or {}).get("faithfulness") or {}
    methods = {name: one for name, one in (measured.get("methods") or {}).items() if "against" in one}
    if not methods:
        return []
    lines = [
        f"- {_inline(method_name(name))}: "
        f"{_inline(say('better than chance') if one['beats_random'] else say('not better than chance'))}, "
        f"{_inline(say('deletion area'))} "
        f"{_inline(with_interval(one['against']['random']['deletion']['interval'], sign=True))}"
        for name, one in methods.items()
    ]
    text = say("Words named by an explanation are taken away; the answer's chance should fall faster than in random "
               "order. Measured on {rows} rows.", rows=count(measured.get("rows")))
    return [f"## {say('Are the explanations true')}", _inline(text), "\n".join(lines)]


def _limits(record: Record) -> list[str]:
    return [f"## {say('Limits')}", "\n".join(f"- {_inline(text)}" for text in limit_sentences(record))]


def _reproduce(record: Record) -> list[str]:
    heading = f"## {say('How to reproduce')}"
    command = record.get("command")
    if not command:
        return [heading, say("The command is not there yet.")]
    lines = clean(command).splitlines() or [""]
    return [heading, "\n".join(f"    {line}" for line in lines)]
